/* Devices of tap-windows6 for tests: what its source does, and what SetupAPI and the registry tell of them.

   Linked into the core in front of Windows' own functions.  An operation belongs to the driver until it is complete:
   meanwhile nobody can read or write its buffer, and whoever frees it, or the OVERLAPPED, is at fault.  Each device is
   an interface of fake_iphelper.c, too.  Calls are written down with what they were given. */
#include <winsock2.h>
#include <windows.h>
#include <setupapi.h>
#include <initguid.h>
#include <devguid.h>
#include <objbase.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __declspec(dllexport)
#define DEVICES 16
#define SETS 16
#define FRAMES 512
#define FRAME_MAX 65554
#define BLOCKS 4096
#define JOURNAL (1 << 18)
#define PENDING 0x103               /* STATUS_PENDING, as in an OVERLAPPED */
#define FIRST_LUID 0x6000001000000ull

/* fake_iphelper.c */
void FakeInterface(ULONG64 luid, const GUID *guid, const WCHAR *name);
void FakeInterfaceGone(ULONG64 luid);
void FakeIpLease(ULONG64 luid, const BYTE *ip, int prefix);

typedef struct {
    DWORD size;
    BYTE *bytes;
} Frame;

typedef struct {
    Frame frames[FRAMES];
    int first, count;
} Queue;

typedef struct {
    OVERLAPPED *overlapped;         /* NULL: none is under way */
    BYTE *buffer;
    DWORD size;
    Frame copy;                     /* of what is written */
} Operation;

typedef struct {
    int is_present, is_enabled, is_registered, is_selected, has_driver;
    WCHAR hardware[128];            /* each with its NUL, and one more */
    WCHAR id[64], mac_value[32];
    GUID guid;
    ULONG64 luid;
    WCHAR name[64];
    BYTE mac[6];
    int id_delay, luid_delay, open_delay;
    int is_open, is_closing, media, starts;
    int is_tun, plays_dhcp, options_size;
    BYTE tun[3][4], lease[4][4], options[256];  /* local, network, mask; address, mask, server, seconds */
    Operation read, write;
    Queue to_user, from_user;
} Device;

typedef struct {
    int is_open, made;              /* the device that this set made, or -1 */
    DWORD function, state, scope;   /* of the class install parameters */
} Set;

static SRWLOCK lock = SRWLOCK_INIT;
static Device devices[DEVICES];
static Set sets[SETS];
static int open_keys, made_count, is_held, is_stubborn, is_synchronous, is_slow;
static int next_id_delay, next_luid_delay, next_open_delay, lease_delay = 100;
static char journal[JOURNAL], fault[256];
static size_t journal_size;
static int faults;
static struct { char function[48]; DWORD error; int times; } failure;

static void note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(journal + journal_size, JOURNAL - journal_size, format, arguments);
    va_end(arguments);
    if (size > 0 && journal_size + (size_t) size + 2 < JOURNAL) {
        journal_size += (size_t) size;
        journal[journal_size++] = '\n';
    }
    journal[journal_size] = 0;
}

static void blame(const char *what) {
    if (faults++ == 0) snprintf(fault, sizeof(fault), "%s", what);
}

static BOOL answer(DWORD error) {
    SetLastError(error);
    return error == ERROR_SUCCESS;
}

static DWORD ordered(const char *function) {
    if (failure.times == 0 || strcmp(function, failure.function) != 0) return ERROR_SUCCESS;
    failure.times--;
    return failure.error;
}

static void *allocate(size_t size) {
    return HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, size);
}

static void release(void *memory) {
    HeapFree(GetProcessHeap(), 0, memory);
}

static FARPROC real(const WCHAR *library, const char *name) {
    return GetProcAddress(GetModuleHandleW(library), name);
}

/* --- the core's memory: each buffer of a frame has pages of its own, which nobody gets after it --- */

static struct { BYTE *start; size_t size; int is_buffer; } blocks[BLOCKS];
static SRWLOCK block_lock = SRWLOCK_INIT;

static void *keep(void *start, size_t size, int is_buffer) {
    AcquireSRWLockExclusive(&block_lock);
    for (int i = 0; i < BLOCKS; i++) {
        if (blocks[i].start != NULL) continue;
        blocks[i].start = start, blocks[i].size = size, blocks[i].is_buffer = is_buffer;
        break;
    }
    ReleaseSRWLockExclusive(&block_lock);
    return start;
}

void *malloc(size_t size) {
    if (size >= 65536) return keep(VirtualAlloc(NULL, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE), size, 1);
    return keep(allocate(size), size, 0);
}

void *calloc(size_t count, size_t size) {
    return keep(allocate(count * size), count * size, 0);
}

static int is_within(const void *what, const BYTE *start, size_t size) {
    return (const BYTE *) what >= start && (const BYTE *) what < start + size;
}

void free(void *memory) {
    size_t size = 0;
    int is_known = 0, is_buffer = 0;
    DWORD old;
    if (memory == NULL) return;
    AcquireSRWLockExclusive(&block_lock);
    for (int i = 0; i < BLOCKS && !is_known; i++) {
        if (blocks[i].start != memory) continue;
        is_known = 1;
        size = blocks[i].size, is_buffer = blocks[i].is_buffer;
        blocks[i].start = NULL;
    }
    ReleaseSRWLockExclusive(&block_lock);
    if (!is_known) {                /* what a function of the C library made */
        ((void (*)(void *)) (void *) real(L"ucrtbase.dll", "free"))(memory);
        return;
    }
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < DEVICES; i++) {
        for (int j = 0; j < 2; j++) {
            Operation *operation = j ? &devices[i].write : &devices[i].read;
            if (operation->overlapped == NULL) continue;
            if (is_within(operation->buffer, memory, size)) blame("a buffer that the driver has was freed");
            if (is_within(operation->overlapped, memory, size)) blame("an OVERLAPPED that the driver has was freed");
        }
    }
    ReleaseSRWLockExclusive(&lock);
    if (is_buffer) VirtualProtect(memory, size, PAGE_NOACCESS, &old);
    else release(memory);
}

static void protect(const void *buffer, int is_driver) {
    DWORD old;
    AcquireSRWLockExclusive(&block_lock);
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].is_buffer && blocks[i].start == buffer)
            VirtualProtect(blocks[i].start, blocks[i].size, is_driver ? PAGE_NOACCESS : PAGE_READWRITE, &old);
    ReleaseSRWLockExclusive(&block_lock);
}

