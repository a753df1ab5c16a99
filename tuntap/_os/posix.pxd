"""What the Unix cores share: adopting a descriptor, waiting on it, and moving packets one by one."""
from libc.errno cimport (
    EAGAIN, EBADF, EINTR, EINVAL, EMSGSIZE, ENETDOWN, ENOBUFS, ENODEV, ENOSPC, EOPNOTSUPP, errno,
)
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t
from libc.string cimport memset

from tuntap._os.native cimport (
    LAYER_UNKNOWN, PATH_CONTROL, PATH_RECV, PATH_SEND, Handle, Part, SlotView, slot_at,
    slot_fill, slot_length,
)

cdef extern from "<fcntl.h>" nogil:
    enum: F_GETFL, F_SETFL, F_SETFD, FD_CLOEXEC, O_NONBLOCK, O_CLOEXEC, O_RDWR, O_RDONLY
    int fcntl(int fd, int command, ...)
    int open_ "open"(const char *path, int flags, ...)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    int pipe(int *fds)
    ssize_t read(int fd, void *buffer, size_t size)
    ssize_t write(int fd, const void *buffer, size_t size)

cdef extern from "<poll.h>" nogil:
    enum: POLLERR, POLLIN, POLLOUT, POLLPRI
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT, SOL_SOCKET, SO_TYPE, SOCK_DGRAM, SOCK_SEQPACKET
    ctypedef unsigned int socklen_t
    int getsockopt(int fd, int level, int option, void *value, socklen_t *size)
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t readv(int fd, const iovec *parts, int count)
    ssize_t writev(int fd, const iovec *parts, int count)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *time, timespec *left)

cdef extern from *:
    """
    /* A Part of the contract is handed to the system as the iovec it is. */
    #include <stddef.h>
    #define TUNTAP_SAME_AS_PART offsetof(struct iovec, iov_base) == 0 \\
        && offsetof(struct iovec, iov_len) == sizeof(void *) && sizeof(struct iovec) == 2 * sizeof(void *)
    typedef char tuntap_iovec_is_part[TUNTAP_SAME_AS_PART ? 1 : -1];
    #if defined(MSG_NOSIGNAL)
    #define TUNTAP_NOSIGNAL MSG_NOSIGNAL
    #else
    #define TUNTAP_NOSIGNAL 0
    #endif
    #if defined(__linux__) && defined(RWF_NOWAIT)
    #define tuntap_preadv_nowait(fd, parts, count) preadv2(fd, parts, count, -1, RWF_NOWAIT)
    #define tuntap_pwritev_nowait(fd, parts, count) pwritev2(fd, parts, count, -1, RWF_NOWAIT)
    #else
    #define tuntap_preadv_nowait(fd, parts, count) (errno = EOPNOTSUPP, (ssize_t) -1)
    #define tuntap_pwritev_nowait(fd, parts, count) (errno = EOPNOTSUPP, (ssize_t) -1)
    #endif
    """
    enum: TUNTAP_NOSIGNAL
    ssize_t preadv_nowait "tuntap_preadv_nowait"(int fd, const iovec *parts, int count) nogil
    ssize_t pwritev_nowait "tuntap_pwritev_nowait"(int fd, const iovec *parts, int count) nogil

# How `io` is read and written (Handle.mode).  Only a descriptor of our own is made non-blocking;
# a borrowed one keeps its flags, so every single call must ask not to wait.
cdef enum:
    MODE_NONBLOCKING = 0      # O_NONBLOCK is set and stays set: read, write
    MODE_NOWAIT = 1           # flags unknown: preadv2(RWF_NOWAIT), pwritev2
    MODE_POLL = 2             # flags unknown, no RWF_NOWAIT: poll, then read or write
    MODE_SOCKET = 3           # a datagram socket: recvmsg, sendmsg with MSG_DONTWAIT
    MODE_CONNECTION = 4       # the same, and reading nothing means that the other end is closed

