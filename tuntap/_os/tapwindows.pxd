"""A TAP by the driver tap-windows6, or a TUN (inline).

Each direction has one operation under way at most, in a buffer of its own that the driver owns until it is
complete.  The driver holds one open file for each adapter, and forgets how it was configured when that is closed.
"""
from libc.errno cimport EINVAL, ENETDOWN, ENODEV, ENOMEM
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tuntap._os.adapters cimport *
from tuntap._os.iphelper cimport HKEY, REG_SZ, RegCloseKey, RegSetValueExW
from tuntap._os.native cimport (
    Handle, LAYER_TAP, Lease, PATH_CONTROL, PATH_RECV, PATH_SEND, SlotView, slot_at, slot_fill, slot_length,
)
from tuntap._os.win32 cimport *
from tuntap._os.wintun cimport is_ip

cdef extern from *:
    """
    #include <winioctl.h>
    #include <setupapi.h>

    /* From the driver's interface, tap-windows.h. */
    #define TUNTAP_TAP(number) CTL_CODE(FILE_DEVICE_UNKNOWN, number, METHOD_BUFFERED, FILE_ANY_ACCESS)
    #define TUNTAP_TAP_GET_VERSION TUNTAP_TAP(2)
    #define TUNTAP_TAP_SET_MEDIA_STATUS TUNTAP_TAP(6)
    #define TUNTAP_TAP_CONFIG_DHCP_MASQ TUNTAP_TAP(7)
    #define TUNTAP_TAP_CONFIG_DHCP_SET_OPT TUNTAP_TAP(9)
    #define TUNTAP_TAP_CONFIG_TUN TUNTAP_TAP(10)

    /* In a TUN: fe80::8, the one IPv6 neighbour for whom the driver answers; packets for it are ours as any others. */
    static const unsigned char tuntap_tap_neighbour[16] = {0xfe, 0x80, [15] = 8};

    /* Another MAC address, from the next start of the device on: in the driver's own value, as it does not look at the
       NetworkAddress of other network cards. */
    static LONG tuntap_write_mac(HDEVINFO set, SP_DEVINFO_DATA *device, const WCHAR *digits) {
        LONG code;
        HKEY key = SetupDiOpenDevRegKey(set, device, DICS_FLAG_GLOBAL, 0, DIREG_DRV, KEY_SET_VALUE);
        if (key == (HKEY) INVALID_HANDLE_VALUE) return (LONG) GetLastError();
        code = RegSetValueExW(
            key, L"MAC", 0, REG_SZ, (const BYTE *) digits, (DWORD) ((wcslen(digits) + 1) * sizeof(WCHAR)));
        RegCloseKey(key);
        return code;
    }

    static BOOL tuntap_change_state(HDEVINFO set, SP_DEVINFO_DATA *device, DWORD state) {
        SP_PROPCHANGE_PARAMS change;
        memset(&change, 0, sizeof(change));
        change.ClassInstallHeader.cbSize = sizeof(SP_CLASSINSTALL_HEADER);
        change.ClassInstallHeader.InstallFunction = DIF_PROPERTYCHANGE;
        change.StateChange = state;
        change.Scope = DICS_FLAG_GLOBAL;
        return SetupDiSetClassInstallParamsW(set, device, &change.ClassInstallHeader, sizeof(change))
            && SetupDiCallClassInstaller(DIF_PROPERTYCHANGE, set, device);
    }

    static BOOL tuntap_remove_device(HDEVINFO set, SP_DEVINFO_DATA *device) {
        SP_REMOVEDEVICE_PARAMS removal;
        memset(&removal, 0, sizeof(removal));
        removal.ClassInstallHeader.cbSize = sizeof(SP_CLASSINSTALL_HEADER);
        removal.ClassInstallHeader.InstallFunction = DIF_REMOVE;
        removal.Scope = DI_REMOVEDEVICE_GLOBAL;
        return SetupDiSetClassInstallParamsW(set, device, &removal.ClassInstallHeader, sizeof(removal))
            && SetupDiCallClassInstaller(DIF_REMOVE, set, device);
    }

    /* A new device with the driver that Windows has for this hardware id; 0, or what Windows says. */
    static DWORD tuntap_create_device(WCHAR *id, ULONG64 *luid) {
        static const WCHAR hardware[] = L"root\\\\tap0901\\0";
        WCHAR kind[32];
        SP_DEVINFO_DATA device;
        DWORD code = ERROR_SUCCESS;
        HDEVINFO set = SetupDiCreateDeviceInfoList(&GUID_DEVCLASS_NET, NULL);
        if (set == INVALID_HANDLE_VALUE) return GetLastError();
        memset(&device, 0, sizeof(device));
        device.cbSize = sizeof(device);
        if (!SetupDiClassNameFromGuidW(&GUID_DEVCLASS_NET, kind, 32, NULL)
            || !SetupDiCreateDeviceInfoW(
                set, kind, &GUID_DEVCLASS_NET, L"tap0901", NULL, DICD_GENERATE_ID, &device)
            || !SetupDiSetSelectedDevice(set, &device)
            || !SetupDiSetDeviceRegistryPropertyW(
                set, &device, SPDRP_HARDWAREID, (const BYTE *) hardware, sizeof(hardware))
            || !SetupDiBuildDriverInfoList(set, &device, SPDIT_COMPATDRIVER)) {
            code = GetLastError();
        } else {
            if (!SetupDiCallClassInstaller(DIF_SELECTBESTCOMPATDRV, set, &device)
                || !SetupDiCallClassInstaller(DIF_REGISTERDEVICE, set, &device))
                code = GetLastError();
            else if (!SetupDiCallClassInstaller(DIF_INSTALLDEVICE, set, &device)) {
                code = GetLastError();
                tuntap_remove_device(set, &device);
            } else {
                /* The interface comes a moment later. */
                for (int waited = 0;
                     !tuntap_interface_id(set, &device, id) || !tuntap_luid_of_id(id, luid); waited += 50) {
                    if (waited >= 5000) {
                        code = ERROR_TIMEOUT;
                        tuntap_remove_device(set, &device);
                        break;
                    }
                    Sleep(50);
                }
            }
            SetupDiDestroyDriverInfoList(set, &device, SPDIT_COMPATDRIVER);
        }
        SetupDiDestroyDeviceInfoList(set);
        return code;
    }
    """
    DWORD TAP_GET_VERSION "TUNTAP_TAP_GET_VERSION"
    DWORD TAP_SET_MEDIA_STATUS "TUNTAP_TAP_SET_MEDIA_STATUS"
    DWORD TAP_CONFIG_DHCP_MASQ "TUNTAP_TAP_CONFIG_DHCP_MASQ"
    DWORD TAP_CONFIG_DHCP_SET_OPT "TUNTAP_TAP_CONFIG_DHCP_SET_OPT"
    DWORD TAP_CONFIG_TUN "TUNTAP_TAP_CONFIG_TUN"
    const uint8_t DRIVER_NEIGHBOUR "tuntap_tap_neighbour"[16]
    LONG write_mac "tuntap_write_mac"(HDEVINFO set, SP_DEVINFO_DATA *device, const WCHAR *digits) nogil
    BOOL change_state "tuntap_change_state"(HDEVINFO set, SP_DEVINFO_DATA *device, DWORD state) nogil
    BOOL remove_device "tuntap_remove_device"(HDEVINFO set, SP_DEVINFO_DATA *device) nogil
    DWORD create_device "tuntap_create_device"(WCHAR *id, uint64_t *luid) nogil
    DWORD DICS_ENABLE
    DWORD DICS_DISABLE

