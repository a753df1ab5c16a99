"""A TUN by Wintun: its library, an adapter, and the rings of a session (inline).

Wintun ends a session without waiting for anybody, and frees its rings.  So whoever receives or sends holds the
lock of that direction, a session is ended under both, and those that sleep wait on a handle of our own.
"""
from libc.errno cimport EINVAL, ENETDOWN
from libc.stdint cimport int32_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strcspn

from tuntap._os.native cimport (
    Handle, Log, PATH_CONTROL, PATH_RECV, PATH_SEND, SlotView, slot_at, slot_fill, slot_length,
)
from tuntap._os.win32 cimport *

cdef extern from *:
    """
    /* The interface of wintun.dll 0.14, as its documentation gives it. */
    typedef void *TuntapAdapter;
    typedef void *TuntapSession;
    typedef void (CALLBACK *TuntapLogger)(int level, DWORD64 time, const WCHAR *text);
    typedef struct {
        HMODULE module;
        TuntapAdapter (WINAPI *CreateAdapter)(const WCHAR *name, const WCHAR *type, const GUID *guid);
        TuntapAdapter (WINAPI *OpenAdapter)(const WCHAR *name);
        void (WINAPI *CloseAdapter)(TuntapAdapter adapter);
        BOOL (WINAPI *DeleteDriver)(void);
        void (WINAPI *GetAdapterLUID)(TuntapAdapter adapter, void *luid);
        DWORD (WINAPI *GetRunningDriverVersion)(void);
        void (WINAPI *SetLogger)(TuntapLogger logger);
        TuntapSession (WINAPI *StartSession)(TuntapAdapter adapter, DWORD capacity);
        void (WINAPI *EndSession)(TuntapSession session);
        HANDLE (WINAPI *GetReadWaitEvent)(TuntapSession session);
        BYTE *(WINAPI *ReceivePacket)(TuntapSession session, DWORD *size);
        void (WINAPI *ReleaseReceivePacket)(TuntapSession session, const BYTE *packet);
        BYTE *(WINAPI *AllocateSendPacket)(TuntapSession session, DWORD size);
        void (WINAPI *SendPacket)(TuntapSession session, const BYTE *packet);
    } TuntapWintun;

    #if defined(_M_ARM64) || defined(__aarch64__)
    #define TUNTAP_ARCHITECTURE "arm64"
    #elif defined(_M_X64) || defined(__x86_64__)
    #define TUNTAP_ARCHITECTURE "amd64"
    #else
    #define TUNTAP_ARCHITECTURE "x86"
    #endif

    static int tuntap_wintun_find(TuntapWintun *wintun, HMODULE module) {
        void **function = (void **) &wintun->CreateAdapter;
        static const char *const names[] = {
            "CreateAdapter", "OpenAdapter", "CloseAdapter", "DeleteDriver", "GetAdapterLUID",
            "GetRunningDriverVersion", "SetLogger", "StartSession", "EndSession", "GetReadWaitEvent",
            "ReceivePacket", "ReleaseReceivePacket", "AllocateSendPacket", "SendPacket",
        };
        char name[64];
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            snprintf(name, sizeof(name), "Wintun%s", names[i]);
            function[i] = (void *) GetProcAddress(module, name);
            if (function[i] == NULL) return 0;
        }
        wintun->module = module;
        return 1;
    }

    /* Messages of the driver's library, from any thread. */
    static void (*tuntap_wintun_log)(int level, const char *text);
    static TUNTAP_THREAD_LOCAL int tuntap_wintun_asks;   /* what may not be there: its absence is no error */
    static void CALLBACK tuntap_wintun_logger(int level, DWORD64 time, const WCHAR *text) {
        char utf8[1024];
        void (*log)(int, const char *) = tuntap_wintun_log;
        DWORD error = GetLastError();
        (void) time;
        if (log != NULL && WideCharToMultiByte(CP_UTF8, 0, text, -1, utf8, sizeof(utf8), NULL, NULL) > 0)
            log(tuntap_wintun_asks ? 10 : level == 0 ? 20 : level == 1 ? 30 : 40, utf8);
        SetLastError(error);
    }

    /* One library serves all devices of the process, and stays. */
    static TuntapWintun tuntap_wintun;
    static SRWLOCK tuntap_wintun_lock = SRWLOCK_INIT;
    static TUNTAP_THREAD_LOCAL char tuntap_wintun_places[1024];
    """
    ctypedef void *AdapterHandle "TuntapAdapter"
    ctypedef void *SessionHandle "TuntapSession"
    ctypedef struct Wintun "TuntapWintun":
        HMODULE module
        AdapterHandle CreateAdapter(const WCHAR *name, const WCHAR *type, const GUID *guid) nogil
        AdapterHandle OpenAdapter(const WCHAR *name) nogil
        void CloseAdapter(AdapterHandle adapter) nogil
        BOOL DeleteDriver() nogil
        void GetAdapterLUID(AdapterHandle adapter, void *luid) nogil
        DWORD GetRunningDriverVersion() nogil
        void SetLogger(void *logger) nogil
        SessionHandle StartSession(AdapterHandle adapter, DWORD capacity) nogil
        void EndSession(SessionHandle session) nogil
        HANDLE GetReadWaitEvent(SessionHandle session) nogil
        uint8_t *ReceivePacket(SessionHandle session, DWORD *size) nogil
        void ReleaseReceivePacket(SessionHandle session, const uint8_t *packet) nogil
        uint8_t *AllocateSendPacket(SessionHandle session, DWORD size) nogil
        void SendPacket(SessionHandle session, const uint8_t *packet) nogil
    const char *ARCHITECTURE "TUNTAP_ARCHITECTURE"
    bint wintun_find "tuntap_wintun_find"(Wintun *wintun, HMODULE module) nogil
    Log wintun_log "tuntap_wintun_log"
    bint wintun_asks "tuntap_wintun_asks"
    void *wintun_logger "(void *) tuntap_wintun_logger"
    Wintun WINTUN "tuntap_wintun"
    SRWLOCK WINTUN_LOCK "tuntap_wintun_lock"
    char *wintun_places "tuntap_wintun_places"

