"""Windows: a TUN by Wintun, a TAP (and a TUN, if asked for) by tap-windows6, all configured by IP Helper.

A wait lasts SLICE at most, and then looks again: Wintun up to 0.14.1 may miss to wake a reader, a Ctrl-C wakes
nobody, and a TUN that comes up has another event.
"""
from libc.errno cimport EBADF, EEXIST, EINTR, EINVAL, EMSGSIZE, ENETDOWN, ENODEV, ENOMEM, EOPNOTSUPP
from libc.stdint cimport int64_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strcmp, strlen, strncmp, strstr

from tuntap._os.adapters cimport *
from tuntap._os.iphelper cimport *
from tuntap._os.native cimport *
from tuntap._os.tapwindows cimport *
from tuntap._os.win32 cimport *
from tuntap._os.wintun cimport *

cdef extern from "<windows.h>" nogil:
    ctypedef struct FILETIME:
        DWORD dwLowDateTime
        DWORD dwHighDateTime
    ctypedef struct TP_WAIT:
        pass
    ctypedef struct TP_CALLBACK_INSTANCE:
        pass
    ctypedef TP_WAIT *PTP_WAIT
    ctypedef TP_CALLBACK_INSTANCE *PTP_CALLBACK_INSTANCE
    ctypedef DWORD TP_WAIT_RESULT
    DWORD FORMAT_MESSAGE_FROM_SYSTEM
    DWORD FORMAT_MESSAGE_IGNORE_INSERTS
    DWORD FormatMessageW(
        DWORD flags, const void *source, DWORD code, DWORD language, WCHAR *text, DWORD size, void *arguments)
    PTP_WAIT CreateThreadpoolWait(
        void (__stdcall *callback)(PTP_CALLBACK_INSTANCE, void *, PTP_WAIT, TP_WAIT_RESULT) noexcept nogil,
        void *context, void *environment)
    void SetThreadpoolWait(PTP_WAIT wait, HANDLE handle, FILETIME *timeout)
    void WaitForThreadpoolWaitCallbacks(PTP_WAIT wait, BOOL cancel)
    void CloseThreadpoolWait(PTP_WAIT wait)

cdef enum:
    SLICE = 200               # milliseconds
    OPEN_PATIENCE = 5000      # milliseconds for which a name may be taken by an adapter that goes
    UNITS_MAX = 4096          # of a pattern such as "tun%d"
    ADDRESSES_MAX = 64        # of a TUN by tap-windows6, that are looked at
    LEASE_PATIENCE = 5000     # milliseconds for Windows to take the address that it is given by DHCP
    LEASE_SLICE = 20          # milliseconds

# What a handle of this system keeps.
cdef struct State:
    uint64_t luid
    bint by_tap               # the driver is tap-windows6
    Tunnel tunnel
    TapAdapter tap

# An event loop's wait for one path.
cdef struct Notification:
    Handle *handle
    int path
    HANDLE other
    Tell tell
    void *argument
    PTP_WAIT wait
    HANDLE never              # of a wait that only time ends
    SRWLOCK lock
    bint sleeps               # is one of the sleepers of a tunnel
    bint is_over


# --- life ---

cdef State *state_of(Handle *handle) noexcept nogil:
    return <State *> handle.state


cdef int begin(Handle *handle) noexcept nogil:
    """An empty handle that can be woken, and keeps a state."""
    cdef State *state
    handle_clear(handle)
    state = <State *> calloc(1, sizeof(State))
    if state == NULL:
        handle.failed[PATH_CONTROL] = b"calloc"
        return -ENOMEM
    InitializeSRWLock(&state.tunnel.recv_lock)
    InitializeSRWLock(&state.tunnel.send_lock)
    handle.state = state
    return os_rewake(handle)


cdef int os_open(Handle *handle, const OpenRequest *request) noexcept nogil:
    cdef int result = begin(handle)
    if result == 0:
        handle.layer = request.layer
        handle.owned = 1
        if request.layer == LAYER_TAP or request.flags & OPEN_BY_TAP_DRIVER:
            result = open_tap(handle, request)
        else:
            result = open_tunnel(handle, request)
    if result == 0:
        result = prepare_interface(handle, state_of(handle).luid)
    if result == 0 and not handle.created and request.layer == LAYER_TUN:
        result = connect(handle)      # a session is of the opener, not of the adapter
    if result < 0:
        os_close(handle)
    return result


cdef void note_event(Handle *handle) noexcept nogil:
    """What fileno() answers."""
    cdef State *state = state_of(handle)
    cdef HANDLE event = tap_readable_event(&state.tap) if state.by_tap else state.tunnel.readable
    handle.io = <intptr_t> event if event != NULL else -1


