/* What a Python for Windows was configured with, for the headers of CPython 3.11 to 3.13 on another system.

   Windows Pythons bring a pyconfig.h of their own (PC/pyconfig.h of the sources), for Microsoft's compiler.
   This one is for clang, which knows the sizes of the CPU it compiles for. */
#ifndef Py_CONFIG_H
#define Py_CONFIG_H

#define MS_WINDOWS
#define MS_WIN32
#ifdef _WIN64
#define MS_WIN64
#endif
#define PLATFORM "win32"
#define COMPILER "[clang]"

/* Python is in a DLL: what extensions take from it is imported. */
#define Py_ENABLE_SHARED 1
#define HAVE_DECLSPEC_DLL

#define NT_THREADS
#define WITH_THREAD
#define WITH_PYMALLOC 1
#define WITH_DOC_STRINGS 1

#define SIZEOF_SHORT __SIZEOF_SHORT__
#define SIZEOF_INT __SIZEOF_INT__
#define SIZEOF_LONG __SIZEOF_LONG__
#define SIZEOF_LONG_LONG __SIZEOF_LONG_LONG__
#define SIZEOF_VOID_P __SIZEOF_POINTER__
#define SIZEOF_SIZE_T __SIZEOF_SIZE_T__
#define SIZEOF_WCHAR_T __SIZEOF_WCHAR_T__
#define SIZEOF_FLOAT __SIZEOF_FLOAT__
#define SIZEOF_DOUBLE __SIZEOF_DOUBLE__
#define SIZEOF__BOOL 1
#define SIZEOF_TIME_T 8
#define SIZEOF_OFF_T 4
#define SIZEOF_FPOS_T 8
#define SIZEOF_PID_T SIZEOF_INT
#define SIZEOF_HKEY SIZEOF_VOID_P
#define ALIGNOF_SIZE_T SIZEOF_SIZE_T
#define ALIGNOF_MAX_ALIGN_T 8

#define HAVE_LONG_LONG 1
#define HAVE_WCHAR_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_STDDEF_H 1

#endif
