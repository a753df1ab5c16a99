/* A wintun.dll for tests: the functions of Wintun 0.14.1 as its header promises them and its sources do them, with
   the driver and the network stack behind them played here and steered by the test (the functions Fake*).

   It is as unforgiving as the real one, and tells what was wrong.  EndSession waits for nobody who is inside, and
   takes rings and session away: their addresses are never given out again, so that a use after that is an access
   violation.  What the documentation forbids is counted as a fault. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <setupapi.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __declspec(dllexport)
#define CAPACITY_MIN 0x20000
#define CAPACITY_MAX 0x4000000
#define PACKET_MAX 0xffff
#define NAME_SIZE 128           /* MAX_ADAPTER_NAME, with the zero */
#define BACKLOG_MAX 0x4000000   /* bytes that nobody takes */
#define VERSION 14              /* 0.14 */
#define HEADER ((ULONG) sizeof(ULONG))
#define ALIGNED(size) (((ULONG) (size) + 3u) & ~3u)
#define PENDING 0x80000000u     /* of a size: released by the program, or allocated and not yet sent */
#define OVER 0xffffffffu        /* an index of a ring whose writer or reader in the driver has gone */

/* Bytes from `head` to `tail`: packets, each behind its size.  One that begins near the end runs over it. */
typedef struct {
    volatile ULONG head, tail;
    volatile LONG alertable;
    BYTE data[];
} Ring;

/* What the program does with a ring: packets between `settled` and `next`, so many, are with it, or wait for one
   before them that is. */
typedef struct {
    Ring *ring;
    ULONG next, settled, unsettled;
    volatile LONG held;
    CRITICAL_SECTION lock;
} Side;

typedef struct Adapter Adapter;

typedef struct {
    Adapter *adapter;
    size_t pages;
    ULONG capacity;
    Side receiving, sending;
    HANDLE readable, sent;      /* a tail has moved */
    HANDLE disconnected, thread;
} Session;

typedef struct Packet {
    struct Packet *next;
    ULONG size;
    BYTE data[];
} Packet;

struct Adapter {
    Adapter *next;
    enum { GONE, PRESENT, LEAVING } state;
    int attempts;               /* to make it anew, that fail while it is leaving */
    int handles, is_paused;
    WCHAR name[NAME_SIZE], type[NAME_SIZE];
    GUID guid;
    ULONG64 luid;
    Session *session;
    Packet *first, **last;      /* sent, and not yet taken by the test */
    size_t backlog;
};

typedef struct {
    Adapter *adapter;
    int is_owner;
} Handle;

typedef void(CALLBACK *Logger)(int level, DWORD64 time, const WCHAR *text);

typedef struct {
    int adapters, sessions, handles, held, faults;
    char fault[128];            /* the last one */
} Counts;

static CRITICAL_SECTION lock;   /* of all but the sides; taken last */
static CONDITION_VARIABLE arrived;
static Adapter *adapters;
static Logger volatile logger;
static ULONG64 luid_index = 0x8000;
static int is_loaded, linger, faults;
static DWORD version = VERSION;
static char last_fault[128];
static struct {
    char function[32];
    DWORD error;
    int times;
} failure;
static struct {
    char function[32];
    DWORD milliseconds;
} delay;

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, void *unused) {
    (void) module, (void) unused;
    if (reason == DLL_PROCESS_ATTACH) InitializeCriticalSection(&lock);
    return TRUE;
}

/* --- helpers --- */

static ULONG load(volatile ULONG *index) {
    ULONG value = *index;
    MemoryBarrier();
    return value;
}

static void store(volatile ULONG *index, ULONG value) {
    MemoryBarrier();
    *index = value;
    MemoryBarrier();
}

static ULONG *size_at(Ring *ring, ULONG offset) {
    return (ULONG *) (void *) (ring->data + offset);
}