cdef void guid_of_name(const char *name, GUID *guid) noexcept nogil:
    """The same for the same name, so that Windows remembers the network: FNV-1a, in the form of RFC 9562, version 8."""
    cdef uint64_t hashes[2]
    cdef uint64_t prime = 0x100000001b3
    cdef uint8_t *bytes_of = <uint8_t *> guid
    cdef size_t i
    hashes[0] = <uint64_t> 0xcbf29ce484222325
    hashes[1] = <uint64_t> 0x84222325cbf29ce4
    for i in range(strlen(name)):
        hashes[0] = (hashes[0] ^ <uint8_t> name[i]) * prime
        hashes[1] = (hashes[1] ^ <uint8_t> name[i] ^ <uint8_t> i) * prime
    memcpy(guid, hashes, sizeof(GUID))
    bytes_of[7] = (bytes_of[7] & 0x0f) | 0x80      # Data3 is little-endian
    bytes_of[8] = (bytes_of[8] & 0x3f) | 0x80


cdef int open_tunnel(Handle *handle, const OpenRequest *request) noexcept nogil:
    global wintun_asks
    cdef Tunnel *tunnel = &state_of(handle).tunnel
    cdef char name[NAME_SIZE]
    cdef WCHAR wide[NAME_SIZE]
    cdef const char *pattern = b"tun%d"
    cdef const char *unit
    cdef uint64_t luid
    cdef int i
    cdef int result = wintun_load(handle, request.libraries)
    if result < 0:
        return result
    if request.name[0]:
        pattern = request.name
    unit = strstr(pattern, b"%d")
    tunnel.capacity = request.ring_capacity if request.ring_capacity else RING_CAPACITY
    if unit == NULL:
        if not to_wide(pattern, wide, NAME_SIZE):
            return invalid_name(handle)
        if not request.flags & OPEN_EXCLUSIVE:
            wintun_asks = True
            tunnel.adapter = WINTUN.OpenAdapter(wide)
            wintun_asks = False
        if tunnel.adapter == NULL:
            result = create_tunnel(handle, request, pattern)
    else:
        for i in range(UNITS_MAX):
            snprintf(name, NAME_SIZE, b"%.*s%d%s", <int> (unit - pattern), pattern, i, unit + 2)
            if luid_of_name(handle, name, &luid) == 0:
                continue
            result = create_tunnel(handle, request, name)
            if result != -EEXIST:
                break
    if result == 0:
        WINTUN.GetAdapterLUID(tunnel.adapter, &state_of(handle).luid)
    return result


cdef int invalid_name(Handle *handle) noexcept nogil:
    handle.failed[PATH_CONTROL] = b"name"
    return -EINVAL


cdef int create_tunnel(Handle *handle, const OpenRequest *request, const char *name) noexcept nogil:
    """A new adapter of just this name; waits for one that goes, as after a close a moment ago."""
    cdef Tunnel *tunnel = &state_of(handle).tunnel
    cdef WCHAR wide[NAME_SIZE]
    cdef WCHAR kind[NAME_SIZE]
    cdef GUID guid
    cdef uint64_t luid
    cdef const char *description = b"tuntap"
    cdef int waited = 0
    cdef int result
    if request.description[0]:
        description = request.description
    if not to_wide(name, wide, NAME_SIZE) or not to_wide(description, kind, NAME_SIZE):
        return invalid_name(handle)
    if request.guid != NULL:
        memcpy(&guid, request.guid, sizeof(GUID))
    else:
        guid_of_name(name, &guid)
    while True:
        result = 0
        if luid_of_name(handle, name, &luid) == 0:
            handle.failed[PATH_CONTROL] = b"WintunCreateAdapter"
            result = -EEXIST
        else:
            tunnel.adapter = WINTUN.CreateAdapter(wide, kind, &guid)
            if tunnel.adapter == NULL:
                result = win_fail(handle, PATH_CONTROL, b"WintunCreateAdapter")
            elif is_called(handle, name):
                handle.created = 1
                return 0
            else:
                # Windows has given one of two interfaces of this name another.
                WINTUN.CloseAdapter(tunnel.adapter)
                tunnel.adapter = NULL
                handle.failed[PATH_CONTROL] = b"WintunCreateAdapter"
                result = -EEXIST
        if not may_pass(result) or waited >= OPEN_PATIENCE:
            return result
        Sleep(50)
        waited += 50