cdef extern from "<windows.h>" nogil:
    ctypedef struct OVERLAPPED:
        HANDLE hEvent
    DWORD GENERIC_READ
    DWORD GENERIC_WRITE
    DWORD OPEN_EXISTING
    DWORD FILE_ATTRIBUTE_SYSTEM
    DWORD FILE_FLAG_OVERLAPPED
    HANDLE CreateFileW(
        const WCHAR *name, DWORD access, DWORD share, void *security, DWORD how, DWORD flags, HANDLE template)
    BOOL DeviceIoControl(
        HANDLE file, DWORD code, void *given, DWORD given_size, void *answer, DWORD answer_size, DWORD *size,
        OVERLAPPED *operation)
    BOOL ReadFile(HANDLE file, void *memory, DWORD size, DWORD *done, OVERLAPPED *operation)
    BOOL WriteFile(HANDLE file, const void *memory, DWORD size, DWORD *done, OVERLAPPED *operation)
    BOOL GetOverlappedResult(HANDLE file, OVERLAPPED *operation, DWORD *size, BOOL wait)
    BOOL CancelIoEx(HANDLE file, OVERLAPPED *operation)

cdef enum:
    FRAME_SIZE = 65536 + 18   # the largest frame, and more
    HEADER_SIZE = 14          # the smallest frame: the driver refuses less
    PATH_OF_TAP = 128         # of UTF-16
    CLOSE_PATIENCE = 2000     # milliseconds for the driver to give a buffer back
    OPEN_WAIT = 5000          # milliseconds until a device that starts can be opened
    LEASE_SIZE = 16
    OPTIONS_SIZE = 256        # of DHCP, that the driver keeps