cdef enum:
    IN_ERROR = 3              # of posix_wait: the descriptor of the device is

cdef enum:
    BACKOFF_FIRST = 250000    # nanoseconds
    BACKOFF_LAST = 16000000

cdef enum:
    LARGEST_READ = 65535 + 64  # more bytes than one read of any device can yield


cdef inline int not_here(Handle *handle, const char *what) noexcept nogil:
    """The answer to what is of other systems."""
    handle.failed[PATH_CONTROL] = what
    return -EOPNOTSUPP


cdef inline int fail(Handle *handle, int path, const char *call) noexcept nogil:
    """Note the call that failed; the answer is its -errno."""
    cdef int error = errno
    handle.failed[path] = call
    return -error


cdef inline void close_fd(intptr_t *fd) noexcept nogil:
    """Close once: forgotten first, so that a child forked in between does not close a stranger's."""
    cdef int number = <int> fd[0]
    if number >= 0:
        fd[0] = -1
        close(number)


cdef inline int socket_mode(int fd) noexcept nogil:
    """How to read a socket that keeps packets apart; MODE_POLL for anything else."""
    cdef int kind = 0
    cdef socklen_t size = sizeof(kind)
    if getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) < 0:
        return MODE_POLL
    return MODE_SOCKET if kind == SOCK_DGRAM else MODE_CONNECTION if kind == SOCK_SEQPACKET else MODE_POLL


cdef inline int ready(int fd, int path) noexcept nogil:
    """1 if a read or write will not wait, as far as poll can tell."""
    cdef pollfd entry
    entry.fd = fd
    entry.events = POLLIN if path == PATH_RECV else POLLOUT
    entry.revents = 0
    return poll(&entry, 1, 0) != 0


cdef inline int posix_wait(Handle *handle, int path, intptr_t other, int64_t timeout_ns) noexcept nogil:
    """os_wait by poll(2), which rounds the time up to whole milliseconds and passes over a descriptor of -1."""
    cdef pollfd entries[3]
    cdef int64_t milliseconds = -1
    cdef int count
    entries[0].fd = <int> handle.io if path != PATH_CONTROL else -1
    # tun.c wakes those that wait for a device that is deleted as if there were something to read, or urgent.
    entries[0].events = POLLIN if path == PATH_RECV else POLLOUT | POLLPRI
    entries[1].fd = <int> handle.wake[0]
    entries[1].events = POLLIN
    entries[2].fd = <int> other
    entries[2].events = POLLIN
    if timeout_ns >= 0:
        milliseconds = timeout_ns // 1000000 + (1 if timeout_ns % 1000000 else 0)
        if milliseconds > 0x7fffffff:
            milliseconds = 0x7fffffff
    count = poll(entries, 3, <int> milliseconds)
    if count < 0:
        return fail(handle, path, b"poll")
    if entries[0].revents & POLLERR:
        return IN_ERROR
    return (1 if entries[0].revents else 2) if count > 0 else 0


cdef inline int pipe_rewake(Handle *handle) noexcept nogil:
    """os_rewake by a pipe, where there is no eventfd."""
    cdef int ends[2]
    cdef int i
    close_fd(&handle.wake[0])
    close_fd(&handle.wake[1])
    if pipe(ends) < 0:
        return fail(handle, PATH_CONTROL, b"pipe")
    for i in range(2):
        fcntl(ends[i], F_SETFD, FD_CLOEXEC)
        fcntl(ends[i], F_SETFL, O_NONBLOCK)
        handle.wake[i] = ends[i]
    return 0


cdef inline void pipe_wake(Handle *handle) noexcept nogil:
    write(<int> handle.wake[1], b"!", 1)


cdef inline void pipe_unwake(Handle *handle) noexcept nogil:
    cdef char drained[64]
    while read(<int> handle.wake[0], drained, sizeof(drained)) > 0:
        pass


