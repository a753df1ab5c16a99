/* wintun.dll for tests: the interface of Wintun 0.14 as its documentation has it, with the network stack played by
   the test (the functions Fake*).

   It is as unforgiving as the real one, and tells: EndSession waits for nobody and takes the pages of the rings
   away for good, so that a use after it is a crash; what the documentation forbids is counted as a fault. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <stdio.h>
#include <string.h>

#define API __declspec(dllexport)
#define MIN_CAPACITY 0x20000
#define MAX_CAPACITY 0x4000000
#define MAX_PACKET 0xffff
#define ADAPTERS 256
#define NAME 128
#define RELEASED 0x80000000u
#define ALIGNED(size) (((ULONG) (size) + 3u) & ~3u)

/* As in the driver: a packet is its size and its bytes, and may run over the end of the ring by its own length. */
typedef struct {
    volatile ULONG head, tail;
    volatile LONG alertable;
    UCHAR data[];
} Ring;

typedef struct {
    ULONG capacity;
    size_t pages;
    HANDLE readable;
    CRITICAL_SECTION out_lock, in_lock;
    Ring *out;                  /* from the stack to the program */
    ULONG out_head, out_release, out_held;
    Ring *in;                   /* from the program to the stack */
    ULONG in_tail, in_release, in_held;
} Session;

typedef struct {
    int is_used, is_open, handles, is_owned;
    int lingers;                /* attempts during which the name is still taken */
    int is_gone;
    WCHAR name[NAME], type[NAME];
    GUID guid;
    ULONG64 luid;
    Session *session;
} Adapter;

typedef struct {
    Adapter *adapter;
    int is_creator;
} Handle;

typedef void(CALLBACK *Logger)(int level, DWORD64 time, const WCHAR *text);

static CRITICAL_SECTION lock;   /* of everything but the rings */
static Adapter adapters[ADAPTERS];
static Logger logger;
static ULONG64 next_luid = 0x35000002000000ull;
static DWORD version = 14 | 0 << 16;
static int linger;
static struct { char function[32]; DWORD error; int times; } failure;
static volatile LONG faults, sessions;
static char last_fault[128];


BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, void *unused) {
    (void) module, (void) unused;
    if (reason == DLL_PROCESS_ATTACH) InitializeCriticalSection(&lock), version = 14;
    return TRUE;
}

static void fault(const char *text) {
    InterlockedIncrement(&faults);
    strncpy(last_fault, text, sizeof(last_fault) - 1);
}

static void say(int level, const WCHAR *text) {
    FILETIME now;
    Logger to = logger;
    GetSystemTimeAsFileTime(&now);
    if (to != NULL) to(level, (DWORD64) now.dwHighDateTime << 32 | now.dwLowDateTime, text);
}

static void *refuse(DWORD error) {
    SetLastError(error);
    return NULL;
}

/* Whether a test has ordered this call to fail. */
static int fails(const char *function) {
    if (failure.times == 0 || strcmp(function, failure.function) != 0) return 0;
    failure.times--;
    return 1;
}

static Adapter *find(const WCHAR *name) {
    for (int i = 0; i < ADAPTERS; i++)
        if (adapters[i].is_used && _wcsicmp(adapters[i].name, name) == 0) return &adapters[i];
    return NULL;
}

static Handle *new_handle(Adapter *adapter, int is_creator) {
    Handle *handle = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, sizeof(Handle));
    handle->adapter = adapter;
    handle->is_creator = is_creator;
    adapter->handles++;
    return handle;
}

API Handle *WINAPI WintunCreateAdapter(const WCHAR *name, const WCHAR *type, const GUID *guid) {
    Adapter *adapter;
    Handle *handle = NULL;
    EnterCriticalSection(&lock);
    adapter = find(name);
    if (adapter != NULL && adapter->lingers > 0 && --adapter->lingers == 0) adapter->is_used = 0, adapter = NULL;
    if (fails("CreateAdapter")) {
        say(2, L"Failed to create adapter");
        refuse(failure.error);
    } else if (wcslen(name) >= NAME || wcslen(type) >= NAME || !name[0]) {
        refuse(ERROR_INVALID_NAME);
    } else if (adapter != NULL) {
        say(2, L"Failed to create adapter: the name is taken");
        refuse(ERROR_ALREADY_EXISTS);
    } else {
        for (int i = 0; i < ADAPTERS && adapter == NULL; i++)
            if (!adapters[i].is_used) adapter = &adapters[i];
        if (adapter == NULL) {
            refuse(ERROR_NOT_ENOUGH_MEMORY);
        } else {
            memset(adapter, 0, sizeof(*adapter));
            adapter->is_used = 1;
            wcscpy(adapter->name, name);
            wcscpy(adapter->type, type);
            if (guid != NULL) adapter->guid = *guid;
            adapter->luid = next_luid += 0x1000000;
            handle = new_handle(adapter, 1);
            say(0, L"Created adapter");
        }
    }
    LeaveCriticalSection(&lock);
    return handle;
}