cdef enum:
    RING_CAPACITY = 0x800000          # 8 MiB: what a second brings at 64 Mb/s
    LARGEST_IP_PACKET = 0xffff
    PLACES_SIZE = 1024
    PATH_SIZE = 1024                  # of UTF-16, for one file
    BACKOFF_MAX = 16                  # milliseconds; no event tells that there is room in a ring

# A TUN while it is open.
cdef struct Tunnel:
    AdapterHandle adapter
    SessionHandle session             # NULL while the TUN is down; changed under both locks
    HANDLE readable                   # of the last session, and ours; changed under recv_lock while nobody sleeps
    LONG sleepers                     # that wait on it, or may be about to
    DWORD capacity
    uint8_t *peeked                   # a packet that was received to see whether there is one; under recv_lock
    DWORD peeked_size
    SRWLOCK recv_lock
    SRWLOCK send_lock
    int backoff                       # milliseconds for which nobody looks at a ring that was full; 0 if it was not
    DWORD full_since                  # of GetTickCount


cdef inline int wintun_try(Handle *handle, const WCHAR *path, DWORD flags) noexcept nogil:
    """Load one file; WINTUN_LOCK is held."""
    cdef HMODULE module = LoadLibraryExW(path, NULL, flags)
    if module == NULL:
        return win_fail(handle, PATH_CONTROL, b"LoadLibrary(wintun.dll)")
    if not wintun_find(&WINTUN, module):
        WINTUN.module = NULL
        FreeLibrary(module)
        return win_result(handle, PATH_CONTROL, b"GetProcAddress(wintun.dll)", ERROR_PROC_NOT_FOUND)
    WINTUN.SetLogger(wintun_logger)
    return 0