/* --- queues of frames --- */

static int push(Queue *queue, const void *bytes, DWORD size) {
    if (queue->count == FRAMES) return 0;
    Frame *frame = &queue->frames[(queue->first + queue->count++) % FRAMES];
    frame->size = size;
    frame->bytes = allocate(size + 1);
    memcpy(frame->bytes, bytes, size);
    return 1;
}

static Frame pop(Queue *queue) {
    Frame frame = queue->frames[queue->first];
    queue->first = (queue->first + 1) % FRAMES;
    queue->count--;
    return frame;
}

static void drain(Queue *queue) {
    while (queue->count) release(pop(queue).bytes);
}

/* --- operations --- */

static void begin(Operation *operation, OVERLAPPED *overlapped, void *buffer, DWORD size) {
    *operation = (Operation) {.overlapped = overlapped, .buffer = buffer, .size = size};
    overlapped->Internal = PENDING;
    overlapped->InternalHigh = 0;
    ResetEvent(overlapped->hEvent);
    protect(buffer, 1);
}

static void complete(Operation *operation, DWORD error, DWORD size) {
    OVERLAPPED *overlapped = operation->overlapped;
    operation->overlapped = NULL;
    release(operation->copy.bytes);
    operation->copy.bytes = NULL;
    protect(operation->buffer, 0);
    overlapped->InternalHigh = size;
    overlapped->Internal = error;
    SetEvent(overlapped->hEvent);
}

/* A read takes the oldest frame; one that does not fit is lost, and nothing of it is told. */
static void serve_read(Device *device) {
    if (device->read.overlapped == NULL || device->to_user.count == 0) return;
    Frame frame = pop(&device->to_user);
    protect(device->read.buffer, 0);
    if (frame.size <= device->read.size) memcpy(device->read.buffer, frame.bytes, frame.size);
    if (frame.size <= device->read.size) complete(&device->read, ERROR_SUCCESS, frame.size);
    else complete(&device->read, ERROR_MORE_DATA, 0);
    release(frame.bytes);
}

static void neighbour_of(const Device *device, BYTE *mac);

static void end_write(Device *device, DWORD error) {
    Operation *write = &device->write;
    if (write->overlapped == NULL) return;
    protect(write->buffer, 0);
    if (memcmp(write->buffer, write->copy.bytes, write->size) != 0)
        blame("a frame was changed while the driver had it");
    if (error == ERROR_SUCCESS && device->is_tun) {
        BYTE *frame = allocate(14 + write->size);
        memcpy(frame, device->mac, 6);
        neighbour_of(device, frame + 6);
        memcpy(frame + 12, write->copy.bytes[0] >> 4 == 6 ? "\x86\xdd" : "\x08", 2);
        memcpy(frame + 14, write->copy.bytes, write->size);
        push(&device->from_user, frame, 14 + write->size);
        release(frame);
    } else if (error == ERROR_SUCCESS) push(&device->from_user, write->copy.bytes, write->size);
    complete(write, error, error == ERROR_SUCCESS ? write->size : 0);
    if (device->is_closing) device->is_open = device->is_closing = 0;
}

static void cancel_read(Device *device) {
    if (device->read.overlapped != NULL) complete(&device->read, ERROR_OPERATION_ABORTED, 0);
}

/* It was opened, or closed. */
static void forget(Device *device) {
    device->is_tun = device->plays_dhcp = device->options_size = 0;
    memset(device->tun, 0, sizeof(device->tun));
    memset(device->lease, 0, sizeof(device->lease));
}

static void plug(Device *device, int is_in);

/* IRP_MJ_CLEANUP; IRP_MJ_CLOSE comes when no operation is left. */
static void clean_up(Device *device) {
    plug(device, 0);
    forget(device);
    drain(&device->to_user);
    if (!is_stubborn) cancel_read(device);
    if (device->read.overlapped != NULL || device->write.overlapped != NULL) device->is_closing = 1;
    else device->is_open = 0;
}

/* --- files: a handle is 0x7a900000 and four times the number of its device --- */

#define FILES ((UINT_PTR) 0x7a900000)

static Device *of_file(HANDLE file) {
    UINT_PTR value = (UINT_PTR) file;
    if (value < FILES || value >= FILES + 4 * DEVICES) return NULL;
    Device *device = &devices[(value - FILES) / 4];
    return device->is_open && !device->is_closing ? device : NULL;
}

static const char *narrow(const WCHAR *wide, char *text) {
    WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, 256, NULL, NULL);
    return text;
}

static HANDLE WINAPI create_file(
    const WCHAR *path, DWORD access, DWORD share, SECURITY_ATTRIBUTES *security, DWORD how, DWORD flags, HANDLE other) {
    char text[256];
    WCHAR expected[128];
    HANDLE file = INVALID_HANDLE_VALUE;
    (void) security, (void) other;
    AcquireSRWLockExclusive(&lock);
    DWORD error = ordered("CreateFileW");
    note("CreateFile %s %08lx %lx %lx %08lx", narrow(path, text), access, share, how, flags);
    for (int i = 0; i < DEVICES && error == ERROR_SUCCESS; i++) {
        Device *device = &devices[i];
        if (!device->is_present || !device->is_enabled) continue;
        swprintf(expected, 128, L"\\\\.\\Global\\%ls.tap", device->id);
        if (_wcsicmp(expected, path) != 0) continue;
        if (device->open_delay > 0) device->open_delay--;
        else if (device->is_open) error = ERROR_GEN_FAILURE;    /* STATUS_UNSUCCESSFUL */
        else {
            device->is_open = 1;
            forget(device);
            file = (HANDLE) (FILES + 4 * (UINT_PTR) i);
        }
    }
    if (file == INVALID_HANDLE_VALUE && error == ERROR_SUCCESS) error = ERROR_FILE_NOT_FOUND;
    ReleaseSRWLockExclusive(&lock);
    SetLastError(error);
    return file;
}