API Handle *WINAPI WintunOpenAdapter(const WCHAR *name) {
    Adapter *adapter;
    Handle *handle = NULL;
    EnterCriticalSection(&lock);
    adapter = find(name);
    if (fails("OpenAdapter")) {
        refuse(failure.error);
    } else if (adapter == NULL || adapter->lingers) {
        say(2, L"Failed to find matching adapter name");
        refuse(ERROR_NOT_FOUND);
    } else {
        handle = new_handle(adapter, 0);
    }
    LeaveCriticalSection(&lock);
    return handle;
}

API void WINAPI WintunCloseAdapter(Handle *handle) {
    Adapter *adapter = handle->adapter;
    EnterCriticalSection(&lock);
    if (handle->is_creator) {
        if (adapter->session != NULL) fault("CloseAdapter: a session is open");
        adapter->lingers = linger;
        if (linger == 0) adapter->is_used = 0;
    }
    adapter->handles--;
    memset(handle, 0xdd, sizeof(*handle));
    HeapFree(GetProcessHeap(), 0, handle);
    LeaveCriticalSection(&lock);
}

API BOOL WINAPI WintunDeleteDriver(void) {
    return TRUE;
}

API void WINAPI WintunGetAdapterLUID(Handle *handle, ULONG64 *luid) {
    *luid = handle->adapter->luid;
}

API DWORD WINAPI WintunGetRunningDriverVersion(void) {
    if (version == 0) SetLastError(ERROR_FILE_NOT_FOUND);
    return version;
}

API void WINAPI WintunSetLogger(Logger to) {
    logger = to;
}

static size_t ring_size(ULONG capacity) {
    return (sizeof(Ring) + capacity + ALIGNED(4 + MAX_PACKET) + 0xfff) & ~(size_t) 0xfff;
}