cdef inline ssize_t outcome(ssize_t size) noexcept nogil:
    """A system call's result as n or -errno."""
    return size if size >= 0 else -errno


cdef inline ssize_t read_parts(Handle *handle, iovec *parts, int count) noexcept nogil:
    """One packet into `parts` without waiting, whatever the flags of the descriptor say."""
    cdef int fd = <int> handle.io
    cdef ssize_t size
    cdef msghdr message
    if handle.mode == MODE_NONBLOCKING:
        handle.failed[PATH_RECV] = b"readv"
        return outcome(readv(fd, parts, count))
    if handle.mode >= MODE_SOCKET:
        handle.failed[PATH_RECV] = b"recvmsg"
        memset(&message, 0, sizeof(message))
        message.msg_iov = parts
        message.msg_iovlen = count
        return outcome(recvmsg(fd, &message, MSG_DONTWAIT))
    if handle.mode == MODE_NOWAIT:
        handle.failed[PATH_RECV] = b"preadv2"
        size = outcome(preadv_nowait(fd, parts, count))
        if size != -EOPNOTSUPP:
            return size
        handle.mode = MODE_POLL
    handle.failed[PATH_RECV] = b"readv"
    if not ready(fd, PATH_RECV):
        return -EAGAIN
    return outcome(readv(fd, parts, count))


cdef inline ssize_t write_parts(Handle *handle, iovec *parts, int count) noexcept nogil:
    """One packet from `parts` without waiting, whatever the flags of the descriptor say."""
    cdef int fd = <int> handle.io
    cdef ssize_t size
    cdef msghdr message
    if handle.mode == MODE_NONBLOCKING:
        handle.failed[PATH_SEND] = b"writev"
        return outcome(writev(fd, parts, count))
    if handle.mode >= MODE_SOCKET:
        handle.failed[PATH_SEND] = b"sendmsg"
        memset(&message, 0, sizeof(message))
        message.msg_iov = parts
        message.msg_iovlen = count
        return outcome(sendmsg(fd, &message, MSG_DONTWAIT | TUNTAP_NOSIGNAL))
    if handle.mode == MODE_NOWAIT:
        handle.failed[PATH_SEND] = b"pwritev2"
        size = outcome(pwritev_nowait(fd, parts, count))
        if size != -EOPNOTSUPP:
            return size
        handle.mode = MODE_POLL
    handle.failed[PATH_SEND] = b"writev"
    if not ready(fd, PATH_SEND):
        return -EAGAIN
    return outcome(writev(fd, parts, count))


cdef inline ssize_t read_packet(Handle *handle, uint8_t *slot, int size, uint8_t *limit) noexcept nogil:
    """One packet into a slot, n or -errno; a result above `size` says that it was cut.

    The kernel cuts silently, so there must be room for one byte more than the slot has.  A plain
    read into the byte behind the slot, which is put back, costs a tenth less than a readv.
    """
    cdef uint8_t prefix[64]
    cdef uint8_t spill
    cdef uint8_t saved
    cdef iovec parts[3]
    cdef int count = 0
    cdef ssize_t got
    if handle.mode == MODE_NONBLOCKING and handle.prefix == 0:
        handle.failed[PATH_RECV] = b"read"
        if size >= LARGEST_READ:
            return outcome(read(<int> handle.io, slot, size))
        if slot + size < limit:
            saved = slot[size]
            got = outcome(read(<int> handle.io, slot, size + 1))
            slot[size] = saved
            return got
    if handle.prefix:
        parts[0].iov_base = prefix
        parts[0].iov_len = handle.prefix
        count = 1
    parts[count].iov_base = slot
    parts[count].iov_len = size
    parts[count + 1].iov_base = &spill
    parts[count + 1].iov_len = 1
    got = read_parts(handle, parts, count + 2)
    if got <= 0:
        return got
    return got - handle.prefix if got > handle.prefix else 0