static void *pages_of(size_t size) {
    return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

/* The memory goes back, the addresses do not. */
static void vanish(void *pages, size_t size) {
    VirtualFree(pages, size, MEM_DECOMMIT);
}

static void fault(const char *text) {
    EnterCriticalSection(&lock);
    faults++;
    snprintf(last_fault, sizeof(last_fault), "%s", text);
    LeaveCriticalSection(&lock);
}

/* Never under the lock: a logger may wait for somebody who wants it.  Leaves the last error as it is. */
static void say(int level, const WCHAR *text) {
    DWORD error = GetLastError();
    FILETIME now;
    Logger to = logger;
    GetSystemTimeAsFileTime(&now);
    if (to != NULL) to(level, (DWORD64) now.dwHighDateTime << 32 | now.dwLowDateTime, text);
    SetLastError(error);
}

/* What went wrong, in the words of the real one: with those of Windows, and the number. */
static void *refuse(DWORD error, const WCHAR *text) {
    WCHAR reason[256], line[512];
    DWORD flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS | FORMAT_MESSAGE_MAX_WIDTH_MASK;
    if (FormatMessageW(flags, NULL, error, 0, reason, 256, NULL) == 0) reason[0] = 0;
    _snwprintf(line, 512, L"%ls: %ls(Code 0x%08lX)", text, reason, error);
    line[511] = 0;
    say(2, line);
    SetLastError(error);
    return NULL;
}

/* What a test has ordered for this call: an error, and before that a delay, during which others have the lock. */
static DWORD ordered(const char *function) {
    if (strcmp(delay.function, function) == 0) {
        DWORD milliseconds = delay.milliseconds;
        LeaveCriticalSection(&lock);
        Sleep(milliseconds);
        EnterCriticalSection(&lock);
    }
    if (failure.times == 0 || strcmp(failure.function, function) != 0) return ERROR_SUCCESS;
    failure.times--;
    return failure.error;
}

/* The adapter of a name, or of a GUID. */
static Adapter *find(const WCHAR *name, const GUID *guid) {
    Adapter *adapter = adapters;
    for (; adapter != NULL; adapter = adapter->next) {
        if (adapter->state == GONE) continue;
        if (name != NULL ? _wcsicmp(adapter->name, name) == 0 : memcmp(&adapter->guid, guid, sizeof(GUID)) == 0) break;
    }
    return adapter;
}

/* Forget the adapters that nobody can reach any more. */
static void sweep(void) {
    Adapter **link = &adapters;
    while (*link != NULL) {
        Adapter *adapter = *link;
        if (adapter->state != GONE || adapter->handles || adapter->session != NULL) {
            link = &adapter->next;
            continue;
        }
        *link = adapter->next;
        while (adapter->first != NULL) {
            Packet *packet = adapter->first;
            adapter->first = packet->next;
            HeapFree(GetProcessHeap(), 0, packet);
        }
        HeapFree(GetProcessHeap(), 0, adapter);
    }
}

/* The device goes, and with it what is in the rings. */
static void remove_device(Adapter *adapter) {
    Session *session = adapter->session;
    adapter->state = GONE;
    if (session == NULL) return;
    store(&session->sending.ring->head, OVER);
    store(&session->receiving.ring->tail, OVER);
    SetEvent(session->disconnected);
    SetEvent(session->readable);
}

/* --- adapters --- */

static Handle *new_handle(Adapter *adapter, int is_owner) {
    Handle *handle = pages_of(sizeof(Handle));
    handle->adapter = adapter;
    handle->is_owner = is_owner;
    adapter->handles++;
    return handle;
}

static GUID new_guid(void) {
    GUID guid;
    LARGE_INTEGER now;
    QueryPerformanceCounter(&now);
    memcpy(&guid, &now, sizeof(now));
    memcpy(guid.Data4, &luid_index, sizeof(luid_index));
    return guid;
}

/* Wintun lets a new adapter have its name: whoever had it becomes "name 1", or the next that is free. */
static Adapter *new_adapter(const WCHAR *name, const WCHAR *type, const GUID *guid) {
    Adapter *adapter = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, sizeof(Adapter)), *other = find(name, NULL);
    WCHAR proposal[NAME_SIZE + 8];
    for (int i = 1; other != NULL; i++) {
        _snwprintf(proposal, NAME_SIZE + 8, L"%ls %d", name, i);
        if (find(proposal, NULL) != NULL) continue;
        wcsncpy(other->name, proposal, NAME_SIZE - 1);
        break;
    }
    wcscpy(adapter->name, name);
    wcscpy(adapter->type, type);
    adapter->guid = *guid;
    adapter->luid = 53ull << 48 | ++luid_index << 24;   /* IF_TYPE_PROP_VIRTUAL */
    adapter->last = &adapter->first;
    adapter->state = PRESENT;
    adapter->next = adapters;
    is_loaded = 1;
    return adapters = adapter;
}