cdef inline int wintun_load(Handle *handle, const char *libraries) noexcept nogil:
    """Have the library: of these absolute paths, a line each, the first that is there, or else the system's own.

    Never one from the current directory or PATH.  A file that is there and cannot be loaded is an error.
    """
    cdef WCHAR path[PATH_SIZE]
    cdef char line[PATH_SIZE]
    cdef const char *rest = libraries
    cdef size_t size
    cdef int result = 0
    line[0] = 0
    AcquireSRWLockExclusive(&WINTUN_LOCK)
    while WINTUN.module == NULL and rest[0] and result == 0:
        size = strcspn(rest, b"\n")
        snprintf(line, PATH_SIZE, b"%.*s", <int> size, rest)
        rest += size + (rest[size] != 0)
        if to_wide(line, path, PATH_SIZE) and GetFileAttributesW(path) != INVALID_FILE_ATTRIBUTES:
            result = wintun_try(handle, path, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32)
    if WINTUN.module == NULL and result == 0:
        to_wide(b"wintun.dll", path, PATH_SIZE)
        result = wintun_try(handle, path, LOAD_LIBRARY_SEARCH_SYSTEM32)
        line[0] = 0
    ReleaseSRWLockExclusive(&WINTUN_LOCK)
    if result < 0:
        if line[0]:
            snprintf(wintun_places, PLACES_SIZE, b"LoadLibrary(%s for %s)", line, ARCHITECTURE)
        else:
            snprintf(
                wintun_places, PLACES_SIZE, b"LoadLibrary(wintun.dll for %s, of %s or the system's folder)",
                ARCHITECTURE, libraries)
        handle.failed[PATH_CONTROL] = wintun_places
    return result


cdef inline int tunnel_peek(Tunnel *tunnel, DWORD *code) noexcept nogil:
    """1 if there is a packet, 0 if there is none, -1 and what Windows says; recv_lock is held."""
    if tunnel.peeked != NULL:
        return 1
    if tunnel.session == NULL:
        return 0
    tunnel.peeked = WINTUN.ReceivePacket(tunnel.session, &tunnel.peeked_size)
    if tunnel.peeked != NULL:
        return 1
    code[0] = GetLastError()
    return 0 if code[0] == ERROR_NO_MORE_ITEMS else -1


cdef inline int tunnel_recv(
    Handle *handle, Tunnel *tunnel, SlotView *slots, int start, int stop, int *error,
) noexcept nogil:
    """os_recv: copies what is in the ring, and gives its room back."""
    cdef int slot = start
    cdef int found = 1
    cdef DWORD code = 0
    error[0] = 0
    AcquireSRWLockExclusive(&tunnel.recv_lock)
    while slot < stop:
        found = tunnel_peek(tunnel, &code)
        if found <= 0:
            break
        if tunnel.peeked_size:
            memcpy(
                slots.data + slot * slots.stride, tunnel.peeked,
                min(<size_t> tunnel.peeked_size, <size_t> slots.slot_size))
            slot_fill(slots, slot, <intptr_t> tunnel.peeked_size)
            slot += 1
        WINTUN.ReleaseReceivePacket(tunnel.session, tunnel.peeked)
        tunnel.peeked = NULL
    if found > 0 and tunnel.sleepers > 0:
        SetEvent(tunnel.readable)     # which wakes one at a time: there may be more
    ReleaseSRWLockExclusive(&tunnel.recv_lock)
    if found < 0:
        error[0] = -win_result(handle, PATH_RECV, b"WintunReceivePacket", code)
    return slot - start


cdef inline bint is_ip(const uint8_t *packet, int32_t size) noexcept nogil:
    """Whether the driver takes it: one that is no IP packet is the last that it takes at all."""
    if not 20 <= size <= <int32_t> LARGEST_IP_PACKET:
        return False
    return packet[0] >> 4 == 4 or packet[0] >> 4 == 6 and size >= 40


cdef inline int tunnel_send(
    Handle *handle, Tunnel *tunnel, SlotView *slots, int start, int stop, int *error,
) noexcept nogil:
    """os_send.  What is allocated in the ring is always sent: nothing takes it back."""
    cdef int slot = start
    cdef int32_t size
    cdef uint8_t *packet
    cdef DWORD code
    error[0] = 0
    AcquireSRWLockExclusive(&tunnel.send_lock)
    while slot < stop:
        if tunnel.session == NULL:
            handle.failed[PATH_SEND] = b"send"
            error[0] = ENETDOWN
            break
        size = slot_length(slots, slot)
        if size > slots.slot_size or not is_ip(slot_at(slots, slot), size):
            handle.failed[PATH_SEND] = b"send"
            error[0] = EINVAL
            break
        packet = WINTUN.AllocateSendPacket(tunnel.session, <DWORD> size)
        if packet == NULL:
            code = GetLastError()
            if code == ERROR_BUFFER_OVERFLOW:
                tunnel.full_since = GetTickCount()
                tunnel.backoff = min(max(2 * tunnel.backoff, 1), BACKOFF_MAX)
            else:
                error[0] = -win_result(handle, PATH_SEND, b"WintunAllocateSendPacket", code)
            break
        memcpy(packet, slot_at(slots, slot), <size_t> size)
        WINTUN.SendPacket(tunnel.session, packet)
        tunnel.backoff = 0
        slot += 1
    ReleaseSRWLockExclusive(&tunnel.send_lock)
    return slot - start