API Session *WINAPI WintunStartSession(Handle *handle, DWORD capacity) {
    Session *session = NULL;
    Adapter *adapter = handle->adapter;
    size_t pages = 0x1000 + 2 * ring_size(capacity);
    EnterCriticalSection(&lock);
    if (fails("StartSession")) {
        refuse(failure.error);
    } else if (capacity < MIN_CAPACITY || capacity > MAX_CAPACITY || capacity & (capacity - 1)) {
        refuse(ERROR_INVALID_PARAMETER);
    } else if (adapter->session != NULL) {
        refuse(ERROR_ALREADY_INITIALIZED);
    } else if (adapter->is_gone) {
        refuse(ERROR_DEVICE_NOT_CONNECTED);
    } else {
        session = VirtualAlloc(NULL, pages, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
        if (session != NULL) {
            session->capacity = capacity;
            session->pages = pages;
            session->out = (Ring *) ((UCHAR *) session + 0x1000);
            session->in = (Ring *) ((UCHAR *) session->out + ring_size(capacity));
            session->readable = CreateEventW(NULL, FALSE, FALSE, NULL);
            session->out->alertable = session->in->alertable = 1;
            InitializeCriticalSection(&session->out_lock);
            InitializeCriticalSection(&session->in_lock);
            adapter->session = session;
            sessions++;
        }
    }
    LeaveCriticalSection(&lock);
    return session;
}

API void WINAPI WintunEndSession(Session *session) {
    DWORD before;
    EnterCriticalSection(&lock);
    if (session->out_held) fault("EndSession: a received packet is held");
    if (session->in_held) fault("EndSession: an allocated packet was not sent");
    for (int i = 0; i < ADAPTERS; i++)
        if (adapters[i].session == session) adapters[i].session = NULL;
    CloseHandle(session->readable);
    DeleteCriticalSection(&session->out_lock);
    DeleteCriticalSection(&session->in_lock);
    /* The memory goes, but the addresses are never given out again. */
    VirtualFree((UCHAR *) session + 0x1000, session->pages - 0x1000, MEM_DECOMMIT);
    VirtualProtect(session, 0x1000, PAGE_NOACCESS, &before);
    sessions--;
    LeaveCriticalSection(&lock);
}

API HANDLE WINAPI WintunGetReadWaitEvent(Session *session) {
    return session->readable;
}

API BYTE *WINAPI WintunReceivePacket(Session *session, DWORD *size) {
    BYTE *packet = NULL;
    ULONG tail, content, length;
    EnterCriticalSection(&session->out_lock);
    tail = session->out->tail;
    content = (tail - session->out_head) & (session->capacity - 1);
    if (tail >= session->capacity) {
        refuse(ERROR_HANDLE_EOF);
    } else if (content == 0) {
        refuse(ERROR_NO_MORE_ITEMS);
    } else {
        length = *(ULONG *) (session->out->data + session->out_head);
        if (length > MAX_PACKET || ALIGNED(4 + length) > content) {
            refuse(ERROR_INVALID_DATA);
        } else {
            packet = session->out->data + session->out_head + 4;
            *size = length;
            session->out_head = (session->out_head + ALIGNED(4 + length)) & (session->capacity - 1);
            session->out_held++;
        }
    }
    LeaveCriticalSection(&session->out_lock);
    return packet;
}

API void WINAPI WintunReleaseReceivePacket(Session *session, const BYTE *packet) {
    ULONG *length = (ULONG *) (packet - 4);
    EnterCriticalSection(&session->out_lock);
    if (*length & RELEASED) fault("ReleaseReceivePacket: twice");
    *length |= RELEASED;
    while (session->out_held) {
        length = (ULONG *) (session->out->data + session->out_release);
        if (!(*length & RELEASED)) break;
        session->out_release = (session->out_release + ALIGNED(4 + (*length & ~RELEASED))) & (session->capacity - 1);
        session->out_held--;
    }
    if (session->out->tail < session->capacity) session->out->head = session->out_release;
    LeaveCriticalSection(&session->out_lock);
}

API BYTE *WINAPI WintunAllocateSendPacket(Session *session, DWORD size) {
    BYTE *packet = NULL;
    ULONG head, space;
    EnterCriticalSection(&session->in_lock);
    head = session->in->head;
    space = (head - session->in_tail - 4) & (session->capacity - 1);
    if (size == 0 || size > MAX_PACKET) fault("AllocateSendPacket: no size of a packet");
    if (head >= session->capacity) {
        refuse(ERROR_HANDLE_EOF);
    } else if (ALIGNED(4 + size) > space) {
        refuse(ERROR_BUFFER_OVERFLOW);
    } else {
        *(ULONG *) (session->in->data + session->in_tail) = size | RELEASED;
        packet = session->in->data + session->in_tail + 4;
        session->in_tail = (session->in_tail + ALIGNED(4 + size)) & (session->capacity - 1);
        session->in_held++;
    }
    LeaveCriticalSection(&session->in_lock);
    return packet;
}

API void WINAPI WintunSendPacket(Session *session, const BYTE *packet) {
    ULONG *length = (ULONG *) (packet - 4);
    EnterCriticalSection(&session->in_lock);
    if (!(*length & RELEASED)) fault("SendPacket: twice");
    *length &= ~RELEASED;
    while (session->in_held) {
        length = (ULONG *) (session->in->data + session->in_release);
        if (*length & RELEASED) break;
        session->in_release = (session->in_release + ALIGNED(4 + *length)) & (session->capacity - 1);
        session->in_held--;
    }
    MemoryBarrier();
    session->in->tail = session->in_release;
    LeaveCriticalSection(&session->in_lock);
}

/* --- the network stack and the driver, as a test plays them --- */

static Session *session_of(const WCHAR *name) {
    Adapter *adapter = find(name);
    return adapter != NULL && !adapter->is_gone ? adapter->session : NULL;
}

/* A packet for the program: 1, or 0 if it was dropped because there is no session, or no room. */
API int FakeInject(const WCHAR *name, const void *packet, ULONG size) {
    int result = 0;
    Session *session;
    EnterCriticalSection(&lock);
    session = session_of(name);
    if (session != NULL) {
        Ring *ring = session->out;
        ULONG space = (ring->head - ring->tail - 4) & (session->capacity - 1);
        if (ALIGNED(4 + size) <= space) {
            *(ULONG *) (ring->data + ring->tail) = size;
            memcpy(ring->data + ring->tail + 4, packet, size);
            MemoryBarrier();
            ring->tail = (ring->tail + ALIGNED(4 + size)) & (session->capacity - 1);
            if (ring->alertable) SetEvent(session->readable);
            result = 1;
        }
    }
    LeaveCriticalSection(&lock);
    return result;
}

/* Many at once, one behind the other with their sizes in front, and a single event. */
API int FakeInjectMany(const WCHAR *name, const void *packet, ULONG size, int count) {
    int result = 0;
    while (result < count && FakeInject(name, packet, size)) result++;
    return result;
}

/* What the program has sent: bytes of a packet, or -1 if there is none. */
API int FakeTake(const WCHAR *name, void *packet, int capacity) {
    int result = -1;
    Session *session;
    EnterCriticalSection(&lock);
    session = session_of(name);
    if (session != NULL && session->in->head != session->in->tail) {
        Ring *ring = session->in;
        ULONG size = *(ULONG *) (ring->data + ring->head);
        memcpy(packet, ring->data + ring->head + 4, size < (ULONG) capacity ? size : (ULONG) capacity);
        MemoryBarrier();
        ring->head = (ring->head + ALIGNED(4 + size)) & (session->capacity - 1);
        result = (int) size;
    }
    LeaveCriticalSection(&lock);
    return result;
}

/* The device is removed, as when somebody uninstalls it. */
API void FakeTerminate(const WCHAR *name) {
    Adapter *adapter;
    EnterCriticalSection(&lock);
    adapter = find(name);
    if (adapter != NULL) {
        adapter->is_gone = 1;
        if (adapter->session != NULL) {
            adapter->session->out->tail = 0xffffffff;
            adapter->session->in->head = 0xffffffff;
            SetEvent(adapter->session->readable);
        }
    }
    LeaveCriticalSection(&lock);
}

API void FakeCorrupt(const WCHAR *name) {
    Session *session;
    EnterCriticalSection(&lock);
    session = session_of(name);
    if (session != NULL) {
        *(ULONG *) (session->out->data + session->out->tail) = 0x12345678;
        session->out->tail = (session->out->tail + 8) & (session->capacity - 1);
        SetEvent(session->readable);
    }
    LeaveCriticalSection(&lock);
}

API void FakeFail(const char *function, DWORD error, int times) {
    strncpy(failure.function, function, sizeof(failure.function) - 1);
    failure.error = error;
    failure.times = times;
}

API void FakeLinger(int attempts) {
    linger = attempts;
}

API void FakeVersion(DWORD number) {
    version = number;
}

API void FakeLog(int level, const WCHAR *text) {
    say(level, text);
}

/* The adapter of a name: 1 and what it was made with, or 0. */
API int FakeAdapter(const WCHAR *name, GUID *guid, WCHAR *type, ULONG64 *luid, ULONG *capacity) {
    Adapter *adapter;
    EnterCriticalSection(&lock);
    adapter = find(name);
    if (adapter != NULL) {
        *guid = adapter->guid;
        *luid = adapter->luid;
        wcscpy(type, adapter->type);
        *capacity = adapter->session != NULL ? adapter->session->capacity : 0;
    }
    LeaveCriticalSection(&lock);
    return adapter != NULL;
}

API void FakeCounts(int *live, int *open_sessions, int *open_handles, int *all_faults, char *text) {
    EnterCriticalSection(&lock);
    *live = *open_handles = 0;
    for (int i = 0; i < ADAPTERS; i++) *live += adapters[i].is_used, *open_handles += adapters[i].handles;
    *open_sessions = sessions;
    *all_faults = faults;
    strcpy(text, last_fault);
    LeaveCriticalSection(&lock);
}

API void FakeReset(void) {
    EnterCriticalSection(&lock);
    for (int i = 0; i < ADAPTERS; i++)
        if (adapters[i].handles == 0) adapters[i].is_used = 0;
    linger = 0;
    faults = 0;
    last_fault[0] = 0;
    failure.times = 0;
    version = 14;
    LeaveCriticalSection(&lock);
}