# One direction.
cdef struct Operation:
    SRWLOCK lock
    OVERLAPPED overlapped
    uint8_t *frame
    bint is_pending           # the driver has the buffer

# A TAP while it is open.  Its file and whether it is up change under both locks.
cdef struct TapAdapter:
    HANDLE file               # NULL while it is closed
    Operation recv
    Operation send
    bint is_up
    bint is_tun               # the driver takes the Ethernet header off, and puts one on
    bint has_lease
    uint8_t lease[LEASE_SIZE]     # our address, its mask, the server, all as on the wire; seconds, as in the host
    uint8_t options[OPTIONS_SIZE]
    int options_size
    int64_t version


cdef inline int tap_control(
    Handle *handle, TapAdapter *tap, DWORD code, const char *call, void *memory, DWORD size,
) noexcept nogil:
    """A request of the driver; the answer comes where the question was."""
    cdef OVERLAPPED operation
    cdef DWORD done = 0
    cdef int result = 0
    memset(&operation, 0, sizeof(OVERLAPPED))
    operation.hEvent = CreateEventW(NULL, True, False, NULL)
    if operation.hEvent == NULL:
        return win_fail(handle, PATH_CONTROL, b"CreateEvent")
    if not DeviceIoControl(tap.file, code, memory, size, memory, size, &done, &operation):
        if GetLastError() != ERROR_IO_PENDING or not GetOverlappedResult(tap.file, &operation, &done, True):
            result = win_fail(handle, PATH_CONTROL, call)
    CloseHandle(operation.hEvent)
    return result


cdef inline int tap_begin_recv(TapAdapter *tap) noexcept nogil:
    """Have the driver fill the buffer; its event is set when it has, or has refused.  0, or what Windows says."""
    cdef Operation *recv = &tap.recv
    cdef DWORD code
    if recv.is_pending:
        return 0
    recv.is_pending = True
    if ReadFile(tap.file, recv.frame, FRAME_SIZE, NULL, &recv.overlapped):
        return 0                      # complete, which the event says as well
    code = GetLastError()
    if code == ERROR_IO_PENDING or code == ERROR_MORE_DATA:
        return 0
    recv.is_pending = False
    return <int> code


cdef inline void tap_lock(TapAdapter *tap) noexcept nogil:
    AcquireSRWLockExclusive(&tap.recv.lock)
    AcquireSRWLockExclusive(&tap.send.lock)


cdef inline void tap_unlock(TapAdapter *tap) noexcept nogil:
    ReleaseSRWLockExclusive(&tap.send.lock)
    ReleaseSRWLockExclusive(&tap.recv.lock)