cdef bint may_pass(int result) noexcept nogil:
    """Whether it may be because an adapter has not gone yet."""
    return (
        result == -EEXIST or is_error(result, ERROR_ALREADY_EXISTS) or is_error(result, ERROR_OBJECT_ALREADY_EXISTS)
        or is_error(result, ERROR_BUSY) or is_error(result, ERROR_NOT_READY) or is_error(result, ERROR_DUP_NAME)
        or is_error(result, ERROR_SHARING_VIOLATION) or is_error(result, ERROR_FILE_EXISTS)
    )


cdef bint is_called(Handle *handle, const char *name) noexcept nogil:
    """Whether the new adapter has the name that was asked for, as far as Windows tells."""
    cdef char given[NAME_SIZE]
    cdef uint64_t luid
    WINTUN.GetAdapterLUID(state_of(handle).tunnel.adapter, &luid)
    return name_of_luid(handle, luid, given) < 0 or strcmp(given, name) == 0


cdef int open_tap(Handle *handle, const OpenRequest *request) noexcept nogil:
    """One that is there, by its name or because nobody has it open, or else a new one."""
    cdef State *state = state_of(handle)
    cdef Adapter adapter
    cdef uint64_t luid
    cdef const char *name = request.name
    cdef bint is_pattern = strstr(name, b"%d") != NULL
    cdef int result = tap_init(handle, &state.tap)
    state.by_tap = True
    state.tap.is_tun = request.layer == LAYER_TUN
    if result == 0 and request.lease != NULL:
        result = tap_keep_lease(handle, &state.tap, request.lease)
    if result < 0:
        return result
    result = -ENODEV
    if name[0] and not is_pattern and luid_of_name(handle, name, &luid) == 0:
        if request.flags & OPEN_EXCLUSIVE:
            return -EEXIST
        result = tap_find(handle, &state.tap, luid, &adapter)
        if result == -ENODEV:
            return -EEXIST            # an interface of another kind
    elif not name[0] and not request.flags & OPEN_EXCLUSIVE:
        result = tap_find(handle, &state.tap, 0, &adapter)
    if result == -ENODEV:
        handle.created = 1
        result = tap_create(handle, &state.tap, &adapter)
    if result < 0:
        return result
    state.luid = adapter.luid
    handle.lasts = not handle.created
    note_event(handle)
    return name_tap(handle, name, is_pattern) if handle.created and name[0] else 0


cdef int name_tap(Handle *handle, const char *name, bint is_pattern) noexcept nogil:
    """Give a new TAP its name, or the first of a pattern that is free."""
    cdef char one[NAME_SIZE]
    cdef const char *unit = strstr(name, b"%d")
    cdef uint64_t luid
    cdef int i
    if not is_pattern:
        return set_name(handle, state_of(handle).luid, name)
    for i in range(UNITS_MAX):
        snprintf(one, NAME_SIZE, b"%.*s%d%s", <int> (unit - name), name, i, unit + 2)
        if luid_of_name(handle, one, &luid) < 0:
            return set_name(handle, state_of(handle).luid, one)
    return -EEXIST


cdef int os_open_queue(Handle *handle, Handle *of) noexcept nogil:
    handle_clear(handle)
    return not_here(handle, b"several queues")


cdef int os_adopt(Handle *handle, intptr_t io) noexcept nogil:
    handle_clear(handle)
    return not_here(handle, b"a descriptor of a device")


cdef intptr_t os_find(Handle *handle) noexcept nogil:
    handle_clear(handle)
    return not_here(handle, b"the descriptor of a packet tunnel")


cdef void os_own(Handle *handle) noexcept nogil:
    handle.owned = 1


cdef int os_inspect(Handle *handle, const char *name) noexcept nogil:
    cdef int result = begin(handle)
    if result == 0:
        result = luid_of_name(handle, name, &state_of(handle).luid)
    if result == 0:
        handle.layer = layer_of_luid(handle, state_of(handle).luid)
        if handle.layer < 0:
            result = handle.layer
            handle.layer = LAYER_UNKNOWN
        state_of(handle).by_tap = handle.layer == LAYER_TAP
    if result < 0:
        os_close(handle)
    return result


cdef void os_close(Handle *handle) noexcept nogil:
    cdef State *state = state_of(handle)
    cdef HANDLE wake = <HANDLE> handle.wake[0]
    handle.io = handle.wake[0] = -1
    handle.state = NULL
    if state != NULL:
        tunnel_close(&state.tunnel)
        if tap_close(&state.tap):
            if state.by_tap and state.luid and handle.owned and not handle.lasts:
                tap_delete(handle, state.luid)
            free(state)
    if wake != INVALID_HANDLE_VALUE:
        CloseHandle(wake)


cdef int not_here(Handle *handle, const char *what) noexcept nogil:
    handle.failed[PATH_CONTROL] = what
    return -EOPNOTSUPP


