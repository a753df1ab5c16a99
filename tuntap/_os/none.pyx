"""An OS without a core of its own: adopts a descriptor, answers "not supported" to the rest.

This is also the file to copy when a new OS is added.
"""
from libc.errno cimport EBADF, EBADMSG, EINVAL, EMSGSIZE, ENODEV, EOPNOTSUPP
from libc.stdint cimport int64_t, intptr_t, uint8_t, uint32_t, uint64_t

from tuntap._os.native cimport *
from tuntap._os.posix cimport *


cdef int unsupported(Handle *handle) noexcept nogil:
    handle.failed[PATH_CONTROL] = b"tuntap on this operating system"
    return -EOPNOTSUPP


cdef int os_open(Handle *handle, const OpenRequest *request) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef int os_open_queue(Handle *handle, Handle *of) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef int os_adopt(Handle *handle, intptr_t io) noexcept nogil:
    cdef int result
    handle_clear(handle)
    handle.io = io
    if fcntl(<int> io, F_GETFL) < 0:
        return fail(handle, PATH_CONTROL, b"fcntl(F_GETFL)")
    handle.mode = socket_mode(<int> io)
    result = pipe_rewake(handle)
    if result < 0:
        os_close(handle)
    return result


cdef intptr_t os_find(Handle *handle) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef void os_own(Handle *handle) noexcept nogil:
    handle.owned = 1


cdef int os_inspect(Handle *handle, const char *name) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef void os_close(Handle *handle) noexcept nogil:
    if handle.owned:
        close_fd(&handle.io)
    handle.io = -1
    close_fd(&handle.wake[0])
    close_fd(&handle.wake[1])


cdef int os_recv(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    return posix_recv(handle, slots, start, stop, error)


cdef int os_send(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    return posix_send(handle, slots, start, stop, NULL, NULL, error)


cdef intptr_t os_recv_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    return posix_recv_parts(handle, parts, count)


cdef intptr_t os_send_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    return posix_send_parts(handle, parts, count)


cdef int os_wait(Handle *handle, int path, intptr_t other, int64_t timeout_ns) noexcept nogil:
    cdef int outcome = posix_wait(handle, path, other, timeout_ns)
    return 1 if outcome == IN_ERROR else outcome


cdef intptr_t os_outlet(Handle *handle) noexcept nogil:
    return -1


cdef void *os_notify(Handle *handle, int path, intptr_t other, Tell tell, void *argument) noexcept nogil:
    return NULL


cdef void os_unnotify(void *notification) noexcept nogil:
    pass


cdef void os_wake(Handle *handle) noexcept nogil:
    pipe_wake(handle)


cdef void os_unwake(Handle *handle) noexcept nogil:
    pipe_unwake(handle)


cdef int os_rewake(Handle *handle) noexcept nogil:
    return pipe_rewake(handle)


cdef int os_get(Handle *handle, int setting, int64_t *value) noexcept nogil:
    return unsupported(handle)


cdef int os_set(Handle *handle, int setting, int64_t value) noexcept nogil:
    return unsupported(handle)


cdef int os_get_name(Handle *handle, char *name) noexcept nogil:
    return unsupported(handle)


cdef int os_set_name(Handle *handle, const char *name) noexcept nogil:
    return unsupported(handle)


cdef int os_get_mac(Handle *handle, uint8_t *mac) noexcept nogil:
    return unsupported(handle)


cdef int os_set_mac(Handle *handle, const uint8_t *mac) noexcept nogil:
    return unsupported(handle)


cdef int os_get_addresses(Handle *handle, Address *addresses, int capacity) noexcept nogil:
    return unsupported(handle)


cdef int os_add_address(Handle *handle, const Address *address) noexcept nogil:
    return unsupported(handle)


cdef int os_remove_address(Handle *handle, const Address *address) noexcept nogil:
    return unsupported(handle)


cdef int os_add_route(Handle *handle, const Route *route) noexcept nogil:
    return not_here(handle, b"adding a route")


cdef int os_remove_route(Handle *handle, const Route *route) noexcept nogil:
    return not_here(handle, b"removing a route")


cdef int os_set_broadcast(Handle *handle, const uint8_t *broadcast) noexcept nogil:
    return unsupported(handle)


cdef int os_get_statistics(Handle *handle, uint64_t *values) noexcept nogil:
    return unsupported(handle)


cdef int os_get_dns(Handle *handle, Address *servers, int capacity) noexcept nogil:
    return not_here(handle, b"name servers of an interface")


cdef int os_set_dns(Handle *handle, const Address *servers, int count) noexcept nogil:
    return not_here(handle, b"name servers of an interface")


cdef int os_watch(Handle *handle, Watch *watch) noexcept nogil:
    watch.io = -1
    return unsupported(handle)


cdef int os_next_change(Watch *watch, Change *change) noexcept nogil:
    return CHANGE_NONE


cdef void os_unwatch(Watch *watch) noexcept nogil:
    pass


cdef uint64_t os_capabilities() noexcept nogil:
    return 0


cdef int os_features(Handle *handle, uint32_t *features) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef int os_interfaces(Handle *handle, char *names, int capacity) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef int os_delete(Handle *handle, const char *name) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef int os_delete_driver(Handle *handle, const char *libraries) noexcept nogil:
    handle_clear(handle)
    return not_here(handle, b"deleting a driver")


cdef int os_private_network(Handle *handle) noexcept nogil:
    handle_clear(handle)
    return unsupported(handle)


cdef int os_meaning(int path, int error, const char *failed, const char **advice) noexcept nogil:
    advice[0] = b""
    if error == ENODEV:
        return MEANS_GONE
    if error == EBADF:
        return MEANS_CLOSED
    if error == EOPNOTSUPP:
        advice[0] = b"this operating system has no core yet: adopt a descriptor with from_fd()"
        return MEANS_UNSUPPORTED
    if error == EBADMSG or path == PATH_SEND and error in (EINVAL, EMSGSIZE):
        return MEANS_PACKET
    return MEANS_OTHER


cdef int os_explain(int error, char *text, int size) noexcept nogil:
    return 0


cdef void os_log(Log log) noexcept nogil:
    pass