cdef inline int tap_keep_lease(Handle *handle, TapAdapter *tap, const Lease *lease) noexcept nogil:
    cdef int i
    if not 0 <= lease.options_size <= <int> OPTIONS_SIZE:
        handle.failed[PATH_CONTROL] = b"DHCP options"
        return -EINVAL
    for i in range(4):
        tap.lease[i] = lease.ip[i]
        tap.lease[4 + i] = <uint8_t> (0xff00 >> max(0, min(8, lease.prefix - 8 * i)))
        tap.lease[8 + i] = lease.server[i]
    memcpy(&tap.lease[12], &lease.seconds, 4)
    memcpy(tap.options, lease.options, <size_t> lease.options_size)
    tap.options_size = lease.options_size
    tap.has_lease = True
    return 0


cdef inline int tap_lend(Handle *handle, TapAdapter *tap) noexcept nogil:
    """Have the driver answer when Windows asks by DHCP, as it does when the cable comes in."""
    cdef uint8_t question[OPTIONS_SIZE]
    cdef int result
    memcpy(question, tap.lease, LEASE_SIZE)
    result = tap_control(
        handle, tap, TAP_CONFIG_DHCP_MASQ, b"DeviceIoControl(TAP_WIN_IOCTL_CONFIG_DHCP_MASQ)", question, LEASE_SIZE)
    if result == 0 and tap.options_size:             # which the driver forgets with each lease
        memcpy(question, tap.options, <size_t> tap.options_size)
        result = tap_control(
            handle, tap, TAP_CONFIG_DHCP_SET_OPT, b"DeviceIoControl(TAP_WIN_IOCTL_CONFIG_DHCP_SET_OPT)", question,
            <DWORD> tap.options_size)
    return result


cdef inline int tap_set_media(Handle *handle, TapAdapter *tap, int is_up) noexcept nogil:
    """Plug or pull the cable: without it reads and writes are refused."""
    cdef uint32_t status = is_up != 0
    cdef int result = 0
    tap_lock(tap)
    if is_up and tap.has_lease:
        result = tap_lend(handle, tap)
    if result == 0:
        result = tap_control(
            handle, tap, TAP_SET_MEDIA_STATUS, b"DeviceIoControl(TAP_WIN_IOCTL_SET_MEDIA_STATUS)", &status, 4)
    if result == 0:
        tap.is_up = is_up != 0
        if is_up:
            tap_begin_recv(tap)
    tap_unlock(tap)
    return result


cdef inline int tap_set_tun(Handle *handle, TapAdapter *tap, const uint8_t *local) noexcept nogil:
    """Packets without Ethernet headers.  `local` is our IPv4 address, or NULL.

    The driver answers ARP itself, where we ask for somebody of a network: of any, so that every route on the link leads
    through it.  Without an address it must answer nobody, as who looks for a duplicate asks from 0.0.0.0, too.
    """
    cdef uint8_t question[12]                        # our address, the network, its mask
    cdef int result
    memset(question, 0, 12)
    if local != NULL:
        memcpy(question, local, 4)
    else:
        memset(question + 4, 0xff, 8)
    tap_lock(tap)
    result = tap_control(
        handle, tap, TAP_CONFIG_TUN, b"DeviceIoControl(TAP_WIN_IOCTL_CONFIG_TUN)", question, 12)
    tap_unlock(tap)
    return result


cdef inline bint operation_init(Operation *operation) noexcept nogil:
    InitializeSRWLock(&operation.lock)
    operation.frame = <uint8_t *> malloc(FRAME_SIZE)
    operation.overlapped.hEvent = CreateEventW(NULL, True, False, NULL)
    return operation.frame != NULL and operation.overlapped.hEvent != NULL


cdef inline bint is_complete(Operation *operation) noexcept nogil:
    return WaitForSingleObject(operation.overlapped.hEvent, 0) == WAIT_OBJECT_0


