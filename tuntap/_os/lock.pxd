"""A lock to hold for microseconds, without the GIL, and numbers that are looked at without a lock.

PyMutex where Python has it (3.13), the system's own before: a PyThread lock reads the clock each
time it is taken, which shows beside a system call.
"""
from libc.stdint cimport int32_t, uint32_t

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030d0000
    typedef PyMutex TuntapLock;
    #define tuntap_lock_init(lock) memset((lock), 0, sizeof(TuntapLock))
    #define tuntap_lock_take(lock) PyMutex_Lock(lock)
    #define tuntap_lock_give(lock) PyMutex_Unlock(lock)
    #elif defined(_WIN32)
    #define WIN32_LEAN_AND_MEAN
    #include <windows.h>
    typedef SRWLOCK TuntapLock;
    #define tuntap_lock_init(lock) InitializeSRWLock(lock)
    #define tuntap_lock_take(lock) AcquireSRWLockExclusive(lock)
    #define tuntap_lock_give(lock) ReleaseSRWLockExclusive(lock)
    #else
    #include <pthread.h>
    typedef pthread_mutex_t TuntapLock;
    #define tuntap_lock_init(lock) (void) pthread_mutex_init((lock), NULL)
    #define tuntap_lock_take(lock) (void) pthread_mutex_lock(lock)
    #define tuntap_lock_give(lock) (void) pthread_mutex_unlock(lock)
    #endif

    #if defined(_MSC_VER)
    #define TUNTAP_ATOMIC(type) volatile type
    #else
    #define TUNTAP_ATOMIC(type) _Atomic(type)
    #endif
    typedef TUNTAP_ATOMIC(int) TuntapFlag;
    typedef TUNTAP_ATOMIC(int32_t) TuntapInt32;
    typedef TUNTAP_ATOMIC(uint32_t) TuntapUint32;
    """
    ctypedef bint AtomicFlag "TuntapFlag"
    ctypedef int32_t AtomicInt32 "TuntapInt32"
    ctypedef uint32_t AtomicUint32 "TuntapUint32"
    ctypedef struct Lock "TuntapLock":
        pass
    void lock_init "tuntap_lock_init"(Lock *lock) nogil
    void take "tuntap_lock_take"(Lock *lock) nogil
    void give "tuntap_lock_give"(Lock *lock) nogil