# --- packets ---

cdef int os_recv(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    cdef State *state = state_of(handle)
    if state.by_tap:
        return tap_recv(handle, &state.tap, slots, start, stop, error)
    return tunnel_recv(handle, &state.tunnel, slots, start, stop, error)


cdef int os_send(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    cdef State *state = state_of(handle)
    if state.by_tap:
        return tap_send(handle, &state.tap, slots, start, stop, error)
    return tunnel_send(handle, &state.tunnel, slots, start, stop, error)


cdef intptr_t os_recv_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    handle.failed[PATH_RECV] = b"receive"
    return -EOPNOTSUPP


cdef intptr_t os_send_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    handle.failed[PATH_SEND] = b"send"
    return -EOPNOTSUPP


# --- waiting ---

cdef bint look(Handle *handle, int path, HANDLE *event, int *patience) noexcept nogil:
    """Whether a path is ready or broken; else the event to wait on, or NULL, and for how many milliseconds at most.

    A tunnel's event has to be given back to tunnel_wakes.
    """
    cdef State *state = state_of(handle)
    cdef bint is_ready = False
    cdef int busy
    event[0] = NULL
    patience[0] = SLICE
    if path == PATH_CONTROL or state == NULL:
        return False
    if state.by_tap:
        if path == PATH_RECV:
            event[0] = tap_readable_event(&state.tap)
            return tap_is_readable(&state.tap)
        event[0] = tap_writable_event(&state.tap)
        return tap_is_writable(&state.tap)
    if path == PATH_RECV:
        event[0] = tunnel_sleep(&state.tunnel, &is_ready)
        return is_ready
    busy = tunnel_busy(&state.tunnel)
    if busy > 0:
        patience[0] = min(busy, SLICE)
    return busy == 0


cdef void look_away(Handle *handle, int path) noexcept nogil:
    """The wait that `look` advised is over."""
    cdef State *state = state_of(handle)
    if path == PATH_RECV and state != NULL and not state.by_tap:
        tunnel_wakes(&state.tunnel)


cdef int os_wait(Handle *handle, int path, intptr_t other, int64_t timeout_ns) noexcept nogil:
    cdef HANDLE handles[3]
    cdef HANDLE event
    cdef int patience
    cdef DWORD count = 0
    cdef DWORD outcome
    cdef int64_t milliseconds
    if look(handle, path, &event, &patience):
        return 1
    milliseconds = patience if timeout_ns < 0 else min((timeout_ns + 999999) // 1000000, <int64_t> patience)
    if event != NULL:
        handles[0] = event
        count = 1
    handles[count] = <HANDLE> handle.wake[0]
    count += 1
    if other != -1:
        handles[count] = <HANDLE> other
        count += 1
    outcome = WaitForMultipleObjects(count, handles, False, <DWORD> milliseconds)
    look_away(handle, path)
    if outcome == WAIT_FAILED:
        return win_fail(handle, path, b"WaitForMultipleObjects")
    if outcome == WAIT_TIMEOUT:
        return 0 if 0 <= timeout_ns <= 1000000 * milliseconds else -EINTR
    if event == NULL or outcome != WAIT_OBJECT_0:
        return 2
    if look(handle, path, &event, &patience):
        return 1
    look_away(handle, path)
    return -EINTR                     # another thread was faster


cdef intptr_t os_outlet(Handle *handle) noexcept nogil:
    return -1


cdef void __stdcall notified(
    PTP_CALLBACK_INSTANCE instance, void *context, PTP_WAIT wait, TP_WAIT_RESULT result,
) noexcept nogil:
    """A thread of the system's pool: the wait is over, or a slice of it."""
    cdef Notification *notification = <Notification *> context
    cdef bint tells = False
    AcquireSRWLockExclusive(&notification.lock)
    if notification.sleeps:
        notification.sleeps = False
        look_away(notification.handle, notification.path)
    if not notification.is_over:
        tells = notification.is_over = not sleep_on(notification)
    ReleaseSRWLockExclusive(&notification.lock)
    if tells:
        notification.tell(notification.argument)


cdef bint sleep_on(Notification *notification) noexcept nogil:
    """Have the pool wait a slice more; False if there is no need. The lock is held."""
    cdef FILETIME due
    cdef HANDLE event = notification.other
    cdef int patience = SLICE
    cdef int64_t ticks
    if notification.path == PATH_CONTROL:
        if WaitForSingleObject(event, 0) == WAIT_OBJECT_0:
            return False
    else:
        if look(notification.handle, notification.path, &event, &patience):
            return False
        notification.sleeps = True
    ticks = -10000 * <int64_t> patience
    due.dwLowDateTime = <DWORD> ticks
    due.dwHighDateTime = <DWORD> (<uint64_t> ticks >> 32)
    SetThreadpoolWait(notification.wait, event if event != NULL else notification.never, &due)
    return True


cdef void *os_notify(Handle *handle, int path, intptr_t other, Tell tell, void *argument) noexcept nogil:
    cdef Notification *notification = <Notification *> calloc(1, sizeof(Notification))
    cdef FILETIME now
    if notification == NULL:
        return NULL
    InitializeSRWLock(&notification.lock)
    notification.handle = handle
    notification.path = path
    notification.other = <HANDLE> other
    notification.tell = tell
    notification.argument = argument
    notification.never = CreateEventW(NULL, True, False, NULL)
    notification.wait = CreateThreadpoolWait(notified, notification, NULL)
    if notification.wait == NULL or notification.never == NULL:
        os_unnotify(notification)
        return NULL
    AcquireSRWLockExclusive(&notification.lock)
    if not sleep_on(notification):
        memset(&now, 0, sizeof(FILETIME))
        SetThreadpoolWait(notification.wait, notification.never, &now)     # tells at once
    ReleaseSRWLockExclusive(&notification.lock)
    return notification


cdef void os_unnotify(void *context) noexcept nogil:
    cdef Notification *notification = <Notification *> context
    AcquireSRWLockExclusive(&notification.lock)
    notification.is_over = True
    ReleaseSRWLockExclusive(&notification.lock)
    if notification.wait != NULL:
        SetThreadpoolWait(notification.wait, NULL, NULL)
        WaitForThreadpoolWaitCallbacks(notification.wait, True)
        CloseThreadpoolWait(notification.wait)
    if notification.sleeps:
        look_away(notification.handle, notification.path)
    if notification.never != NULL:
        CloseHandle(notification.never)
    free(notification)


cdef void os_wake(Handle *handle) noexcept nogil:
    SetEvent(<HANDLE> handle.wake[0])


cdef void os_unwake(Handle *handle) noexcept nogil:
    ResetEvent(<HANDLE> handle.wake[0])


cdef int os_rewake(Handle *handle) noexcept nogil:
    """Windows has no fork: this makes the event."""
    cdef HANDLE event = CreateEventW(NULL, True, False, NULL)
    if event == NULL:
        return win_fail(handle, PATH_CONTROL, b"CreateEvent")
    handle.wake[0] = <intptr_t> event
    return 0


# --- configuration ---

cdef int os_get(Handle *handle, int setting, int64_t *value) noexcept nogil:
    cdef State *state = state_of(handle)
    value[0] = 0
    if setting == SETTING_OFFLOAD:
        return 0
    if setting == SETTING_ATTACHED:
        value[0] = 1
        return 0
    if setting == SETTING_LAYER:
        value[0] = handle.layer
        return 0
    if setting == SETTING_LUID:
        value[0] = <int64_t> state.luid
        return 0
    if setting == SETTING_DRIVER_VERSION:
        return get_driver_version(handle, value)
    if setting == SETTING_PERSIST:
        value[0] = state.by_tap and handle.lasts
        return 0
    if setting == SETTING_UP and state.tunnel.adapter != NULL:
        value[0] = state.tunnel.session != NULL
        return 0
    if setting == SETTING_UP and state.tap.file != NULL:
        value[0] = <int> state.tap.is_up
        return 0
    return get_setting(handle, state.luid, setting, value)


cdef int get_driver_version(Handle *handle, int64_t *value) noexcept nogil:
    if state_of(handle).by_tap:
        value[0] = state_of(handle).tap.version
        return 0
    value[0] = <int64_t> WINTUN.GetRunningDriverVersion() if WINTUN.module != NULL else 0
    return 0 if value[0] else win_fail(handle, PATH_CONTROL, b"WintunGetRunningDriverVersion")


cdef int os_set(Handle *handle, int setting, int64_t value) noexcept nogil:
    cdef State *state = state_of(handle)
    cdef int result = 0
    if setting == SETTING_UP:
        if state.tap.file == NULL and state.tunnel.adapter == NULL:
            return not_here(handle, b"switching what another program has open")
        if value:
            result = connect(handle)
            if result == 0:
                await_addresses(handle, state.luid)
        elif state.by_tap:
            result = tap_set_media(handle, &state.tap, 0)
        else:
            tunnel_down(&state.tunnel)
        return result
    if setting == SETTING_PERSIST:
        if not state.by_tap and value:
            return not_here(handle, b"a Wintun adapter that stays")
        handle.lasts = <int> value
        return 0
    if setting in (SETTING_MTU, SETTING_MTU_V6, SETTING_METRIC):
        return set_setting(handle, state.luid, setting, value)
    return not_here(handle, b"this setting")


cdef int connect(Handle *handle) noexcept nogil:
    """Plug in the cable, and see that packets find their way."""
    cdef State *state = state_of(handle)
    cdef int result = 0
    if not state.by_tap:
        result = tunnel_up(handle, &state.tunnel)
        note_event(handle)
        return result
    if state.tap.is_tun:
        result = settle(handle)
    if result == 0:
        result = tap_set_media(handle, &state.tap, 1)
    if result == 0 and state.tap.has_lease:
        await_lease(handle)
    return result


cdef void await_lease(Handle *handle) noexcept nogil:
    """Until Windows has the address, which it asks the driver for a moment after the cable came in."""
    cdef State *state = state_of(handle)
    cdef Address addresses[ADDRESSES_MAX]
    cdef int waited = 0
    cdef int i
    while waited < LEASE_PATIENCE:
        for i in range(min(get_addresses(handle, state.luid, addresses, ADDRESSES_MAX), <int> ADDRESSES_MAX)):
            if addresses[i].family == 4 and memcmp(addresses[i].ip, state.tap.lease, 4) == 0:
                return
        Sleep(LEASE_SLICE)
        waited += LEASE_SLICE


cdef int settle(Handle *handle) noexcept nogil:
    """Tell the driver, which plays our neighbours, the IPv4 address we have, and Windows its IPv6 neighbour."""
    cdef State *state = state_of(handle)
    cdef Address addresses[ADDRESSES_MAX]
    cdef const uint8_t *local = NULL
    cdef int count = get_addresses(handle, state.luid, addresses, ADDRESSES_MAX)
    cdef int result
    cdef int i
    if count < 0:
        return count
    if state.tap.has_lease:
        local = state.tap.lease
    for i in range(min(count, <int> ADDRESSES_MAX)):
        if addresses[i].family == 4:
            if local == NULL or is_makeshift(local):
                local = addresses[i].ip
        else:
            result = lead_to_driver(handle, &addresses[i])
            if result < 0:
                return result
    return tap_set_tun(handle, &state.tap, local)


cdef bint is_makeshift(const uint8_t *ip) noexcept nogil:
    """Whether it is the IPv4 address that Windows takes if nobody gives it one (RFC 3927)."""
    return ip[0] == 169 and ip[1] == 254


cdef const uint8_t *network_of(const Address *address) noexcept nogil:
    """Of an IPv6 address that brings a route along: where that leads, the prefix being the address's; or NULL."""
    if address.family == 4 or address.automatic or address.no_route:
        return NULL
    if address.has_peer:
        return address.peer
    if address.prefix == 128:
        return NULL
    return address.ip


cdef int lead_to_driver(Handle *handle, const Address *address) noexcept nogil:
    """A route that Windows likes better than that of the link, on which nobody answers."""
    cdef const uint8_t *network = network_of(address)
    cdef int result = 0
    if network != NULL:
        result = add_route(handle, state_of(handle).luid, 6, network, address.prefix, DRIVER_NEIGHBOUR, 0)
    return 0 if is_error(result, ERROR_OBJECT_ALREADY_EXISTS) else result


cdef int os_get_name(Handle *handle, char *name) noexcept nogil:
    return name_of_luid(handle, state_of(handle).luid, name)


cdef int os_set_name(Handle *handle, const char *name) noexcept nogil:
    return set_name(handle, state_of(handle).luid, name)


cdef int os_get_mac(Handle *handle, uint8_t *mac) noexcept nogil:
    if handle.layer != LAYER_TAP:
        return not_here(handle, b"a MAC address of a TUN")
    return get_mac(handle, state_of(handle).luid, mac)


cdef int os_set_mac(Handle *handle, const uint8_t *mac) noexcept nogil:
    if handle.layer != LAYER_TAP:
        return not_here(handle, b"a MAC address of a TUN")
    return tap_set_mac(handle, &state_of(handle).tap, state_of(handle).luid, mac)


cdef int os_get_addresses(Handle *handle, Address *addresses, int capacity) noexcept nogil:
    return get_addresses(handle, state_of(handle).luid, addresses, capacity)


cdef int os_add_address(Handle *handle, const Address *address) noexcept nogil:
    cdef int result = add_address(handle, state_of(handle).luid, address)
    cdef const char *failed
    if result == 0 and state_of(handle).tap.is_tun:
        result = lead_to_driver(handle, address)
        if result == 0:
            result = settle(handle)
        if result < 0:
            failed = handle.failed[PATH_CONTROL]
            os_remove_address(handle, address)
            handle.failed[PATH_CONTROL] = failed
    return result


cdef int os_remove_address(Handle *handle, const Address *address) noexcept nogil:
    cdef uint64_t luid = state_of(handle).luid
    cdef int result = remove_address(handle, luid, address)
    cdef const uint8_t *network
    if result == 0 and state_of(handle).tap.is_tun:
        network = network_of(address)
        if network != NULL:
            remove_route(handle, luid, 6, network, address.prefix, DRIVER_NEIGHBOUR)
        result = settle(handle)       # another one may lead there, too
    return result


cdef const uint8_t *gateway_of(Handle *handle, const Route *route) noexcept nogil:
    if route.has_gateway:
        return route.gateway
    if route.family == 6 and state_of(handle).tap.is_tun:
        return DRIVER_NEIGHBOUR
    return NULL


cdef int os_add_route(Handle *handle, const Route *route) noexcept nogil:
    return add_route(
        handle, state_of(handle).luid, route.family, route.network, route.prefix, gateway_of(handle, route),
        route.metric)


cdef int os_remove_route(Handle *handle, const Route *route) noexcept nogil:
    return remove_route(
        handle, state_of(handle).luid, route.family, route.network, route.prefix, gateway_of(handle, route))


cdef int os_set_broadcast(Handle *handle, const uint8_t *broadcast) noexcept nogil:
    return not_here(handle, b"a broadcast address other than the subnet's")


cdef int os_get_statistics(Handle *handle, uint64_t *values) noexcept nogil:
    return get_statistics(handle, state_of(handle).luid, values)


cdef int os_get_dns(Handle *handle, Address *servers, int capacity) noexcept nogil:
    return get_dns(handle, state_of(handle).luid, servers, capacity)


cdef int os_set_dns(Handle *handle, const Address *servers, int count) noexcept nogil:
    return set_dns(handle, state_of(handle).luid, servers, count)


# --- notifications ---

cdef int os_watch(Handle *handle, Watch *watch) noexcept nogil:
    return watch_interface(handle, state_of(handle).luid, watch)


cdef int os_next_change(Watch *watch, Change *change) noexcept nogil:
    return watch_next(watch, change)


cdef void os_unwatch(Watch *watch) noexcept nogil:
    unwatch(watch)


# --- the system ---

cdef uint64_t os_capabilities() noexcept nogil:
    return (
        <uint64_t> 1 << SETTING_INDEX | <uint64_t> 1 << SETTING_MTU | <uint64_t> 1 << SETTING_UP
        | <uint64_t> 1 << SETTING_RUNNING | <uint64_t> 1 << SETTING_CARRIER | <uint64_t> 1 << SETTING_PERSIST
        | <uint64_t> 1 << SETTING_LAYER | <uint64_t> 1 << SETTING_MTU_V6 | <uint64_t> 1 << SETTING_METRIC
        | <uint64_t> 1 << SETTING_LUID | <uint64_t> 1 << SETTING_DRIVER_VERSION
        | <uint64_t> 1 << CAN_SET_ADDRESSES | <uint64_t> 1 << CAN_TAP | <uint64_t> 1 << CAN_TUN
        | <uint64_t> 1 << CAN_PEER_ADDRESS | <uint64_t> 1 << CAN_STATISTICS | <uint64_t> 1 << CAN_METRIC
        | <uint64_t> 1 << CAN_WATCH | <uint64_t> 1 << CAN_RENAME | <uint64_t> 1 << CAN_SET_MAC
        | <uint64_t> 1 << CAN_NOTIFY | <uint64_t> 1 << CAN_WINTUN | <uint64_t> 1 << CAN_DNS
        | <uint64_t> 1 << CAN_FREE_NAMES | <uint64_t> 1 << CAN_ROUTE
    )


cdef int os_features(Handle *handle, uint32_t *features) noexcept nogil:
    handle_clear(handle)
    features[0] = 1 << FEATURE_TUN | 1 << FEATURE_TAP
    return 0


cdef int os_interfaces(Handle *handle, char *names, int capacity) noexcept nogil:
    handle_clear(handle)
    return list_interfaces(handle, names, capacity)


cdef int os_delete(Handle *handle, const char *name) noexcept nogil:
    cdef int result = os_inspect(handle, name)
    cdef const char *failed
    if result == 0:
        if handle.layer == LAYER_TAP:
            result = tap_delete(handle, state_of(handle).luid)
        else:
            result = not_here(handle, b"deleting a Wintun adapter")
    failed = handle.failed[PATH_CONTROL]
    os_close(handle)
    handle.failed[PATH_CONTROL] = failed
    return result


cdef int os_delete_driver(Handle *handle, const char *libraries) noexcept nogil:
    cdef int result
    handle_clear(handle)
    result = wintun_load(handle, libraries)
    if result == 0 and not WINTUN.DeleteDriver():
        result = win_fail(handle, PATH_CONTROL, b"WintunDeleteDriver")
    return result


cdef int os_private_network(Handle *handle) noexcept nogil:
    handle_clear(handle)
    return not_here(handle, b"a private network")


cdef int os_explain(int error, char *text, int size) noexcept nogil:
    cdef WCHAR wide[512]
    cdef DWORD code = win_code(error)
    cdef DWORD length
    if code == 0:
        return 0
    length = FormatMessageW(
        FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, code, 0, wide, 512, NULL)
    while length > 0 and wide[length - 1] <= 32:
        length -= 1
    wide[min(length, <DWORD> 511)] = 0
    if length == 0 or not from_wide(wide, text, size):
        snprintf(text, size, b"error %lu of Windows", code)
    return <int> code


cdef void os_log(Log log) noexcept nogil:
    global wintun_log
    wintun_log = log


cdef int os_meaning(int path, int error, const char *failed, const char **advice) noexcept nogil:
    cdef DWORD code = win_code(error)
    advice[0] = b""
    if strncmp(failed, b"LoadLibrary(", 12) == 0:
        advice[0] = (
            b"Wintun is a driver's library that Windows does not bring along: put the signed wintun.dll of this "
            b"architecture beside the package, or give its path as wintun=")
        if code == ERROR_BAD_EXE_FORMAT:
            advice[0] = b"this wintun.dll is of another architecture than this Python: take the one named here"
        return MEANS_UNSUPPORTED
    if code == ERROR_NOT_SUPPORTED and strcmp(failed, b"GetIpInterfaceEntry") == 0:
        advice[0] = (
            b"Windows has IPv4 or IPv6 switched off, altogether (DisabledComponents in the registry) or among the "
            b"properties of this adapter: switch it on, or do without its addresses")
        return MEANS_UNSUPPORTED
    if code == ERROR_OBJECT_ALREADY_EXISTS and strcmp(failed, b"CreateUnicastIpAddressEntry") == 0:
        advice[0] = b"this interface has the address already, or another one whose link is down: remove it there"
        return MEANS_BUSY
    if code == ERROR_OBJECT_ALREADY_EXISTS and strcmp(failed, b"duplicate address detection") == 0:
        advice[0] = b"another host on this link has the address"
        return MEANS_BUSY
    if code in (ERROR_ACCESS_DENIED, ERROR_PRIVILEGE_NOT_HELD, ERROR_ELEVATION_REQUIRED):
        advice[0] = b"run as administrator: making, opening and configuring an adapter takes it"
        return MEANS_PRIVILEGE
    if error == EEXIST or code in (
        ERROR_ALREADY_EXISTS, ERROR_OBJECT_ALREADY_EXISTS, ERROR_SHARING_VIOLATION, ERROR_BUSY,
        ERROR_ALREADY_INITIALIZED, ERROR_DUP_NAME,
    ) or code == ERROR_GEN_FAILURE and strcmp(failed, b"CreateFile(.tap)") == 0:
        return MEANS_BUSY             # the driver's word for it
    if error == ENODEV or code in (
        ERROR_HANDLE_EOF, ERROR_DEVICE_NOT_CONNECTED, ERROR_DEV_NOT_EXIST, ERROR_BAD_NETPATH,
        ERROR_DEVICE_REMOVED, ERROR_NO_SUCH_DEVICE, ERROR_OPERATION_ABORTED,
    ) or code == ERROR_FILE_NOT_FOUND and (
        strcmp(failed, b"WintunStartSession") == 0 or strcmp(failed, b"CreateFile(.tap)") == 0
    ):
        return MEANS_GONE
    if code == ERROR_NO_COMPAT_DRIVERS:
        advice[0] = b"a TAP takes the driver tap-windows6, which OpenVPN installs"
        return MEANS_UNSUPPORTED
    if code == ERROR_INVALID_DATA and path == PATH_RECV:
        advice[0] = b"the ring that the driver shares with us is corrupt: close this device and open it anew"
        return MEANS_OTHER
    if error == ENETDOWN:
        return MEANS_LINK_DOWN
    if error == EBADF:
        return MEANS_CLOSED
    if error == EOPNOTSUPP or code in (ERROR_NOT_SUPPORTED, ERROR_PROC_NOT_FOUND, ERROR_INVALID_FUNCTION):
        return MEANS_UNSUPPORTED
    if path == PATH_SEND and error in (EINVAL, EMSGSIZE):
        return MEANS_PACKET
    return MEANS_OTHER