cdef inline void operation_stop(TapAdapter *tap, Operation *operation) noexcept nogil:
    """Have the driver give the buffer back; the lock is held, or nobody else is left."""
    cdef DWORD size
    if operation.is_pending:
        CancelIoEx(tap.file, &operation.overlapped)
        if WaitForSingleObject(operation.overlapped.hEvent, CLOSE_PATIENCE) == WAIT_OBJECT_0:
            GetOverlappedResult(tap.file, &operation.overlapped, &size, False)
            ResetEvent(operation.overlapped.hEvent)
            operation.is_pending = False


cdef inline bint operation_free(Operation *operation) noexcept nogil:
    """False if the driver keeps the buffer: rather lost than written to."""
    if operation.is_pending and not is_complete(operation):
        return False
    free(operation.frame)
    if operation.overlapped.hEvent != NULL:
        CloseHandle(operation.overlapped.hEvent)
    return True


cdef inline int tap_init(Handle *handle, TapAdapter *tap) noexcept nogil:
    cdef bint has_recv = operation_init(&tap.recv)
    cdef bint has_send = operation_init(&tap.send)
    handle.failed[PATH_CONTROL] = b"malloc"
    return 0 if has_recv and has_send else -ENOMEM


cdef inline void tap_shut(TapAdapter *tap) noexcept nogil:
    """Close the file; the locks are held, or nobody else is left."""
    cdef uint32_t status = 0
    cdef Handle unused
    if tap.file == NULL:
        return
    if tap.is_up:
        tap_control(&unused, tap, TAP_SET_MEDIA_STATUS, b"", &status, 4)
        tap.is_up = False
    operation_stop(tap, &tap.recv)
    operation_stop(tap, &tap.send)
    CloseHandle(tap.file)
    tap.file = NULL


cdef inline bint tap_close(TapAdapter *tap) noexcept nogil:
    """Nobody receives, sends or waits any more.  False if the driver keeps a buffer: `tap` must not be freed."""
    cdef bint is_recv_free
    cdef bint is_send_free
    tap_shut(tap)
    is_recv_free = operation_free(&tap.recv)
    is_send_free = operation_free(&tap.send)
    return is_recv_free and is_send_free


cdef inline int tap_open(Handle *handle, TapAdapter *tap, const Adapter *adapter) noexcept nogil:
    cdef WCHAR path[PATH_OF_TAP]
    cdef char id[ID_SIZE]
    cdef char text[PATH_OF_TAP]
    cdef uint32_t version[3]
    cdef HANDLE file
    cdef int result
    from_wide(adapter.id, id, ID_SIZE)
    snprintf(text, PATH_OF_TAP, b"\\\\.\\Global\\%s.tap", id)
    to_wide(text, path, PATH_OF_TAP)
    file = CreateFileW(
        path, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_SYSTEM | FILE_FLAG_OVERLAPPED, NULL)
    if file == INVALID_HANDLE_VALUE:
        return win_fail(handle, PATH_CONTROL, b"CreateFile(.tap)")
    tap.file = file
    memset(version, 0, sizeof(version))
    result = tap_control(
        handle, tap, TAP_GET_VERSION, b"DeviceIoControl(TAP_WIN_IOCTL_GET_VERSION)", version, sizeof(version))
    tap.version = <int64_t> version[0] << 16 | version[1]
    return result


# --- frames ---

cdef inline int finish(TapAdapter *tap, Operation *operation, DWORD *size) noexcept nogil:
    """What became of an operation that is complete: 0, or what Windows says."""
    cdef DWORD code = ERROR_SUCCESS
    size[0] = 0
    if not GetOverlappedResult(tap.file, &operation.overlapped, size, False):
        code = GetLastError()
    operation.is_pending = False
    ResetEvent(operation.overlapped.hEvent)
    return <int> code