/* A GUID that is there already is an error; a name is not. */
EXPORT Handle *WINAPI WintunCreateAdapter(const WCHAR *name, const WCHAR *type, const GUID *requested) {
    GUID guid;
    Handle *handle = NULL;
    Adapter *other;
    DWORD error;
    say(0, L"Creating adapter");
    EnterCriticalSection(&lock);
    error = ordered(__func__);
    guid = requested != NULL ? *requested : new_guid();
    other = find(NULL, &guid);
    if (error == ERROR_SUCCESS) {
        if (other != NULL) error = ERROR_ALREADY_EXISTS;
        else if (wcslen(name) >= NAME_SIZE || wcslen(type) >= NAME_SIZE) error = ERROR_BUFFER_OVERFLOW;
        else if (name[0] == 0) error = ERROR_INVALID_NAME;
        else handle = new_handle(new_adapter(name, type, &guid), 1);
        if (other != NULL && other->state == LEAVING && --other->attempts == 0) other->state = GONE;
    }
    sweep();
    LeaveCriticalSection(&lock);
    return error == ERROR_SUCCESS ? handle : refuse(error, L"Failed to setup adapter");
}

EXPORT Handle *WINAPI WintunOpenAdapter(const WCHAR *name) {
    Handle *handle = NULL;
    Adapter *adapter;
    DWORD error;
    EnterCriticalSection(&lock);
    error = ordered(__func__);
    adapter = find(name, NULL);
    if (error == ERROR_SUCCESS && (adapter == NULL || adapter->state != PRESENT)) error = ERROR_NOT_FOUND;
    if (error == ERROR_SUCCESS) handle = new_handle(adapter, 0);
    LeaveCriticalSection(&lock);
    return error == ERROR_SUCCESS ? handle : refuse(error, L"Failed to find matching adapter name");
}

EXPORT void WINAPI WintunCloseAdapter(Handle *handle) {
    Adapter *adapter;
    if (handle == NULL) return;
    EnterCriticalSection(&lock);
    adapter = handle->adapter;
    adapter->handles--;
    if (handle->is_owner && adapter->state == PRESENT) {
        if (adapter->session != NULL) fault("WintunCloseAdapter: its session has not ended");
        remove_device(adapter);
        if (linger > 0) {
            adapter->state = LEAVING;
            adapter->attempts = linger;
        }
    }
    vanish(handle, sizeof(Handle));
    sweep();
    LeaveCriticalSection(&lock);
}

EXPORT BOOL WINAPI WintunDeleteDriver(void) {
    BOOL is_used = FALSE;
    EnterCriticalSection(&lock);
    for (Adapter *adapter = adapters; adapter != NULL; adapter = adapter->next) is_used |= adapter->state != GONE;
    if (!is_used) is_loaded = 0;
    LeaveCriticalSection(&lock);
    if (is_used) refuse(ERROR_INF_IN_USE_BY_DEVICES, L"Failed to remove driver");
    return !is_used;
}

EXPORT void WINAPI WintunGetAdapterLUID(Handle *handle, ULONG64 *luid) {
    *luid = handle->adapter->luid;
}

EXPORT DWORD WINAPI WintunGetRunningDriverVersion(void) {
    if (!is_loaded) SetLastError(ERROR_FILE_NOT_FOUND);
    return is_loaded ? version : 0;
}

EXPORT void WINAPI WintunSetLogger(Logger to) {
    logger = to;
}

/* --- the driver: takes what is sent to the stack --- */

static int is_ip(const BYTE *data, ULONG size) {
    return (size >= 20 && data[0] >> 4 == 4) || (size >= 40 && data[0] >> 4 == 6);
}

