"""What the parts of the Windows core share: errors that are no errno, and text in UTF-16 (inline).

A function that Windows refuses answers -(WINDOWS_ERROR + its own number); os_meaning and os_explain take it apart.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from tuntap._os.native cimport Handle, PATH_CONTROL

cdef extern from *:
    """
    #ifndef WIN32_LEAN_AND_MEAN
    #define WIN32_LEAN_AND_MEAN
    #endif
    #include <winsock2.h>
    #include <ws2tcpip.h>
    #include <windows.h>
    #if defined(_MSC_VER)
    #define TUNTAP_THREAD_LOCAL __declspec(thread)
    #else
    #define TUNTAP_THREAD_LOCAL __thread
    #endif
    """

cdef extern from "<windows.h>" nogil:
    ctypedef void *HANDLE
    ctypedef void *HMODULE
    ctypedef void *PVOID
    ctypedef int BOOL
    ctypedef uint8_t BYTE
    ctypedef uint8_t BOOLEAN
    ctypedef uint16_t WCHAR
    ctypedef uint16_t WORD
    ctypedef uint32_t UINT
    ctypedef unsigned long DWORD
    ctypedef long LONG
    ctypedef unsigned long ULONG
    ctypedef uint64_t ULONG64
    ctypedef struct GUID:
        pass
    HANDLE INVALID_HANDLE_VALUE
    UINT CP_UTF8
    DWORD MB_ERR_INVALID_CHARS
    DWORD ERROR_SUCCESS
    DWORD ERROR_INVALID_FUNCTION
    DWORD ERROR_FILE_NOT_FOUND
    DWORD ERROR_ACCESS_DENIED
    DWORD ERROR_INVALID_HANDLE
    DWORD ERROR_NOT_ENOUGH_MEMORY
    DWORD ERROR_INVALID_DATA
    DWORD ERROR_NOT_READY
    DWORD ERROR_BAD_LENGTH
    DWORD ERROR_GEN_FAILURE
    DWORD ERROR_SHARING_VIOLATION
    DWORD ERROR_HANDLE_EOF
    DWORD ERROR_NOT_SUPPORTED
    DWORD ERROR_BAD_NETPATH
    DWORD ERROR_DEV_NOT_EXIST
    DWORD ERROR_INVALID_PARAMETER
    DWORD ERROR_BUFFER_OVERFLOW
    DWORD ERROR_INSUFFICIENT_BUFFER
    DWORD ERROR_INVALID_NAME
    DWORD ERROR_MOD_NOT_FOUND
    DWORD ERROR_PROC_NOT_FOUND
    DWORD ERROR_BUSY
    DWORD ERROR_ALREADY_EXISTS
    DWORD ERROR_BAD_EXE_FORMAT
    DWORD ERROR_MORE_DATA
    DWORD ERROR_NO_MORE_ITEMS
    DWORD ERROR_OPERATION_ABORTED
    DWORD ERROR_IO_INCOMPLETE
    DWORD ERROR_IO_PENDING
    DWORD ERROR_NOT_FOUND
    DWORD ERROR_DEVICE_NOT_CONNECTED
    DWORD ERROR_OBJECT_ALREADY_EXISTS
    DWORD ERROR_PRIVILEGE_NOT_HELD
    DWORD ERROR_ELEVATION_REQUIRED
    DWORD ERROR_TIMEOUT
    DWORD ERROR_DUP_NAME
    DWORD ERROR_FILE_EXISTS
    DWORD ERROR_ALREADY_INITIALIZED
    DWORD ERROR_DEVICE_REMOVED
    DWORD ERROR_NO_SUCH_DEVICE
    ctypedef struct SRWLOCK:
        pass
    DWORD LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR
    DWORD LOAD_LIBRARY_SEARCH_SYSTEM32
    DWORD INVALID_FILE_ATTRIBUTES
    DWORD DUPLICATE_SAME_ACCESS
    DWORD WAIT_OBJECT_0
    DWORD WAIT_TIMEOUT
    DWORD WAIT_FAILED
    void InitializeSRWLock(SRWLOCK *lock)
    void AcquireSRWLockExclusive(SRWLOCK *lock)
    void ReleaseSRWLockExclusive(SRWLOCK *lock)
    LONG InterlockedIncrement(LONG *value)
    LONG InterlockedDecrement(LONG *value)
    LONG InterlockedExchange(LONG *value, LONG new)
    LONG InterlockedCompareExchange(LONG *value, LONG new, LONG expected)
    HMODULE LoadLibraryExW(const WCHAR *path, HANDLE unused, DWORD flags)
    BOOL FreeLibrary(HMODULE module)
    DWORD GetFileAttributesW(const WCHAR *path)
    HANDLE GetCurrentProcess()
    BOOL DuplicateHandle(
        HANDLE process, HANDLE source, HANDLE to_process, HANDLE *target, DWORD access, BOOL inherit, DWORD options)
    BOOL CloseHandle(HANDLE handle)
    HANDLE CreateEventW(void *security, BOOL manual, BOOL is_set, const WCHAR *name)
    BOOL SetEvent(HANDLE event)
    BOOL ResetEvent(HANDLE event)
    DWORD WaitForSingleObject(HANDLE handle, DWORD milliseconds)
    DWORD WaitForMultipleObjects(DWORD count, const HANDLE *handles, BOOL all, DWORD milliseconds)
    void Sleep(DWORD milliseconds)
    DWORD GetTickCount()
    DWORD GetLastError()
    void SetLastError(DWORD code)
    int MultiByteToWideChar(UINT page, DWORD flags, const char *text, int size, WCHAR *wide, int capacity)
    int WideCharToMultiByte(
        UINT page, DWORD flags, const WCHAR *wide, int size, char *text, int capacity, const char *unknown, BOOL *used)

cdef enum:
    WINDOWS_ERROR = 200000      # added to a number of Windows, to tell it from an errno
    SETUP_ERROR = 300000        # the same for those of SetupAPI, of which this keeps the last 16 bits


cdef inline int win_result(Handle *handle, int path, const char *call, DWORD code) noexcept nogil:
    """0, or what a function that answers its error has refused."""
    if code == ERROR_SUCCESS:
        return 0
    handle.failed[path] = call
    if code >> 16 == 0x8007:          # an HRESULT around the same numbers
        code &= 0xffff
    return -<int> ((SETUP_ERROR if code >> 16 else WINDOWS_ERROR) + (code & 0xffff))


cdef inline int win_fail(Handle *handle, int path, const char *call) noexcept nogil:
    """What GetLastError says of the call that has just failed."""
    cdef DWORD code = GetLastError()
    return win_result(handle, path, call, code if code != ERROR_SUCCESS else ERROR_GEN_FAILURE)


cdef inline DWORD win_code(int error) noexcept nogil:
    """The number of Windows of an error; 0 for an errno."""
    if error >= SETUP_ERROR:
        return <DWORD> 0xE0000000 | <DWORD> (error - SETUP_ERROR)
    return <DWORD> (error - WINDOWS_ERROR) if error >= WINDOWS_ERROR else 0


cdef inline bint is_error(int result, DWORD code) noexcept nogil:
    """Whether a result is that error of Windows."""
    return result < 0 and win_code(-result) == code


cdef inline bint to_wide(const char *text, WCHAR *wide, int capacity) noexcept nogil:
    """UTF-16 with its NUL; False if it does not fit, or the text is no UTF-8."""
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, wide, capacity) > 0


cdef inline bint from_wide(const WCHAR *wide, char *text, int capacity) noexcept nogil:
    """UTF-8 with its NUL; False, and "", if it does not fit."""
    if WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, capacity, NULL, NULL) > 0:
        return True
    text[0] = 0
    return False