cdef inline int tap_recv(
    Handle *handle, TapAdapter *tap, SlotView *slots, int start, int stop, int *error,
) noexcept nogil:
    """os_recv."""
    cdef Operation *recv = &tap.recv
    cdef int slot = start
    cdef int code = 0
    cdef bint is_again = False
    cdef DWORD size
    AcquireSRWLockExclusive(&recv.lock)
    while slot < stop and tap.file != NULL:
        if not recv.is_pending:
            if not tap.is_up:
                break
            code = tap_begin_recv(tap)
            if code:
                break
        if not is_complete(recv):
            break
        code = finish(tap, recv, &size)
        if code and not tap.is_up:
            code = 0                  # the cable was pulled
            continue
        if code == <int> ERROR_OPERATION_ABORTED and not is_again:
            is_again = True           # cancelled before the device was opened anew, or the device has gone
            continue
        if code and code != <int> ERROR_MORE_DATA:
            break
        code = 0
        if size and (not tap.is_tun or is_ip(recv.frame, <int32_t> size)):     # a frame while that was configured
            memcpy(slots.data + slot * slots.stride, recv.frame, min(<size_t> size, <size_t> slots.slot_size))
            slot_fill(slots, slot, <intptr_t> size)
            slot += 1
    if code == 0 and tap.is_up:
        code = tap_begin_recv(tap)    # the driver fills the buffer while nobody receives, and says so
    ReleaseSRWLockExclusive(&recv.lock)
    error[0] = -win_result(handle, PATH_RECV, b"ReadFile", <DWORD> code)
    return slot - start


cdef inline bint tap_takes(const TapAdapter *tap, const uint8_t *packet, int32_t size) noexcept nogil:
    if tap.is_tun:
        return is_ip(packet, size)    # by its version the driver chooses the header
    return <int32_t> HEADER_SIZE <= size <= <int32_t> FRAME_SIZE


cdef inline int tap_send(
    Handle *handle, TapAdapter *tap, SlotView *slots, int start, int stop, int *error,
) noexcept nogil:
    """os_send; one frame after the other, so that they keep their order."""
    cdef Operation *send = &tap.send
    cdef int slot = start
    cdef int code = 0
    cdef int32_t length
    cdef DWORD size
    error[0] = 0
    AcquireSRWLockExclusive(&send.lock)
    while slot < stop:
        if not tap.is_up:
            handle.failed[PATH_SEND] = b"send"
            error[0] = ENETDOWN
            break
        if send.is_pending:
            if not is_complete(send):
                break
            code = finish(tap, send, &size)
            if code:
                break                 # what was sent before did not go
        length = slot_length(slots, slot)
        if length > slots.slot_size or not tap_takes(tap, slot_at(slots, slot), length):
            handle.failed[PATH_SEND] = b"send"
            error[0] = EINVAL
            break
        memcpy(send.frame, slot_at(slots, slot), <size_t> length)
        send.is_pending = True
        if not WriteFile(tap.file, send.frame, <DWORD> length, NULL, &send.overlapped):
            code = <int> GetLastError()
            if code != <int> ERROR_IO_PENDING:
                send.is_pending = False
                break
            code = 0
        slot += 1
    ReleaseSRWLockExclusive(&send.lock)
    if code:
        error[0] = -win_result(handle, PATH_SEND, b"WriteFile", <DWORD> code)
    return slot - start


cdef inline HANDLE tap_readable_event(TapAdapter *tap) noexcept nogil:
    return tap.recv.overlapped.hEvent


cdef inline HANDLE tap_writable_event(TapAdapter *tap) noexcept nogil:
    """NULL while the cable is out: the event stays set after the last frame."""
    return tap.send.overlapped.hEvent if tap.is_up else NULL


cdef inline bint tap_is_readable(TapAdapter *tap) noexcept nogil:
    """Whether a frame is there, or an error: a read that the driver has refused is not under way."""
    return is_complete(&tap.recv) if tap.recv.is_pending else tap.is_up


cdef inline bint tap_is_writable(TapAdapter *tap) noexcept nogil:
    return tap.is_up and (not tap.send.is_pending or is_complete(&tap.send))


# --- devices ---