/* Under the lock: 1 if a packet went to the stack, 0 if there is none, -1 if the driver reads no more. */
static int deliver(Session *session) {
    Adapter *adapter = session->adapter;
    Ring *ring = session->sending.ring;
    ULONG head = ring->head, tail = load(&ring->tail), size;
    Packet *packet;
    if (head == OVER) return -1;
    if (head == tail) return 0;
    size = *size_at(ring, head);
    if (
        size > PACKET_MAX || ALIGNED(HEADER + size) > ((tail - head) & (session->capacity - 1))
        || !is_ip(ring->data + head + HEADER, size)
    ) {
        fault("WintunSendPacket: no IP packet, and the driver reads no further");
        store(&ring->head, OVER);
        return -1;
    }
    if (adapter->backlog < BACKLOG_MAX) {
        packet = HeapAlloc(GetProcessHeap(), 0, sizeof(Packet) + size);
        packet->next = NULL;
        packet->size = size;
        memcpy(packet->data, ring->data + head + HEADER, size);
        *adapter->last = packet;
        adapter->last = &packet->next;
        adapter->backlog += size;
        WakeAllConditionVariable(&arrived);
    }
    store(&ring->head, (head + ALIGNED(HEADER + size)) & (session->capacity - 1));
    return 1;
}

static DWORD WINAPI drive(void *argument) {
    Session *session = argument;
    Ring *ring = session->sending.ring;
    HANDLE events[] = {session->disconnected, session->sent};
    int result = 1;
    while (result >= 0) {
        EnterCriticalSection(&lock);
        result = session->adapter->is_paused ? 0 : deliver(session);
        LeaveCriticalSection(&lock);
        if (result != 0) continue;
        InterlockedExchange(&ring->alertable, TRUE);
        if (session->adapter->is_paused || load(&ring->tail) == ring->head)
            if (WaitForMultipleObjects(2, events, FALSE, INFINITE) == WAIT_OBJECT_0) break;
        InterlockedExchange(&ring->alertable, FALSE);
    }
    return 0;
}

/* --- sessions --- */

static size_t ring_size(ULONG capacity) {
    return (sizeof(Ring) + capacity + ALIGNED(HEADER + PACKET_MAX) - HEADER + 0xfff) & ~(size_t) 0xfff;
}

static Session *new_session(Adapter *adapter, ULONG capacity) {
    size_t first = (sizeof(Session) + 0xfff) & ~(size_t) 0xfff, pages = first + 2 * ring_size(capacity);
    Session *session = pages_of(pages);
    if (session == NULL) return NULL;
    session->adapter = adapter;
    session->pages = pages;
    session->capacity = capacity;
    session->receiving.ring = (Ring *) (void *) ((BYTE *) session + first);
    session->sending.ring = (Ring *) (void *) ((BYTE *) session + first + ring_size(capacity));
    InitializeCriticalSection(&session->receiving.lock);
    InitializeCriticalSection(&session->sending.lock);
    session->readable = CreateEventW(NULL, FALSE, FALSE, NULL);
    session->sent = CreateEventW(NULL, FALSE, FALSE, NULL);
    session->disconnected = CreateEventW(NULL, TRUE, FALSE, NULL);
    session->thread = CreateThread(NULL, 0, drive, session, 0, NULL);
    return session;
}

EXPORT Session *WINAPI WintunStartSession(Handle *handle, DWORD capacity) {
    Session *session = NULL;
    Adapter *adapter = handle->adapter;
    DWORD error;
    EnterCriticalSection(&lock);
    error = ordered(__func__);
    if (error == ERROR_SUCCESS) {
        if (adapter->state != PRESENT) error = ERROR_FILE_NOT_FOUND;
        else if (adapter->session != NULL) error = ERROR_ALREADY_INITIALIZED;
        else if (capacity < CAPACITY_MIN || capacity > CAPACITY_MAX || (capacity & (capacity - 1)) != 0)
            error = ERROR_INVALID_PARAMETER;
        else if ((session = new_session(adapter, capacity)) == NULL) error = ERROR_NOT_ENOUGH_MEMORY;
        else adapter->session = session;
    }
    LeaveCriticalSection(&lock);
    return error == ERROR_SUCCESS ? session : refuse(error, L"Failed to register rings");
}