static BOOL WINAPI close_handle(HANDLE handle) {
    typedef BOOL(WINAPI * Close)(HANDLE);
    if ((UINT_PTR) handle < FILES || (UINT_PTR) handle >= FILES + 4 * DEVICES)
        return ((Close) (void *) real(L"kernel32.dll", "CloseHandle"))(handle);
    AcquireSRWLockExclusive(&lock);
    Device *device = of_file(handle);
    note("CloseHandle");
    if (device == NULL) blame("a file was closed twice");
    else clean_up(device);
    ReleaseSRWLockExclusive(&lock);
    return answer(device == NULL ? ERROR_INVALID_HANDLE : ERROR_SUCCESS);
}

/* --- what the driver answers by itself --- */

/* An answer has room for 256 bytes of options, with a type (3 bytes), server, lease time and mask (6 each) and an end
   (1); if that is too little there is no answer. */
static DWORD WINAPI ask_for_lease(void *argument) {
    Device *device = argument;
    int prefix = 0;
    Sleep((DWORD) lease_delay);
    AcquireSRWLockExclusive(&lock);
    if (device->is_open && device->media && device->plays_dhcp && device->options_size + 22 <= 256) {
        while (prefix < 32 && device->lease[1][prefix / 8] >> (7 - prefix % 8) & 1) prefix++;
        FakeIpLease(device->luid, device->lease[0], prefix);
    }
    ReleaseSRWLockExclusive(&lock);
    return 0;
}

/* The cable goes in or out; Windows asks for an address, or lets go of the one it has. */
static void plug(Device *device, int is_in) {
    device->media = is_in;
    if (device->plays_dhcp && !is_in) FakeIpLease(device->luid, NULL, 0);
    if (device->plays_dhcp && is_in && lease_delay >= 0)
        CloseHandle(CreateThread(NULL, 0, ask_for_lease, device, 0, NULL));
}

static int is_type(const BYTE *frame, int type) {
    return frame[12] == type >> 8 && frame[13] == (type & 0xff);
}

/* The MAC address of the neighbour that the driver plays. */
static void neighbour_of(const Device *device, BYTE *mac) {
    memcpy(mac, device->mac, 6);
    mac[2]++;
}

/* Whether it is an ARP request (RFC 826) from the local address for another one of the network. */
static int is_arp_for_driver(const Device *device, const BYTE *frame, DWORD size) {
    static const BYTE everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const BYTE request[8] = {0, 1, 8, 0, 6, 4, 0, 1};
    if (size != 42 || !is_type(frame, 0x0806) || memcmp(frame, everybody, 6) != 0) return 0;
    if (memcmp(frame + 6, device->mac, 6) != 0 || memcmp(frame + 22, device->mac, 6) != 0) return 0;
    if (memcmp(frame + 14, request, 8) != 0 || memcmp(frame + 28, device->tun[0], 4) != 0) return 0;
    for (int i = 0; i < 4; i++)
        if ((frame[38 + i] & device->tun[2][i]) != device->tun[1][i]) return 0;
    return memcmp(frame + 38, device->tun[0], 4) != 0;
}

/* Whether it is a neighbour solicitation (RFC 4861) for fe80::8. */
static int is_solicitation_for_driver(const BYTE *frame, DWORD size) {
    static const BYTE target[16] = {0xfe, 0x80, [15] = 8};
    return size >= 78 && frame[20] == 58 && frame[54] == 135 && memcmp(frame + 62, target, 16) == 0;
}

/* How many bytes of a frame a TUN leaves out; -1: it is for nobody, -2: the driver has answered it. */
static int header_of(const Device *device, const BYTE *frame, DWORD size) {
    BYTE neighbour[6];
    neighbour_of(device, neighbour);
    if (is_type(frame, 0x0806)) return is_arp_for_driver(device, frame, size) ? -2 : -1;
    if (is_type(frame, 0x0800))     /* none that are for several */
        return size >= 34 && memcmp(frame, neighbour, 6) == 0 && memcmp(frame + 6, device->mac, 6) == 0 ? 14 : -1;
    if (is_type(frame, 0x86dd) && size >= 54) return is_solicitation_for_driver(frame, size) ? -2 : 14;
    return -1;
}

static DWORD control(Device *device, DWORD code, BYTE *in, DWORD in_size, BYTE *out, DWORD out_size, DWORD *size) {
    DWORD version[3] = {9, 24, 0};
    switch (code) {
    case 0x00220004:                /* GET_MAC */
        if (out_size < 6) return ERROR_INSUFFICIENT_BUFFER;
        memcpy(out, device->mac, *size = 6);
        return ERROR_SUCCESS;
    case 0x00220008:                /* GET_VERSION */
        if (out_size < 12) return ERROR_INSUFFICIENT_BUFFER;
        memcpy(out, version, *size = 12);
        return ERROR_SUCCESS;
    case 0x00220018:                /* SET_MEDIA_STATUS; what is queued or pending stays */
        if (in_size < 4) return ERROR_INVALID_PARAMETER;
        plug(device, in[0]);
        *size = 1;
        return ERROR_SUCCESS;
    case 0x0022001c:                /* CONFIG_DHCP_MASQ */
        if (in_size < 16) return ERROR_INVALID_PARAMETER;
        memcpy(device->lease, in, 16);
        device->plays_dhcp = 1;
        device->options_size = 0;
        *size = 1;
        return ERROR_SUCCESS;
    case 0x00220024:                /* CONFIG_DHCP_SET_OPT */
        if (in_size > 256 || !device->plays_dhcp) return ERROR_INVALID_PARAMETER;
        memcpy(device->options, in, in_size);
        device->options_size = (int) in_size;
        *size = 1;
        return ERROR_SUCCESS;
    case 0x00220028:                /* CONFIG_TUN */
        if (in_size < 12) return ERROR_INVALID_PARAMETER;
        device->is_tun = 0;
        memcpy(device->tun, in, 12);
        ReleaseSRWLockExclusive(&lock);
        Sleep(1);                   /* meanwhile it is a TAP */
        AcquireSRWLockExclusive(&lock);
        for (int i = 0; i < 4; i++)
            if ((in[4 + i] & in[8 + i]) != in[4 + i]) return ERROR_INVALID_PARAMETER;
        device->is_tun = 1;
        *size = 1;
        return ERROR_SUCCESS;
    }
    return ERROR_INVALID_FUNCTION;
}