cdef inline int tap_find(Handle *handle, TapAdapter *tap, uint64_t luid, Adapter *found) noexcept nogil:
    """Open this TAP, or with 0 the first that nobody has open; -ENODEV if there is none."""
    cdef Adapters adapters
    cdef Adapter adapter
    cdef int result = adapters_begin(handle, &adapters)
    if result < 0:
        return result
    result = -ENODEV
    while adapters_next(&adapters, &adapter):
        if adapter.layer != LAYER_TAP or luid and adapter.luid != luid:
            continue
        result = tap_open(handle, tap, &adapter)
        if result == 0 or luid:
            found[0] = adapter
            break
        tap_shut(tap)                 # somebody else has it
        result = -ENODEV
    adapters_end(&adapters)
    return result


cdef inline int tap_create(Handle *handle, TapAdapter *tap, Adapter *made) noexcept nogil:
    """A new TAP, of whatever name Windows gives it, open."""
    cdef int waited = 0
    cdef const char *failed
    cdef int result
    made.layer = LAYER_TAP
    result = win_result(
        handle, PATH_CONTROL, b"SetupDiCallClassInstaller(DIF_INSTALLDEVICE)", create_device(made.id, &made.luid))
    if result < 0:
        return result
    while True:
        result = tap_open(handle, tap, made)
        if result == 0:
            return 0
        tap_shut(tap)
        if waited >= OPEN_WAIT:
            break
        Sleep(50)
        waited += 50
    failed = handle.failed[PATH_CONTROL]
    tap_delete(handle, made.luid)
    handle.failed[PATH_CONTROL] = failed
    return result


cdef inline int tap_delete(Handle *handle, uint64_t luid) noexcept nogil:
    """Remove this device, and no other."""
    cdef Adapters adapters
    cdef Adapter adapter
    cdef int result = adapters_begin(handle, &adapters)
    if result < 0:
        return result
    result = -ENODEV
    handle.failed[PATH_CONTROL] = b"SetupDiEnumDeviceInfo"
    while result == -ENODEV and adapters_next(&adapters, &adapter):
        if adapter.layer == LAYER_TAP and adapter.luid == luid:
            result = 0
            if not remove_device(adapters.set, &adapters.device):
                result = win_fail(handle, PATH_CONTROL, b"SetupDiCallClassInstaller(DIF_REMOVE)")
    adapters_end(&adapters)
    return result


cdef inline int tap_set_mac(Handle *handle, TapAdapter *tap, uint64_t luid, const uint8_t *mac) noexcept nogil:
    """The driver takes another MAC address when its device starts: it is stopped, started, and opened again."""
    cdef Adapters adapters
    cdef Adapter adapter
    cdef WCHAR wide[13]
    cdef char digits[13]
    cdef bint was_open = tap.file != NULL
    cdef bint was_up = tap.is_up
    cdef int waited = 0
    cdef int result = adapters_begin(handle, &adapters)
    if result < 0:
        return result
    snprintf(digits, 13, b"%02X%02X%02X%02X%02X%02X", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
    to_wide(digits, wide, 13)
    result = -ENODEV
    handle.failed[PATH_CONTROL] = b"SetupDiEnumDeviceInfo"
    while result == -ENODEV and adapters_next(&adapters, &adapter):
        if adapter.layer != LAYER_TAP or adapter.luid != luid:
            continue
        result = win_result(
            handle, PATH_CONTROL, b"RegSetValue(MAC)",
            <DWORD> write_mac(adapters.set, &adapters.device, wide))
        if result < 0:
            break
        tap_lock(tap)
        tap_shut(tap)
        if change_state(adapters.set, &adapters.device, DICS_DISABLE) and change_state(
            adapters.set, &adapters.device, DICS_ENABLE,
        ):
            result = tap_open(handle, tap, &adapter) if was_open else 0
            while result < 0 and waited < OPEN_WAIT:
                tap_shut(tap)
                Sleep(50)
                waited += 50
                result = tap_open(handle, tap, &adapter)
        else:
            result = win_fail(handle, PATH_CONTROL, b"SetupDiCallClassInstaller(DIF_PROPERTYCHANGE)")
        tap_unlock(tap)
        if result == 0 and was_up:
            result = tap_set_media(handle, tap, 1)
        break
    adapters_end(&adapters)
    return result