EXPORT void WINAPI WintunEndSession(Session *session) {
    if (session->receiving.held) fault("WintunEndSession: a received packet is held");
    if (session->sending.held) fault("WintunEndSession: an allocated packet was not sent");
    SetEvent(session->disconnected);
    WaitForSingleObject(session->thread, INFINITE);
    EnterCriticalSection(&lock);
    session->adapter->session = NULL;
    sweep();
    /* So does the driver: whoever still waits wakes up, to a session that is no more. */
    store(&session->receiving.ring->tail, OVER);
    SetEvent(session->readable);
    LeaveCriticalSection(&lock);
    CloseHandle(session->thread);
    CloseHandle(session->disconnected);
    CloseHandle(session->sent);
    if (!CloseHandle(session->readable)) fault("WintunGetReadWaitEvent: somebody has closed this event");
    DeleteCriticalSection(&session->sending.lock);
    DeleteCriticalSection(&session->receiving.lock);
    vanish(session, session->pages);
}

EXPORT HANDLE WINAPI WintunGetReadWaitEvent(Session *session) {
    return session->readable;
}

/* The program is done with a packet, whose size has `before` in its highest bit until then.  The ring moves on past
   those that are done, up to the first that is not. */
static void settle(Session *session, Side *side, const BYTE *packet, ULONG before, const char *complaint) {
    ULONG mask = session->capacity - 1, *size;
    size_t offset = (size_t) (packet - HEADER - side->ring->data);
    if (
        offset > mask || offset % HEADER != 0
        || (((ULONG) offset - side->settled) & mask) >= ((side->next - side->settled) & mask)
        || (*(size = size_at(side->ring, (ULONG) offset)) & PENDING) != before
    ) {
        fault(complaint);
        return;
    }
    *size ^= PENDING;
    side->held--;
    while (side->unsettled > 0) {
        size = size_at(side->ring, side->settled);
        if ((*size & PENDING) == before) break;
        side->settled = (side->settled + ALIGNED(HEADER + (*size & ~PENDING))) & mask;
        side->unsettled--;
    }
    if (side->unsettled == 0 && side->settled != side->next) fault("Ring: a size was written over");
}

/* The end of a call that gives the program the packet at `next`, unless there was an error. */
static BYTE *hand_out(Session *session, Side *side, ULONG size, DWORD error) {
    BYTE *packet = NULL;
    if (error == ERROR_SUCCESS) {
        packet = side->ring->data + side->next + HEADER;
        side->next = (side->next + ALIGNED(HEADER + size)) & (session->capacity - 1);
        side->unsettled++;
        side->held++;
    }
    LeaveCriticalSection(&side->lock);
    if (error != ERROR_SUCCESS) SetLastError(error);
    return packet;
}

EXPORT BYTE *WINAPI WintunReceivePacket(Session *session, DWORD *size) {
    Side *side = &session->receiving;
    DWORD error = ERROR_SUCCESS;
    ULONG tail, content, length;
    EnterCriticalSection(&side->lock);
    tail = load(&side->ring->tail);
    content = (tail - side->next) & (session->capacity - 1);
    length = *size_at(side->ring, side->next);
    if (tail >= session->capacity) error = ERROR_HANDLE_EOF;
    else if (content == 0) error = ERROR_NO_MORE_ITEMS;
    else if (content < HEADER || length > PACKET_MAX || ALIGNED(HEADER + length) > content) error = ERROR_INVALID_DATA;
    else *size = length;
    return hand_out(session, side, length, error);
}

EXPORT void WINAPI WintunReleaseReceivePacket(Session *session, const BYTE *packet) {
    Side *side = &session->receiving;
    EnterCriticalSection(&side->lock);
    settle(session, side, packet, 0, "WintunReleaseReceivePacket: not a packet that is held");
    store(&side->ring->head, side->settled);
    LeaveCriticalSection(&side->lock);
}