cdef inline ssize_t write_packet(Handle *handle, uint8_t *packet, size_t size, const uint8_t *prefix) noexcept nogil:
    """One packet, n or -errno; `prefix` goes in front if the handle has one."""
    cdef iovec parts[2]
    if handle.mode == MODE_NONBLOCKING and handle.prefix == 0:
        handle.failed[PATH_SEND] = b"write"
        return outcome(write(<int> handle.io, packet, size))
    parts[0].iov_base = <void *> prefix
    parts[0].iov_len = handle.prefix
    parts[1].iov_base = packet
    parts[1].iov_len = size
    if handle.prefix:
        return write_parts(handle, parts, 2)
    return write_parts(handle, parts + 1, 1)


cdef inline int posix_recv(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    """os_recv by one read per packet."""
    cdef int i = start
    cdef ssize_t size
    error[0] = 0
    while i < stop:
        size = read_packet(handle, slots.data + i * slots.stride, slots.slot_size, slots.limit)
        if size <= 0:
            if size == -EINTR:
                continue
            if size == 0 and handle.mode == MODE_SOCKET:
                break                     # an empty datagram is no packet, and no end either
            if size == 0:
                error[0] = ENODEV         # end of file
            elif size != -EAGAIN:
                error[0] = <int> -size
            break
        slot_fill(slots, i, size)
        i += 1
    return i - start


cdef inline int posix_send(
    Handle *handle, SlotView *slots, int start, int stop, const uint8_t *prefix4, const uint8_t *prefix6, int *error,
) noexcept nogil:
    """os_send by one write per packet; a handle with a prefix says which goes before IPv4 and IPv6."""
    cdef int i = start
    cdef uint8_t *packet
    cdef int32_t length
    cdef ssize_t size
    error[0] = 0
    while i < stop:
        packet = slot_at(slots, i)
        length = slot_length(slots, i)    # may have changed since the caller's array was checked
        if length < 1 or length > slots.slot_size or handle.prefix and packet[0] >> 4 not in (4, 6):
            handle.failed[PATH_SEND] = b"write"
            error[0] = EINVAL
            break
        size = write_packet(handle, packet, length, prefix6 if packet[0] >> 4 == 6 else prefix4)
        if size < 0:
            if size == -EINTR:
                continue
            if size != -EAGAIN:
                error[0] = <int> -size
            break
        if size == 0:
            error[0] = ENETDOWN           # what FreeBSD says of an interface that is down
            break
        i += 1
    return i - start


cdef inline void back_off(Handle *handle, int moved, int *error) noexcept nogil:
    """Sleep, longer each time, where the system has no room and poll(2) would say that it has.

    The packet is not lost: to the caller it would have to wait.
    """
    cdef timespec pause
    if moved:
        handle.backoff = 0
    if error[0] == ENOBUFS or error[0] == ENOSPC:
        handle.backoff = min(max(2 * handle.backoff, BACKOFF_FIRST), BACKOFF_LAST)
        pause.tv_sec = 0
        pause.tv_nsec = handle.backoff
        nanosleep(&pause, NULL)
        error[0] = 0


cdef inline intptr_t posix_recv_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    """os_recv_parts by one readv, or read."""
    cdef ssize_t size = -EINTR
    while size == -EINTR:
        if count == 1 and handle.mode == MODE_NONBLOCKING:
            handle.failed[PATH_RECV] = b"read"
            size = outcome(read(<int> handle.io, parts.base, parts.size))
        else:
            size = read_parts(handle, <iovec *> parts, count)
    if size == 0:
        return -EAGAIN if handle.mode == MODE_SOCKET else -ENODEV
    return size


cdef inline intptr_t posix_send_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    """os_send_parts by one writev."""
    cdef ssize_t size = write_parts(handle, <iovec *> parts, count)
    while size == -EINTR:
        size = write_parts(handle, <iovec *> parts, count)
    return size