cdef inline int tunnel_up(Handle *handle, Tunnel *tunnel) noexcept nogil:
    """Begin a session, which is what connects the adapter."""
    cdef SessionHandle session
    cdef HANDLE readable = NULL
    cdef HANDLE process = GetCurrentProcess()
    cdef int result = 0
    AcquireSRWLockExclusive(&tunnel.recv_lock)
    AcquireSRWLockExclusive(&tunnel.send_lock)
    if tunnel.session == NULL:
        session = WINTUN.StartSession(tunnel.adapter, tunnel.capacity)
        if session == NULL:
            result = win_fail(handle, PATH_CONTROL, b"WintunStartSession")
        elif not DuplicateHandle(
            process, WINTUN.GetReadWaitEvent(session), process, &readable, 0, False, DUPLICATE_SAME_ACCESS,
        ):
            result = win_fail(handle, PATH_CONTROL, b"DuplicateHandle")
            WINTUN.EndSession(session)
        else:
            while InterlockedCompareExchange(&tunnel.sleepers, 0, 0) > 0:      # none can come while we hold the lock
                SetEvent(tunnel.readable)
                Sleep(0)
            if tunnel.readable != NULL:
                CloseHandle(tunnel.readable)
            tunnel.readable = readable
            tunnel.session = session
            tunnel.backoff = 0
    ReleaseSRWLockExclusive(&tunnel.send_lock)
    ReleaseSRWLockExclusive(&tunnel.recv_lock)
    return result


cdef inline void tunnel_down(Tunnel *tunnel) noexcept nogil:
    """End the session; packets in it are lost."""
    AcquireSRWLockExclusive(&tunnel.recv_lock)
    AcquireSRWLockExclusive(&tunnel.send_lock)
    if tunnel.session != NULL:
        if tunnel.peeked != NULL:
            WINTUN.ReleaseReceivePacket(tunnel.session, tunnel.peeked)
            tunnel.peeked = NULL
        WINTUN.EndSession(tunnel.session)
        tunnel.session = NULL
    ReleaseSRWLockExclusive(&tunnel.send_lock)
    ReleaseSRWLockExclusive(&tunnel.recv_lock)


cdef inline HANDLE tunnel_sleep(Tunnel *tunnel, bint *is_ready) noexcept nogil:
    """What to wait on until there may be a packet, or NULL; tunnel_wakes when that is over, unless it is ready."""
    cdef DWORD code = 0
    cdef HANDLE event
    AcquireSRWLockExclusive(&tunnel.recv_lock)
    is_ready[0] = tunnel_peek(tunnel, &code) != 0
    event = tunnel.readable
    if is_ready[0]:
        if tunnel.sleepers > 0:
            SetEvent(event)
    else:
        InterlockedIncrement(&tunnel.sleepers)
    ReleaseSRWLockExclusive(&tunnel.recv_lock)
    return event


cdef inline void tunnel_wakes(Tunnel *tunnel) noexcept nogil:
    InterlockedDecrement(&tunnel.sleepers)


cdef inline int tunnel_busy(Tunnel *tunnel) noexcept nogil:
    """Milliseconds until it may take a packet; 0 if it may now, -1 while it is down."""
    cdef int left
    if tunnel.session == NULL:
        return -1
    left = tunnel.backoff - <int> (GetTickCount() - tunnel.full_since)
    return max(left, 0) if tunnel.backoff else 0


cdef inline void tunnel_close(Tunnel *tunnel) noexcept nogil:
    """Nobody receives, sends or waits any more."""
    tunnel_down(tunnel)
    if tunnel.readable != NULL:
        CloseHandle(tunnel.readable)
        tunnel.readable = NULL
    if tunnel.adapter != NULL:
        WINTUN.CloseAdapter(tunnel.adapter)
        tunnel.adapter = NULL