EXPORT BYTE *WINAPI WintunAllocateSendPacket(Session *session, DWORD size) {
    Side *side = &session->sending;
    DWORD error = ERROR_SUCCESS;
    ULONG head;
    if (size == 0 || size > PACKET_MAX) fault("WintunAllocateSendPacket: a size that no IP packet has");
    EnterCriticalSection(&side->lock);
    head = load(&side->ring->head);
    if (size > PACKET_MAX) error = ERROR_INVALID_PARAMETER;     /* the real one hands out what is not its own */
    else if (head >= session->capacity) error = ERROR_HANDLE_EOF;
    else if (ALIGNED(HEADER + size) > ((head - side->next - HEADER) & (session->capacity - 1)))
        error = ERROR_BUFFER_OVERFLOW;
    else *size_at(side->ring, side->next) = size | PENDING;
    return hand_out(session, side, size, error);
}

EXPORT void WINAPI WintunSendPacket(Session *session, const BYTE *packet) {
    Side *side = &session->sending;
    EnterCriticalSection(&side->lock);
    settle(session, side, packet, PENDING, "WintunSendPacket: not a packet that was allocated");
    if (side->ring->tail != side->settled) {
        store(&side->ring->tail, side->settled);
        if (side->ring->alertable) SetEvent(session->sent);
    }
    LeaveCriticalSection(&side->lock);
}

/* --- for the test --- */

/* What is to be a packet for the program: 1, or 0 if it was dropped, as there is no room or no session. */
static int put(const WCHAR *name, ULONG header, const void *data, ULONG size) {
    Adapter *adapter;
    int result = 0;
    EnterCriticalSection(&lock);
    adapter = find(name, NULL);
    if (adapter != NULL && adapter->state == PRESENT && adapter->session != NULL) {
        Ring *ring = adapter->session->receiving.ring;
        ULONG tail = ring->tail, mask = adapter->session->capacity - 1;
        if (ALIGNED(HEADER + size) <= ((load(&ring->head) - tail - HEADER) & mask)) {
            *size_at(ring, tail) = header;
            memcpy(ring->data + tail + HEADER, data, size);
            store(&ring->tail, (tail + ALIGNED(HEADER + size)) & mask);
            SetEvent(adapter->session->readable);
            result = 1;
        }
    }
    LeaveCriticalSection(&lock);
    return result;
}

EXPORT int FakeInject(const WCHAR *name, const void *packet, ULONG size) {
    return size <= PACKET_MAX && put(name, size, packet, size);
}

EXPORT int FakeCorrupt(const WCHAR *name) {
    return put(name, PACKET_MAX + 1, "", 0);
}

/* What the program has sent: the size of the packet, of which `capacity` bytes are copied, or -1 after the time.
   While the driver is paused, it is the test that takes it from the ring. */
EXPORT int FakeTake(const WCHAR *name, void *buffer, ULONG capacity, DWORD milliseconds) {
    ULONGLONG start = GetTickCount64(), passed;
    int result = -1;
    EnterCriticalSection(&lock);
    for (;;) {
        Adapter *adapter = find(name, NULL);
        Packet *packet;
        if (adapter != NULL && adapter->first == NULL && adapter->is_paused && adapter->session != NULL)
            deliver(adapter->session);
        packet = adapter != NULL ? adapter->first : NULL;
        if (packet != NULL) {
            if ((adapter->first = packet->next) == NULL) adapter->last = &adapter->first;
            adapter->backlog -= packet->size;
            memcpy(buffer, packet->data, packet->size < capacity ? packet->size : capacity);
            result = (int) packet->size;
            HeapFree(GetProcessHeap(), 0, packet);
            break;
        }
        passed = GetTickCount64() - start;
        if (passed >= milliseconds) break;
        SleepConditionVariableCS(&arrived, &lock, milliseconds - (DWORD) passed);
    }
    LeaveCriticalSection(&lock);
    return result;
}

/* Whether the driver takes what is sent, as it does at first; if not, it stays in the ring. */
EXPORT int FakeConsume(const WCHAR *name, int is_on) {
    Adapter *adapter;
    EnterCriticalSection(&lock);
    adapter = find(name, NULL);
    if (adapter != NULL) {
        adapter->is_paused = !is_on;
        if (adapter->session != NULL) SetEvent(adapter->session->sent);
    }
    LeaveCriticalSection(&lock);
    return adapter != NULL;
}

/* The device is removed, as when somebody uninstalls it. */
EXPORT int FakeTerminate(const WCHAR *name) {
    Adapter *adapter;
    EnterCriticalSection(&lock);
    adapter = find(name, NULL);
    if (adapter != NULL) remove_device(adapter);
    LeaveCriticalSection(&lock);
    return adapter != NULL;
}