static DWORD WINAPI set_later(void *event) {
    Sleep(20);
    SetEvent(event);
    return 0;
}

static BOOL WINAPI device_io_control(
    HANDLE file, DWORD code, void *in, DWORD in_size, void *out, DWORD out_size, DWORD *done, OVERLAPPED *overlapped) {
    DWORD error = ERROR_INVALID_HANDLE, size = 0, pends = 0;
    char text[520] = "";
    AcquireSRWLockExclusive(&lock);
    Device *device = of_file(file);
    for (DWORD i = 0; i < in_size && i < 256; i++) sprintf(text + 2 * i, "%02x", ((BYTE *) in)[i]);
    note("DeviceIoControl %08lx %s %lu", code, text, out_size);
    if (out == NULL || out_size == 0) blame("a request without room for its answer");
    if (overlapped == NULL || overlapped->hEvent == NULL) blame("a request that is not overlapped, of a file that is");
    else if (device != NULL) {
        char name[32];
        sprintf(name, "DeviceIoControl %lu", code >> 2 & 0xfff);
        error = ordered("DeviceIoControl");
        if (error == ERROR_SUCCESS) error = ordered(name);
        if (error == ERROR_SUCCESS) error = control(device, code, in, in_size, out, out_size, &size);
        overlapped->Internal = error;
        overlapped->InternalHigh = size;
        pends = is_slow;
        if (pends) CloseHandle(CreateThread(NULL, 0, set_later, overlapped->hEvent, 0, NULL));
        else SetEvent(overlapped->hEvent);
        if (done != NULL && !pends) *done = size;
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(pends ? ERROR_IO_PENDING : error);
}

static int is_ready(const Device *device) {
    return device->media && device->is_enabled && device->is_present;
}

static BOOL WINAPI read_file(HANDLE file, void *buffer, DWORD size, DWORD *done, OVERLAPPED *overlapped) {
    DWORD error = ERROR_INVALID_HANDLE;
    (void) done;
    AcquireSRWLockExclusive(&lock);
    Device *device = of_file(file);
    note("ReadFile %lu", size);
    if (overlapped == NULL || overlapped->hEvent == NULL) blame("a read that is not overlapped");
    else if (device != NULL && device->read.overlapped != NULL) blame("two reads at a time");
    else if (device != NULL) {
        error = ordered("ReadFile");
        if (error == ERROR_SUCCESS && !is_ready(device)) error = ERROR_OPERATION_ABORTED;
        if (error == ERROR_SUCCESS) {
            begin(&device->read, overlapped, buffer, size);
            serve_read(device);
            error = ERROR_IO_PENDING;
            if (is_synchronous && overlapped->Internal != PENDING) error = (DWORD) overlapped->Internal;
        }
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

static BOOL WINAPI write_file(HANDLE file, const void *bytes, DWORD size, DWORD *done, OVERLAPPED *overlapped) {
    DWORD error = ERROR_INVALID_HANDLE;
    (void) done;
    AcquireSRWLockExclusive(&lock);
    Device *device = of_file(file);
    note("WriteFile %lu", size);
    if (overlapped == NULL || overlapped->hEvent == NULL) blame("a write that is not overlapped");
    else if (device != NULL && device->write.overlapped != NULL) blame("two writes at a time, which may change places");
    else if (device != NULL) {
        error = ordered("WriteFile");
        if (error == ERROR_SUCCESS && !is_ready(device)) error = ERROR_OPERATION_ABORTED;
        if (error == ERROR_SUCCESS && size < (device->is_tun ? 20 : 14)) error = ERROR_INSUFFICIENT_BUFFER;
        if (error == ERROR_SUCCESS) {
            BYTE *copy = allocate(size);
            memcpy(copy, bytes, size);
            begin(&device->write, overlapped, (void *) bytes, size);
            device->write.copy = (Frame) {size, copy};
            if (!is_held) end_write(device, ERROR_SUCCESS);
            error = is_synchronous && !is_held ? ERROR_SUCCESS : ERROR_IO_PENDING;
        }
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

/* As Windows' own does, this looks at the OVERLAPPED alone. */
static BOOL WINAPI get_overlapped_result(HANDLE file, OVERLAPPED *overlapped, DWORD *size, BOOL waits) {
    (void) file;
    if (waits) WaitForSingleObject(overlapped->hEvent, INFINITE);
    DWORD status = (DWORD) *(volatile ULONG_PTR *) &overlapped->Internal;
    if (status == PENDING) return answer(ERROR_IO_INCOMPLETE);
    *size = (DWORD) overlapped->InternalHigh;
    return answer(status);
}

static BOOL WINAPI cancel_io(HANDLE file, OVERLAPPED *overlapped) {
    DWORD error = ERROR_NOT_FOUND;
    AcquireSRWLockExclusive(&lock);
    Device *device = of_file(file);
    if (device == NULL) error = ERROR_INVALID_HANDLE;
    else if (device->read.overlapped == overlapped && overlapped != NULL) {
        note("CancelIoEx read");
        if (!is_stubborn) cancel_read(device);
        error = ERROR_SUCCESS;
    } else if (device->write.overlapped == overlapped && overlapped != NULL) {
        note("CancelIoEx write");   /* which goes its way */
        error = ERROR_SUCCESS;
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

/* --- devices --- */

static void start(Device *device) {
    static const WCHAR digits[] = L"0123456789ABCDEF";
    BYTE mac[6] = {0x00, 0xff, 0x12, 0x34, 0x56, (BYTE) (device - devices)};
    for (int i = 0; i < 12 && wcslen(device->mac_value) == 12; i++) {
        const WCHAR *digit = wcschr(digits, device->mac_value[i]);
        if (digit == NULL) blame("a MAC address that is not of hexadecimal digits");
        else mac[i / 2] = (BYTE) (mac[i / 2] << 4 | (digit - digits));
    }
    memcpy(device->mac, mac, 6);
    device->is_enabled = 1;
    device->starts++;
}

static void halt(Device *device) {
    device->is_enabled = 0;
    drain(&device->to_user);
    cancel_read(device);
}

/* A new one, without an interface. */
static Device *add(void) {
    for (int i = 0; i < DEVICES; i++) {
        Device *device = &devices[i];
        if (device->is_present || device->is_open) continue;
        memset(device, 0, sizeof(*device));
        device->is_present = 1;
        device->luid = FIRST_LUID + (ULONG64) ++made_count;
        device->guid = (GUID) {(ULONG) made_count, 0x7a9, 0x4321, {0x80, 1, 2, 3, 4, 5, 6, 7}};
        swprintf(device->name, 64, L"Local Area Connection %d", made_count);
        return device;
    }
    return NULL;
}

static void install(Device *device) {
    StringFromGUID2(&device->guid, device->id, 64);
    device->has_driver = 1;
    if (device->luid_delay == 0) FakeInterface(device->luid, &device->guid, device->name);
    start(device);
}

static void vanish(Device *device) {
    halt(device);
    device->is_present = 0;
    FakeInterfaceGone(device->luid);
}

/* --- SetupAPI: a set is 0x7aa00000 and four times its number, a key 0x7ab00000 and four times its device's --- */

#define SET_BASE ((UINT_PTR) 0x7aa00000)
#define KEY_BASE ((UINT_PTR) 0x7ab00000)

static HDEVINFO open_set(void) {
    for (int i = 0; i < SETS; i++) {
        if (sets[i].is_open) continue;
        sets[i] = (Set) {.is_open = 1, .made = -1};
        return (HDEVINFO) (SET_BASE + 4 * (UINT_PTR) i);
    }
    return INVALID_HANDLE_VALUE;
}

static Set *of_set(HDEVINFO handle) {
    UINT_PTR value = (UINT_PTR) handle;
    Set *set = value >= SET_BASE && value < SET_BASE + 4 * SETS ? &sets[(value - SET_BASE) / 4] : NULL;
    if (set == NULL || !set->is_open) return blame("a set of devices that is none"), NULL;
    return set;
}

static Device *of_data(HDEVINFO set, SP_DEVINFO_DATA *data) {
    if (of_set(set) == NULL) return NULL;
    if (data->cbSize != sizeof(*data) || data->DevInst >= DEVICES) return blame("a device that is none"), NULL;
    return &devices[data->DevInst];
}

static HDEVINFO WINAPI get_class_devs(const GUID *kind, const WCHAR *enumerator, HWND window, DWORD flags) {
    HDEVINFO set = INVALID_HANDLE_VALUE;
    AcquireSRWLockExclusive(&lock);
    DWORD error = ordered("SetupDiGetClassDevsW");
    if (!IsEqualGUID(kind, &GUID_DEVCLASS_NET) || enumerator != NULL || window != NULL || flags != DIGCF_PRESENT)
        blame("SetupDiGetClassDevs of something else");
    if (error == ERROR_SUCCESS) set = open_set();
    ReleaseSRWLockExclusive(&lock);
    SetLastError(error);
    return set;
}

static BOOL WINAPI enum_device_info(HDEVINFO set, DWORD index, SP_DEVINFO_DATA *data) {
    DWORD error = ERROR_NO_MORE_ITEMS;
    AcquireSRWLockExclusive(&lock);
    if (data->cbSize != sizeof(*data)) blame("SP_DEVINFO_DATA without its size");
    for (DWORD i = 0; of_set(set) != NULL && i < DEVICES; i++) {
        if (!devices[i].is_present || !devices[i].is_registered || index-- != 0) continue;
        data->DevInst = i;
        error = ERROR_SUCCESS;
        break;
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

static BOOL WINAPI get_property(
    HDEVINFO set, SP_DEVINFO_DATA *data, DWORD property, DWORD *type, BYTE *bytes, DWORD size, DWORD *needed) {
    DWORD error = ERROR_INVALID_DATA;
    (void) needed;
    AcquireSRWLockExclusive(&lock);
    Device *device = of_data(set, data);
    if (device != NULL && property == SPDRP_HARDWAREID && device->hardware[0]) {
        DWORD length = 0;
        while (device->hardware[length]) length += (DWORD) wcslen(device->hardware + length) + 1;
        length = (length + 1) * sizeof(WCHAR);
        if (type != NULL) *type = REG_MULTI_SZ;
        error = length <= size ? ERROR_SUCCESS : ERROR_INSUFFICIENT_BUFFER;
        if (error == ERROR_SUCCESS) memcpy(bytes, device->hardware, length);
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

static BOOL WINAPI destroy_list(HDEVINFO handle) {
    AcquireSRWLockExclusive(&lock);
    Set *set = of_set(handle);
    if (set != NULL) {
        set->is_open = 0;
        /* One that was never registered goes with its set. */
        if (set->made >= 0 && !devices[set->made].is_registered) devices[set->made].is_present = 0;
    }
    ReleaseSRWLockExclusive(&lock);
    return set != NULL;
}

static HDEVINFO WINAPI create_list(const GUID *kind, HWND window) {
    HDEVINFO set = INVALID_HANDLE_VALUE;
    AcquireSRWLockExclusive(&lock);
    DWORD error = ordered("SetupDiCreateDeviceInfoList");
    if (!IsEqualGUID(kind, &GUID_DEVCLASS_NET) || window != NULL) blame("a list of another class");
    if (error == ERROR_SUCCESS) set = open_set();
    ReleaseSRWLockExclusive(&lock);
    SetLastError(error);
    return set;
}

static BOOL WINAPI class_name(const GUID *kind, WCHAR *name, DWORD size, DWORD *needed) {
    (void) kind, (void) needed;
    if (size < 4) return answer(ERROR_INSUFFICIENT_BUFFER);
    wcscpy(name, L"Net");
    return answer(ERROR_SUCCESS);
}

static BOOL WINAPI create_device(
    HDEVINFO handle, const WCHAR *name, const GUID *kind, const WCHAR *text, HWND window, DWORD flags,
    SP_DEVINFO_DATA *data) {
    (void) text, (void) window;
    AcquireSRWLockExclusive(&lock);
    DWORD error = ordered("SetupDiCreateDeviceInfoW");
    Set *set = of_set(handle);
    note("SetupDiCreateDeviceInfo %ls %lx", name, flags);
    if (!IsEqualGUID(kind, &GUID_DEVCLASS_NET) || data->cbSize != sizeof(*data)) blame("SetupDiCreateDeviceInfo");
    if (error == ERROR_SUCCESS && set != NULL) {
        Device *device = add();
        device->id_delay = next_id_delay, device->luid_delay = next_luid_delay, device->open_delay = next_open_delay;
        data->DevInst = (DWORD) (device - devices);
        set->made = (int) data->DevInst;
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

static BOOL WINAPI select_device(HDEVINFO set, SP_DEVINFO_DATA *data) {
    AcquireSRWLockExclusive(&lock);
    Device *device = of_data(set, data);
    if (device != NULL) device->is_selected = 1;
    ReleaseSRWLockExclusive(&lock);
    return answer(device != NULL ? ERROR_SUCCESS : ERROR_INVALID_PARAMETER);
}

static BOOL WINAPI set_property(
    HDEVINFO set, SP_DEVINFO_DATA *data, DWORD property, const BYTE *bytes, DWORD size) {
    AcquireSRWLockExclusive(&lock);
    DWORD error = ordered("SetupDiSetDeviceRegistryPropertyW");
    Device *device = of_data(set, data);
    const WCHAR *text = (const WCHAR *) bytes;
    size_t length = size / sizeof(WCHAR);
    note("SetupDiSetDeviceRegistryProperty %lu %ls", property, text);
    if (property != SPDRP_HARDWAREID || size % 2 || length < 2 || text[length - 1] || text[length - 2])
        blame("a hardware id that is no REG_MULTI_SZ");
    else if (error == ERROR_SUCCESS && device != NULL) memcpy(device->hardware, bytes, size);
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

static BOOL WINAPI build_drivers(HDEVINFO set, SP_DEVINFO_DATA *data, DWORD type) {
    AcquireSRWLockExclusive(&lock);
    DWORD error = ordered("SetupDiBuildDriverInfoList");
    if (of_data(set, data) == NULL || type != SPDIT_COMPATDRIVER) blame("SetupDiBuildDriverInfoList");
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

static BOOL WINAPI destroy_drivers(HDEVINFO set, SP_DEVINFO_DATA *data, DWORD type) {
    (void) set, (void) data, (void) type;
    return TRUE;
}

static BOOL WINAPI set_parameters(HDEVINFO handle, SP_DEVINFO_DATA *data, SP_CLASSINSTALL_HEADER *header, DWORD size) {
    AcquireSRWLockExclusive(&lock);
    DWORD error = ordered("SetupDiSetClassInstallParamsW");
    Set *set = of_set(handle);
    if (of_data(handle, data) == NULL || header->cbSize != sizeof(*header)) blame("SetupDiSetClassInstallParams");
    else if (set != NULL) {
        set->function = header->InstallFunction;
        if (header->InstallFunction == DIF_REMOVE && size == sizeof(SP_REMOVEDEVICE_PARAMS))
            set->scope = ((SP_REMOVEDEVICE_PARAMS *) header)->Scope;
        else if (header->InstallFunction == DIF_PROPERTYCHANGE && size == sizeof(SP_PROPCHANGE_PARAMS)) {
            set->scope = ((SP_PROPCHANGE_PARAMS *) header)->Scope;
            set->state = ((SP_PROPCHANGE_PARAMS *) header)->StateChange;
        } else blame("class install parameters of another size");
    }
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

static DWORD call_class_installer(Set *set, Device *device, DI_FUNCTION function) {
    switch (function) {
    case DIF_SELECTBESTCOMPATDRV:
        note("DIF_SELECTBESTCOMPATDRV");
        if (!device->is_selected || _wcsicmp(device->hardware, L"root\\tap0901") != 0) blame("no driver to select for");
        return ordered("DIF_SELECTBESTCOMPATDRV");
    case DIF_REGISTERDEVICE:
        note("DIF_REGISTERDEVICE");
        device->is_registered = 1;
        return ordered("DIF_REGISTERDEVICE");
    case DIF_INSTALLDEVICE: {
        note("DIF_INSTALLDEVICE");
        DWORD error = ordered("DIF_INSTALLDEVICE");
        if (!device->is_registered) blame("a device that is not registered was installed");
        else if (error == ERROR_SUCCESS) install(device);
        return error;
    }
    case DIF_REMOVE: {
        note("DIF_REMOVE %ls", device->id);
        DWORD error = ordered("DIF_REMOVE");
        if (set->function != DIF_REMOVE || set->scope != DI_REMOVEDEVICE_GLOBAL)
            blame("DIF_REMOVE without its parameters");
        else if (error == ERROR_SUCCESS) vanish(device);
        return error;
    }
    case DIF_PROPERTYCHANGE: {
        note("DIF_PROPERTYCHANGE %ls", set->state == DICS_ENABLE ? L"enable" : L"disable");
        DWORD error = ordered("DIF_PROPERTYCHANGE");
        if (set->function != DIF_PROPERTYCHANGE || set->scope != DICS_FLAG_GLOBAL) blame("DIF_PROPERTYCHANGE");
        else if (error != ERROR_SUCCESS) return error;
        else if (set->state == DICS_ENABLE) start(device), device->open_delay = next_open_delay;
        else halt(device);
        return error;
    }
    }
    blame("another function of the class installer");
    return ERROR_INVALID_PARAMETER;
}

static BOOL WINAPI call_installer(DI_FUNCTION function, HDEVINFO handle, SP_DEVINFO_DATA *data) {
    AcquireSRWLockExclusive(&lock);
    Device *device = of_data(handle, data);
    Set *set = of_set(handle);
    DWORD error = device == NULL || set == NULL ? ERROR_INVALID_PARAMETER : call_class_installer(set, device, function);
    ReleaseSRWLockExclusive(&lock);
    return answer(error);
}

/* --- the driver's key of a device --- */

static HKEY WINAPI open_key(
    HDEVINFO set, SP_DEVINFO_DATA *data, DWORD scope, DWORD profile, DWORD type, REGSAM access) {
    HKEY key = (HKEY) INVALID_HANDLE_VALUE;
    AcquireSRWLockExclusive(&lock);
    DWORD error = access == KEY_SET_VALUE ? ordered("SetupDiOpenDevRegKey") : ERROR_SUCCESS;
    Device *device = of_data(set, data);
    if (scope != DICS_FLAG_GLOBAL || profile != 0 || type != DIREG_DRV) blame("another key of a device");
    if (access != KEY_QUERY_VALUE && access != KEY_SET_VALUE) blame("more rights than are needed");
    if (device == NULL || !device->has_driver) error = 0xE0000204;     /* ERROR_KEY_DOES_NOT_EXIST */
    if (error == ERROR_SUCCESS) {
        key = (HKEY) (KEY_BASE + 4 * (UINT_PTR) (device - devices));
        open_keys++;
    }
    ReleaseSRWLockExclusive(&lock);
    SetLastError(error);
    return key;
}

static Device *of_key(HKEY key) {
    UINT_PTR value = (UINT_PTR) key;
    return value >= KEY_BASE && value < KEY_BASE + 4 * DEVICES ? &devices[(value - KEY_BASE) / 4] : NULL;
}

static LONG WINAPI query_value(HKEY key, const WCHAR *name, DWORD *unused, DWORD *type, BYTE *bytes, DWORD *size) {
    typedef LONG(WINAPI * Query)(HKEY, const WCHAR *, DWORD *, DWORD *, BYTE *, DWORD *);
    LONG error = ERROR_FILE_NOT_FOUND;
    Device *device = of_key(key);
    if (device == NULL)
        return ((Query) (void *) real(L"advapi32.dll", "RegQueryValueExW"))(key, name, unused, type, bytes, size);
    AcquireSRWLockExclusive(&lock);
    if (wcscmp(name, L"NetCfgInstanceId") == 0 && device->id_delay-- <= 0) {
        DWORD length = (DWORD) ((wcslen(device->id) + 1) * sizeof(WCHAR));
        if (device->luid_delay > 0 && --device->luid_delay == 0)
            FakeInterface(device->luid, &device->guid, device->name);
        error = *size < length ? ERROR_MORE_DATA : ERROR_SUCCESS;
        *size = length;
        if (type != NULL) *type = REG_SZ;
        if (error == ERROR_SUCCESS) memcpy(bytes, device->id, length);
    }
    ReleaseSRWLockExclusive(&lock);
    return error;
}

static LONG WINAPI set_value(HKEY key, const WCHAR *name, DWORD unused, DWORD type, const BYTE *bytes, DWORD size) {
    typedef LONG(WINAPI * Set_)(HKEY, const WCHAR *, DWORD, DWORD, const BYTE *, DWORD);
    Device *device = of_key(key);
    if (device == NULL)
        return ((Set_) (void *) real(L"advapi32.dll", "RegSetValueExW"))(key, name, unused, type, bytes, size);
    AcquireSRWLockExclusive(&lock);
    LONG error = (LONG) ordered("RegSetValueExW");
    note("RegSetValueEx %ls %lu %ls %lu", name, type, (const WCHAR *) bytes, size);
    /* The driver reads this one, and not the NetworkAddress of others. */
    if (error == ERROR_SUCCESS && wcscmp(name, L"MAC") == 0 && size <= sizeof(device->mac_value))
        memcpy(device->mac_value, bytes, size);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

static LONG WINAPI close_key(HKEY key) {
    typedef LONG(WINAPI * Close)(HKEY);
    if (of_key(key) == NULL) return ((Close) (void *) real(L"advapi32.dll", "RegCloseKey"))(key);
    AcquireSRWLockExclusive(&lock);
    open_keys--;
    ReleaseSRWLockExclusive(&lock);
    return ERROR_SUCCESS;
}

void *__imp_CreateFileW = (void *) create_file;
void *__imp_CloseHandle = (void *) close_handle;
void *__imp_DeviceIoControl = (void *) device_io_control;
void *__imp_ReadFile = (void *) read_file;
void *__imp_WriteFile = (void *) write_file;
void *__imp_GetOverlappedResult = (void *) get_overlapped_result;
void *__imp_CancelIoEx = (void *) cancel_io;
void *__imp_SetupDiGetClassDevsW = (void *) get_class_devs;
void *__imp_SetupDiEnumDeviceInfo = (void *) enum_device_info;
void *__imp_SetupDiGetDeviceRegistryPropertyW = (void *) get_property;
void *__imp_SetupDiDestroyDeviceInfoList = (void *) destroy_list;
void *__imp_SetupDiCreateDeviceInfoList = (void *) create_list;
void *__imp_SetupDiClassNameFromGuidW = (void *) class_name;
void *__imp_SetupDiCreateDeviceInfoW = (void *) create_device;
void *__imp_SetupDiSetSelectedDevice = (void *) select_device;
void *__imp_SetupDiSetDeviceRegistryPropertyW = (void *) set_property;
void *__imp_SetupDiBuildDriverInfoList = (void *) build_drivers;
void *__imp_SetupDiDestroyDriverInfoList = (void *) destroy_drivers;
void *__imp_SetupDiSetClassInstallParamsW = (void *) set_parameters;
void *__imp_SetupDiCallClassInstaller = (void *) call_installer;
void *__imp_SetupDiOpenDevRegKey = (void *) open_key;
void *__imp_RegQueryValueExW = (void *) query_value;
void *__imp_RegSetValueExW = (void *) set_value;
void *__imp_RegCloseKey = (void *) close_key;

/* --- what a test orders and asks; a device goes by its number --- */

/* A device that is there, with these hardware ids, each with its NUL. */
EXPORT int FakeTapAdd(const WCHAR *name, const WCHAR *hardware, DWORD length) {
    AcquireSRWLockExclusive(&lock);
    Device *device = add();
    device->is_registered = 1;
    memcpy(device->hardware, hardware, length * sizeof(WCHAR));
    wcscpy(device->name, name);
    install(device);
    ReleaseSRWLockExclusive(&lock);
    return (int) (device - devices);
}

/* What the driver is like from now on: it keeps writes; it cancels no read; it is done before it returns; a request
   takes its time; and how many looks at a new device go before it has its id, its interface, and its file. */
EXPORT void FakeTapOptions(int holds, int stubborn, int synchronous, int slow, int id, int luid, int file) {
    AcquireSRWLockExclusive(&lock);
    is_held = holds, is_stubborn = stubborn, is_synchronous = synchronous, is_slow = slow;
    next_id_delay = id, next_luid_delay = luid, next_open_delay = file;
    ReleaseSRWLockExclusive(&lock);
}

EXPORT void FakeTapFail(const char *function, DWORD error, int times) {
    AcquireSRWLockExclusive(&lock);
    snprintf(failure.function, sizeof(failure.function), "%s", function);
    failure.error = error;
    failure.times = times;
    ReleaseSRWLockExclusive(&lock);
}

/* The network stack sends a frame; 0 if nobody has the cable plugged in, too many wait, or a TUN has no use for it;
   2 if the driver has answered by itself. */
EXPORT int FakeTapInject(int number, const BYTE *bytes, DWORD size) {
    AcquireSRWLockExclusive(&lock);
    Device *device = &devices[number];
    int is_plugged = device->is_open && is_ready(device);
    int header = is_plugged && device->is_tun ? header_of(device, bytes, size) : 0;
    int is_taken = is_plugged && header >= 0 && push(&device->to_user, bytes + header, size - (DWORD) header);
    if (is_taken) serve_read(device);
    ReleaseSRWLockExclusive(&lock);
    return header == -2 ? 2 : is_taken;
}

/* Something gets among the packets of a TUN that is none, as a frame while it was configured. */
EXPORT void FakeTapSlip(int number, const void *bytes, DWORD size) {
    AcquireSRWLockExclusive(&lock);
    push(&devices[number].to_user, bytes, size);
    serve_read(&devices[number]);
    ReleaseSRWLockExclusive(&lock);
}

/* How many milliseconds Windows takes for an address by DHCP; -1: for ever. */
EXPORT void FakeTapLeaseDelay(int milliseconds) {
    AcquireSRWLockExclusive(&lock);
    lease_delay = milliseconds;
    ReleaseSRWLockExclusive(&lock);
}

/* The next frame that the network stack received; its size, or -1. */
EXPORT int FakeTapTake(int number, void *bytes) {
    int size = -1;
    AcquireSRWLockExclusive(&lock);
    Queue *queue = &devices[number].from_user;
    if (queue->count) {
        Frame frame = pop(queue);
        size = (int) frame.size;
        memcpy(bytes, frame.bytes, frame.size);
        release(frame.bytes);
    }
    ReleaseSRWLockExclusive(&lock);
    return size;
}

/* A write that was kept is complete; 0 if none was. */
EXPORT int FakeTapComplete(int number, DWORD error) {
    AcquireSRWLockExclusive(&lock);
    int was_kept = devices[number].write.overlapped != NULL;
    end_write(&devices[number], error);
    ReleaseSRWLockExclusive(&lock);
    return was_kept;
}

/* The read under way is complete, with an error. */
EXPORT int FakeTapAbort(int number) {
    AcquireSRWLockExclusive(&lock);
    Device *device = &devices[number];
    int was_kept = device->read.overlapped != NULL;
    cancel_read(device);
    if (device->is_closing && device->write.overlapped == NULL) device->is_open = device->is_closing = 0;
    ReleaseSRWLockExclusive(&lock);
    return was_kept;
}

/* Somebody disables the device, enables it again, or takes it away; has it open, or closes it. */
EXPORT void FakeTapDo(int number, const char *what) {
    AcquireSRWLockExclusive(&lock);
    Device *device = &devices[number];
    if (strcmp(what, "disable") == 0) halt(device);
    else if (strcmp(what, "enable") == 0) start(device);
    else if (strcmp(what, "remove") == 0) vanish(device);
    else if (strcmp(what, "open") == 0) device->is_open = 1;
    else if (strcmp(what, "close") == 0) device->is_open = 0;
    ReleaseSRWLockExclusive(&lock);
}

typedef struct {
    int is_present, is_open, media, starts, reads, writes, is_tun, plays_dhcp, options_size;
    ULONG64 luid;
    WCHAR name[64], id[64];
    BYTE mac[6], neighbour[6], tun[3][4], lease[4][4], options[256];
} State;

EXPORT void FakeTapState(int number, State *state) {
    AcquireSRWLockExclusive(&lock);
    const Device *device = &devices[number];
    *state = (State) {
        device->is_present, device->is_open, device->media, device->starts, device->read.overlapped != NULL,
        device->write.overlapped != NULL, device->is_tun, device->plays_dhcp, device->options_size, device->luid,
        {0}, {0}, {0}, {0}, {{0}}, {{0}}, {0}};
    wcscpy(state->name, device->name);
    wcscpy(state->id, device->id);
    memcpy(state->mac, device->mac, 6);
    neighbour_of(device, state->neighbour);
    memcpy(state->tun, device->tun, sizeof(state->tun));
    memcpy(state->lease, device->lease, sizeof(state->lease));
    memcpy(state->options, device->options, sizeof(state->options));
    ReleaseSRWLockExclusive(&lock);
}

EXPORT void FakeTapCalls(char *text, size_t capacity) {
    AcquireSRWLockExclusive(&lock);
    snprintf(text, capacity, "%s", journal);
    journal_size = 0;
    journal[0] = 0;
    ReleaseSRWLockExclusive(&lock);
}

/* How often the rules were broken, and how at first. */
EXPORT int FakeTapFaults(char *text, size_t capacity) {
    AcquireSRWLockExclusive(&lock);
    snprintf(text, capacity, "%s", fault);
    int count = faults;
    ReleaseSRWLockExclusive(&lock);
    return count;
}

/* Begin anew; how many files, sets, keys and operations were left. */
EXPORT int FakeTapReset(void) {
    AcquireSRWLockExclusive(&lock);
    int left = open_keys;
    for (int i = 0; i < SETS; i++) left += sets[i].is_open;
    for (int i = 0; i < DEVICES; i++) {
        Device *device = &devices[i];
        left += device->is_open + (device->read.overlapped != NULL) + (device->write.overlapped != NULL);
        if (device->read.overlapped != NULL) cancel_read(device);
        if (device->write.overlapped != NULL) end_write(device, ERROR_OPERATION_ABORTED);
        drain(&device->to_user);
        drain(&device->from_user);
    }
    memset(devices, 0, sizeof(devices));
    memset(sets, 0, sizeof(sets));
    open_keys = made_count = is_held = is_stubborn = is_synchronous = is_slow = 0;
    next_id_delay = next_luid_delay = next_open_delay = 0;
    lease_delay = 100;
    faults = failure.times = 0;
    fault[0] = 0;
    journal_size = 0;
    journal[0] = 0;
    ReleaseSRWLockExclusive(&lock);
    return left;
}