/* The next calls of this function fail: of one that makes an adapter or a session. */
EXPORT void FakeFail(const char *function, DWORD error, int times) {
    EnterCriticalSection(&lock);
    snprintf(failure.function, sizeof(failure.function), "%s", function);
    failure.error = error;
    failure.times = times;
    LeaveCriticalSection(&lock);
}

/* From now on, every call of this function takes a while: of one that makes an adapter or a session. */
EXPORT void FakeDelay(const char *function, DWORD milliseconds) {
    EnterCriticalSection(&lock);
    snprintf(delay.function, sizeof(delay.function), "%s", function);
    delay.milliseconds = milliseconds;
    LeaveCriticalSection(&lock);
}

/* What runs as the driver, once there is one: the major version in the upper half, the minor one in the lower. */
EXPORT void FakeVersion(DWORD running) {
    version = running;
}

/* From now on, an adapter that is closed is still in the way of so many attempts to make it anew. */
EXPORT void FakeLinger(int attempts) {
    linger = attempts;
}

EXPORT void FakeLog(int level, const WCHAR *text) {
    say(level, text);
}

/* What an adapter was made with: 1, or 2 if it is leaving, or 0 if there is none of this name. */
EXPORT int FakeAdapter(const WCHAR *name, GUID *guid, WCHAR *type, ULONG64 *luid) {
    Adapter *adapter;
    int result = GONE;
    EnterCriticalSection(&lock);
    adapter = find(name, NULL);
    if (adapter != NULL) {
        *guid = adapter->guid;
        wcscpy(type, adapter->type);
        *luid = adapter->luid;
        result = adapter->state;
    }
    LeaveCriticalSection(&lock);
    return result;
}

/* The adapter that is there and has this LUID, for fake_iphelper.c: 1, or 2 if its link is up. */
EXPORT int FakeAdapterOfLuid(ULONG64 luid, GUID *guid, WCHAR *name) {
    int result = 0;
    Adapter *adapter;
    EnterCriticalSection(&lock);
    for (adapter = adapters; adapter != NULL; adapter = adapter->next)
        if (adapter->state == PRESENT && adapter->luid == luid) break;
    if (adapter != NULL) {
        *guid = adapter->guid;
        wcscpy(name, adapter->name);
        result = adapter->session != NULL ? 2 : 1;
    }
    LeaveCriticalSection(&lock);
    return result;
}

EXPORT int FakeRename(ULONG64 luid, const WCHAR *name) {
    Adapter *adapter;
    EnterCriticalSection(&lock);
    for (adapter = adapters; adapter != NULL; adapter = adapter->next)
        if (adapter->state == PRESENT && adapter->luid == luid) break;
    if (adapter != NULL) wcscpy(adapter->name, name);
    LeaveCriticalSection(&lock);
    return adapter != NULL;
}

EXPORT void FakeCounts(Counts *counts) {
    memset(counts, 0, sizeof(*counts));
    EnterCriticalSection(&lock);
    for (Adapter *adapter = adapters; adapter != NULL; adapter = adapter->next) {
        counts->adapters += adapter->state == PRESENT;
        counts->handles += adapter->handles;
        if (adapter->session == NULL) continue;
        counts->sessions++;
        counts->held += adapter->session->receiving.held + adapter->session->sending.held;
    }
    counts->faults = faults;
    memcpy(counts->fault, last_fault, sizeof(last_fault));
    LeaveCriticalSection(&lock);
}

/* As at first, but for adapters and sessions that are open; their number. */
EXPORT int FakeReset(void) {
    int open = 0;
    EnterCriticalSection(&lock);
    for (Adapter *adapter = adapters; adapter != NULL; adapter = adapter->next) {
        if (adapter->state == LEAVING) adapter->state = GONE;
        open += adapter->handles + (adapter->session != NULL);
    }
    sweep();
    is_loaded = adapters != NULL;
    linger = faults = failure.times = 0;
    last_fault[0] = delay.function[0] = 0;
    version = VERSION;
    LeaveCriticalSection(&lock);
    return open;
}
