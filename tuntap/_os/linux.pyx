"""Linux: /dev/net/tun for packets (tun.c), rtnetlink for configuration, eventfd to end a wait.

Whatever an interface is asked or told goes through a socket in the device's own network namespace,
and the interface is found anew from the descriptor each time (TUNGETIFF), so that a rename, a move
to another namespace or a namesake elsewhere never leads to the wrong interface.
"""
from libc.errno cimport (
    EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBADF, EBADMSG, EBUSY, EEXIST, EFAULT, EINTR, EINVAL, EIO, EMSGSIZE,
    EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOBUFS, ENODEV, ENOENT, ENOTTY, ENXIO, EOPNOTSUPP, EPERM, ESRCH, errno,
)
from libc.stdint cimport int64_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, memset, strcmp, strlen, strncpy

from tuntap._os.native cimport *
from tuntap._os.netlink cimport *
from tuntap._os.posix cimport *

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE 1
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <sched.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/ioctl.h>
    #include <sys/mount.h>
    #include <sys/stat.h>
    #include <sys/sysmacros.h>
    #include <sys/uio.h>
    #include <netinet/in.h>
    #include <linux/if.h>
    #include <linux/if_tun.h>
    #ifndef TUN_F_USO4
    #define TUN_F_USO4 0x20                  /* linux/if_tun.h since 6.2 */
    #define TUN_F_USO6 0x40
    #endif
    #ifndef TUNGETDEVNETNS
    #define TUNGETDEVNETNS _IO('T', 227)     /* linux/if_tun.h since 5.2 */
    #endif
    """
    enum: E2BIG, EBADFD, ECONNREFUSED, ECONNRESET, ENOSYS, ENOTCONN, EPIPE, EUNATCH
    enum: IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE, IFF_NAPI, IFF_TUN_EXCL, IFF_PERSIST
    enum: IFF_UP, IFF_RUNNING
    unsigned long TUNSETIFF, TUNGETIFF, TUNGETFEATURES, TUNSETOFFLOAD, TUNSETPERSIST, TUNSETOWNER
    unsigned long TUNSETGROUP, TUNGETDEVNETNS, SIOCGIFINDEX, SIOCSIFBRDADDR
    unsigned long TUNGETVNETHDRSZ, TUNSETVNETHDRSZ, TUNSETVNETLE, TUNSETVNETBE, TUNSETQUEUE
    enum: IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE
    enum: TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6
    struct ifreq:
        char ifr_name[16]
        short ifr_flags
        int ifr_ifindex
    int ioctl(int fd, unsigned long request, ...) nogil

    enum: EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int value, int flags) nogil

    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLOUT, EPOLLPRI
    struct epoll_event:
        uint32_t events
    int epoll_create1(int flags) nogil
    int epoll_ctl(int fd, int operation, int other, epoll_event *event) nogil

    enum: CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
    int setns(int fd, int kind) nogil
    int unshare(int kinds) nogil

    enum: S_IFCHR, MS_REC, MS_PRIVATE
    ctypedef unsigned int mode_t
    ctypedef unsigned long long dev_t
    struct stat_t "stat":
        uint64_t st_ino
    int fstat(int fd, stat_t *result) nogil
    int mkdir(const char *path, mode_t mode) nogil
    int mknod(const char *path, mode_t mode, dev_t device) nogil
    int chmod(const char *path, mode_t mode) nogil
    dev_t makedev(unsigned int major, unsigned int minor) nogil
    int mount(const char *what, const char *where, const char *kind, unsigned long flags, const void *data) nogil
    unsigned int geteuid() nogil
    unsigned int getegid() nogil

    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *thread, void *attributes, void *(*run)(void *) noexcept nogil, void *argument) nogil
    int pthread_join(pthread_t thread, void **result) nogil

    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_family
        in_addr sin_addr

cdef enum:
    TUN_MAJOR = 10            # Documentation/admin-guide/devices.txt
    TUN_MINOR = 200

    VIRTIO_HEADER_SIZE = 10   # struct virtio_net_hdr

cdef const char *TUN_NODE = b"/dev/net/tun"
cdef const char *OWN_NETNS = b"/proc/thread-self/ns/net"
cdef const char *BOTH_HEADERS = b"flags of ioctl(TUNGETIFF)"
cdef const char *LONG_HEADER = b"size of ioctl(TUNGETVNETHDRSZ)"
cdef const char *OTHER_FLAGS = b"flags of ioctl(TUNSETIFF)"


# --- life ---

cdef struct Opening:
    Handle *handle
    int netns                 # to open in; -1 for the caller's
    bint with_io              # the packet descriptor too, not only the configuration sockets
    int result


cdef int open_node(Handle *handle) noexcept nogil:
    """/dev/net/tun, made first if it is missing and we may make it."""
    handle.io = open_(TUN_NODE, O_RDWR | O_CLOEXEC | O_NONBLOCK)
    if handle.io < 0 and errno == ENOENT:
        mkdir(b"/dev/net", 0o755)
        if mknod(TUN_NODE, S_IFCHR | 0o666, makedev(TUN_MAJOR, TUN_MINOR)) == 0:
            chmod(TUN_NODE, 0o666)      # what udev gives it; mknod went through the umask
        elif errno != EEXIST:
            handle.failed[PATH_CONTROL] = b"open(/dev/net/tun)"
            return -ENOENT
        handle.io = open_(TUN_NODE, O_RDWR | O_CLOEXEC | O_NONBLOCK)
    if handle.io < 0:
        return fail(handle, PATH_CONTROL, b"open(/dev/net/tun)")
    return 0


cdef uint64_t realm_of(int netns) noexcept nogil:
    """What identifies a network namespace; 0 if it cannot be told."""
    cdef stat_t status
    return status.st_ino if fstat(netns, &status) == 0 else 0


cdef uint64_t own_realm() noexcept nogil:
    cdef intptr_t netns = open_(OWN_NETNS, O_RDONLY | O_CLOEXEC)
    cdef uint64_t realm = realm_of(<int> netns) if netns >= 0 else 0
    close_fd(&netns)
    return realm


cdef int open_here(Opening *opening) noexcept nogil:
    """The descriptors belong to the namespace this thread is in."""
    cdef Handle *handle = opening.handle
    cdef int result = 0
    handle.control[0] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
    if handle.control[0] < 0:
        return fail(handle, PATH_CONTROL, b"socket(AF_NETLINK)")
    handle.control[1] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    if handle.control[1] < 0:
        return fail(handle, PATH_CONTROL, b"socket(AF_INET)")
    handle.realm = own_realm()
    if opening.with_io:
        result = open_node(handle)
    return result


cdef void *open_there(void *argument) noexcept nogil:
    """A thread that enters the namespace, opens, and ends: the caller never leaves its own."""
    cdef Opening *opening = <Opening *> argument
    if setns(opening.netns, CLONE_NEWNET) < 0:
        opening.result = fail(opening.handle, PATH_CONTROL, b"setns")
    else:
        opening.result = open_here(opening)
    return NULL


cdef int open_in(Handle *handle, intptr_t netns, bint with_io) noexcept nogil:
    cdef Opening opening
    cdef pthread_t thread
    cdef int error
    opening.handle = handle
    opening.netns = <int> netns
    opening.with_io = with_io
    opening.result = 0
    if netns < 0:
        return open_here(&opening)
    error = pthread_create(&thread, NULL, open_there, &opening)
    if error:
        handle.failed[PATH_CONTROL] = b"pthread_create"
        return -error
    pthread_join(thread, NULL)
    return opening.result


cdef int os_open(Handle *handle, const OpenRequest *request) noexcept nogil:
    cdef int result
    handle_clear(handle)
    handle.owned = 1
    handle.mode = MODE_NONBLOCKING
    result = os_rewake(handle)
    if result == 0:
        result = open_in(handle, request.netns, True)
    if result == 0:
        result = attach(handle, request)
    if result < 0:
        os_close(handle)
    return result


cdef int attach(Handle *handle, const OpenRequest *request) noexcept nogil:
    """Make the interface, or take the queue of one that is there (TUNSETIFF)."""
    cdef int got = 0
    cdef int result
    cdef int flags = IFF_TAP if request.layer == LAYER_TAP else IFF_TUN
    cdef bint was_there = False
    if request.flags & OPEN_PACKET_INFORMATION:
        handle.packet_information = 4
    else:
        flags |= IFF_NO_PI
    if request.flags & OPEN_EXCLUSIVE:
        flags |= IFF_TUN_EXCL
    if request.flags & OPEN_VIRTIO_HEADER:
        flags |= IFF_VNET_HDR
    if request.flags & OPEN_MULTI_QUEUE:
        flags |= IFF_MULTI_QUEUE
        was_there = exists(handle, request.name)
    handle.layer = request.layer
    result = take_queue(handle, request.name, flags, &got)
    if result < 0:
        return result
    # Beside another queue, or persistent without one.
    handle.created = not (was_there or got & IFF_PERSIST)
    if request.flags & OPEN_VIRTIO_HEADER:
        handle.framing[PATH_RECV] = handle.framing[PATH_SEND] = FRAMING_VIRTIO
        result = read_header_size(handle, not request.flags & OPEN_MULTI_QUEUE)
        if result < 0:
            return result
    # Offloads outlive the program that set them on a persistent interface.
    return os_set(handle, SETTING_OFFLOAD, 0)


cdef bint exists(Handle *handle, const char *name) noexcept nogil:
    """Whether there is an interface of this name where the device is opened."""
    cdef ifreq request
    memset(&request, 0, sizeof(request))
    strncpy(request.ifr_name, name, NAME_SIZE - 1)
    return ioctl(<int> handle.control[1], SIOCGIFINDEX, &request) == 0


cdef int take_queue(Handle *handle, const char *name, int flags, int *got) noexcept nogil:
    """TUNSETIFF, and what came of it: beside a queue that is open, other flags are silently ignored."""
    cdef ifreq request
    cdef int64_t has_header = 0
    memset(&request, 0, sizeof(request))
    strncpy(request.ifr_name, name, NAME_SIZE - 1)
    request.ifr_flags = <short> flags
    if ioctl(<int> handle.io, TUNSETIFF, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(TUNSETIFF)")
    if ioctl(<int> handle.io, TUNGETIFF, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(TUNGETIFF)")
    got[0] = request.ifr_flags
    if flags & IFF_MULTI_QUEUE and os_get(handle, SETTING_PACKET_INFORMATION, &has_header) < 0:
        has_header = not flags & IFF_NO_PI
    if (flags ^ got[0]) & IFF_VNET_HDR or flags & IFF_MULTI_QUEUE and has_header != (not flags & IFF_NO_PI):
        handle.failed[PATH_CONTROL] = OTHER_FLAGS
        return -EBUSY
    return 0


cdef int read_header_size(Handle *handle, bint alone) noexcept nogil:
    """Bytes of the virtio-net header: ours, or what the interface has where another queue may mind."""
    cdef int size = 0
    cdef int native = 0
    if ioctl(<int> handle.io, TUNGETVNETHDRSZ, &size) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(TUNGETVNETHDRSZ)")
    if not alone and size > LARGEST_HEADER:
        handle.failed[PATH_CONTROL] = LONG_HEADER
        return -EOPNOTSUPP
    if alone:
        size = VIRTIO_HEADER_SIZE
        if ioctl(<int> handle.io, TUNSETVNETHDRSZ, &size) < 0:
            return fail(handle, PATH_CONTROL, b"ioctl(TUNSETVNETHDRSZ)")
        # The byte order of its fields outlives a program too; a kernel that cannot change it says EINVAL.
        ioctl(<int> handle.io, TUNSETVNETLE, &native)
        ioctl(<int> handle.io, TUNSETVNETBE, &native)
    handle.header_size = size
    return 0


cdef int os_open_queue(Handle *handle, Handle *of) noexcept nogil:
    cdef int result = -EAGAIN
    cdef int tries = 3
    while result == -EAGAIN and tries:
        result = open_queue(handle, of)
        tries -= 1
        if result < 0:
            os_close(handle)
    return -ENODEV if result == -EAGAIN else result


cdef int open_queue(Handle *handle, Handle *of) noexcept nogil:
    """-EAGAIN if the interface was renamed or moved meanwhile, and the name led elsewhere."""
    cdef char name[NAME_SIZE]
    cdef int flags = IFF_MULTI_QUEUE | (IFF_TAP if of.layer == LAYER_TAP else IFF_TUN)
    cdef int got
    cdef int result
    handle_clear(handle)
    handle.owned = 1
    handle.mode = MODE_NONBLOCKING
    handle.layer = of.layer
    handle.framing[PATH_RECV] = of.framing[PATH_RECV]
    handle.framing[PATH_SEND] = of.framing[PATH_SEND]
    handle.header_size = of.header_size
    handle.prefix = of.prefix
    handle.packet_information = of.packet_information
    handle.offload = of.offload
    if not of.packet_information and not of.prefix:
        flags |= IFF_NO_PI
    if of.header_size:
        flags |= IFF_VNET_HDR
    result = os_get_name(of, name)
    if result < 0:
        handle.failed[PATH_CONTROL] = of.failed[PATH_CONTROL]
        return result
    result = os_rewake(handle)
    if result == 0:
        result = open_beside(handle, of, True)
    if result == 0:
        result = take_queue(handle, name, flags, &got)
    if result == 0 and not is_same_interface(handle, of):
        handle.failed[PATH_CONTROL] = b"ioctl(TUNSETIFF)"
        result = -EAGAIN
    return result


cdef int open_beside(Handle *handle, const Handle *of, bint with_io) noexcept nogil:
    """The descriptors belong to the namespace of another handle's interface."""
    cdef intptr_t netns = ioctl(<int> of.io, TUNGETDEVNETNS)      # refused without rights: then it is our own
    cdef int result = open_in(handle, -1 if netns < 0 or realm_of(<int> netns) == own_realm() else netns, with_io)
    close_fd(&netns)
    return result


cdef bint is_same_interface(Handle *one, Handle *other) noexcept nogil:
    """A name that is not there makes a new interface, which goes when its queue is closed."""
    cdef int64_t index = 0
    cdef int64_t other_index = 0
    return (
        os_get(one, SETTING_INDEX, &index) == 0 and os_get(other, SETTING_INDEX, &other_index) == 0
        and index == other_index and realm_behind(one) == realm_behind(other)
    )


cdef uint64_t realm_behind(const Handle *handle) noexcept nogil:
    """What identifies the namespace of the interface; 0 without the rights to know."""
    cdef intptr_t netns = ioctl(<int> handle.io, TUNGETDEVNETNS)
    cdef uint64_t realm = realm_of(<int> netns) if netns >= 0 else 0
    close_fd(&netns)
    return realm


cdef int os_adopt(Handle *handle, intptr_t io) noexcept nogil:
    cdef ifreq request
    cdef int64_t has_header = 0
    cdef int result
    handle_clear(handle)
    handle.io = io
    if fcntl(<int> io, F_GETFL) < 0:
        return fail(handle, PATH_CONTROL, b"fcntl(F_GETFL)")
    handle.mode = socket_mode(<int> io)
    if handle.mode == MODE_POLL:
        handle.mode = MODE_NOWAIT
        memset(&request, 0, sizeof(request))
        if ioctl(<int> io, TUNGETIFF, &request) < 0:
            return fail(handle, PATH_CONTROL, b"ioctl(TUNGETIFF)")
        handle.layer = LAYER_TAP if request.ifr_flags & IFF_TAP else LAYER_TUN
        handle.detached = (request.ifr_flags & IFF_DETACH_QUEUE) != 0
        if request.ifr_flags & IFF_VNET_HDR:
            handle.framing[PATH_RECV] = handle.framing[PATH_SEND] = FRAMING_VIRTIO
            if ioctl(<int> io, TUNGETVNETHDRSZ, &handle.header_size) < 0:
                return fail(handle, PATH_CONTROL, b"ioctl(TUNGETVNETHDRSZ)")
            if handle.header_size > LARGEST_HEADER:
                handle.failed[PATH_CONTROL] = LONG_HEADER
                return -EOPNOTSUPP
            handle.offload = OFFLOAD_UNKNOWN
        # TUNGETIFF cannot say whether there is a header: IFF_NOFILTER is the same bit as IFF_NO_PI.
        if os_get(handle, SETTING_PACKET_INFORMATION, &has_header) == 0 and has_header:
            handle.prefix = 4
        if has_header and handle.header_size:
            os_close(handle)
            handle.failed[PATH_CONTROL] = BOTH_HEADERS
            return -EOPNOTSUPP
    result = os_rewake(handle)
    if result < 0:
        os_close(handle)
    return result


cdef intptr_t os_find(Handle *handle) noexcept nogil:
    handle_clear(handle)
    handle.failed[PATH_CONTROL] = b"a descriptor from the system"
    return -EOPNOTSUPP


cdef void os_own(Handle *handle) noexcept nogil:
    cdef int flags = fcntl(<int> handle.io, F_GETFL)
    if handle.mode == MODE_NOWAIT and fcntl(<int> handle.io, F_SETFL, flags | O_NONBLOCK) == 0:
        handle.mode = MODE_NONBLOCKING
    handle.owned = 1


cdef int os_inspect(Handle *handle, const char *name) noexcept nogil:
    cdef int result
    handle_clear(handle)
    strncpy(handle.name, name, NAME_SIZE - 1)
    handle.name[NAME_SIZE - 1] = 0
    result = open_in(handle, -1, False)
    if result < 0:
        os_close(handle)
    return result


cdef void os_close(Handle *handle) noexcept nogil:
    if handle.owned:
        close_fd(&handle.io)
    handle.io = -1
    close_fd(&handle.outlet)
    close_fd(&handle.wake[0])
    close_fd(&handle.control[0])
    close_fd(&handle.control[1])


# --- packets and waiting ---

# struct tun_pi of an adopted descriptor that has one: flags, then the Ethernet type.
cdef const uint8_t *PI_IPV4 = <const uint8_t *> b"\x00\x00\x08\x00"
cdef const uint8_t *PI_IPV6 = <const uint8_t *> b"\x00\x00\x86\xdd"


cdef int os_recv(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    return posix_recv(handle, slots, start, stop, error)


cdef int os_send(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    if handle.detached:
        return refuse_detached(handle, error)
    return posix_send(handle, slots, start, stop, PI_IPV4, PI_IPV6, error)


cdef int refuse_detached(Handle *handle, int *error) noexcept nogil:
    """The kernel would take the packet all the same, but such a queue is to carry none."""
    handle.failed[PATH_SEND] = b"write"
    error[0] = EUNATCH
    return 0


cdef intptr_t os_recv_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    return posix_recv_parts(handle, parts, count)


cdef intptr_t os_send_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    cdef int error = 0
    if handle.detached:
        refuse_detached(handle, &error)
        return -error
    return posix_send_parts(handle, parts, count)


cdef int os_wait(Handle *handle, int path, intptr_t other, int64_t timeout_ns) noexcept nogil:
    cdef int outcome = posix_wait(handle, path, other, timeout_ns)
    if outcome != IN_ERROR:
        return outcome
    if handle.layer == LAYER_UNKNOWN:
        return 1                      # a socket: the next call tells
    handle.failed[path] = b"poll"
    return -EBADFD                    # what read and write say then


cdef intptr_t os_outlet(Handle *handle) noexcept nogil:
    """An epoll descriptor: an event loop asks for EPOLLOUT alone, and is not told of a deletion then."""
    cdef epoll_event wanted
    if handle.outlet < 0:
        memset(&wanted, 0, sizeof(wanted))
        wanted.events = EPOLLOUT | EPOLLPRI
        handle.outlet = epoll_create1(EPOLL_CLOEXEC)
        if epoll_ctl(<int> handle.outlet, EPOLL_CTL_ADD, <int> handle.io, &wanted) < 0:
            close_fd(&handle.outlet)
    return handle.outlet


cdef void *os_notify(Handle *handle, int path, intptr_t other, Tell tell, void *argument) noexcept nogil:
    return NULL


cdef void os_unnotify(void *notification) noexcept nogil:
    pass


cdef void os_wake(Handle *handle) noexcept nogil:
    cdef uint64_t one = 1
    write(<int> handle.wake[0], &one, sizeof(one))


cdef void os_unwake(Handle *handle) noexcept nogil:
    cdef uint64_t count
    read(<int> handle.wake[0], &count, sizeof(count))


cdef int os_rewake(Handle *handle) noexcept nogil:
    if handle.io >= 0:
        # Two processes on one netlink socket would read each other's answers; opened anew when used.
        close_fd(&handle.control[0])
        close_fd(&handle.control[1])
    close_fd(&handle.outlet)
    close_fd(&handle.wake[0])
    handle.wake[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if handle.wake[0] < 0:
        return fail(handle, PATH_CONTROL, b"eventfd")
    return 0


# --- configuration ---

cdef struct Link:
    int index
    uint32_t flags
    uint32_t mtu
    uint32_t tx_queue_len
    int64_t owner
    int64_t group
    int layer
    uint8_t carrier
    uint8_t persist
    uint8_t packet_information
    bint quiet
    uint8_t mac[MAC_SIZE]
    bint has_mac
    char name[NAME_SIZE]
    rtnl_link_stats64 statistics


cdef int visit_link(const nlmsghdr *header, const uint8_t *body, uint32_t size, void *result) noexcept nogil:
    cdef Link *link = <Link *> result
    cdef const uint8_t *end = body + size
    cdef const uint8_t *cursor = body + aligned(sizeof(ifinfomsg))
    cdef const uint8_t *inner
    cdef const uint8_t *inner_end
    cdef const uint8_t *value = NULL
    cdef uint32_t value_size = 0
    cdef int kind = 0
    cdef bint is_tun = False
    cdef ifinfomsg info
    if size < sizeof(info):
        return -EINVAL
    memcpy(&info, body, sizeof(info))
    link.index = info.ifi_index
    link.flags = info.ifi_flags
    link.owner = link.group = -1
    link.quiet = True         # without IPv6 there is nothing to say
    while True:
        cursor = next_attribute(cursor, end, &kind, &value, &value_size)
        if cursor == NULL:
            return 0
        if kind == IFLA_MTU and value_size == 4:
            memcpy(&link.mtu, value, 4)
        elif kind == IFLA_TXQLEN and value_size == 4:
            memcpy(&link.tx_queue_len, value, 4)
        elif kind == IFLA_CARRIER and value_size == 1:
            link.carrier = value[0]
        elif kind == IFLA_ADDRESS and value_size == MAC_SIZE:
            memcpy(link.mac, value, MAC_SIZE)
            link.has_mac = True
        elif kind == IFLA_IFNAME and value_size <= NAME_SIZE:
            memcpy(link.name, value, value_size)
        elif kind == IFLA_STATS64:
            memcpy(&link.statistics, value, min(value_size, sizeof(link.statistics)))
        elif kind == IFLA_AF_SPEC:
            link.quiet = reads_quiet(value, value + value_size)
        elif kind == IFLA_LINKINFO:
            inner = value
            inner_end = value + value_size
            while True:
                inner = next_attribute(inner, inner_end, &kind, &value, &value_size)
                if inner == NULL:
                    break
                if kind == IFLA_INFO_KIND:
                    is_tun = value_size == 4 and strcmp(<const char *> value, b"tun") == 0
                elif kind == IFLA_INFO_DATA and is_tun:
                    read_tun_data(value, value + value_size, link)


cdef bint reads_quiet(const uint8_t *cursor, const uint8_t *end) noexcept nogil:
    """Whether IFLA_AF_SPEC says that no IPv6 address is made by itself."""
    cdef const uint8_t *value = NULL
    cdef const uint8_t *inner
    cdef const uint8_t *inner_end
    cdef uint32_t size = 0
    cdef int kind = 0
    while True:
        cursor = next_attribute(cursor, end, &kind, &value, &size)
        if cursor == NULL:
            return True
        if kind != AF_INET6:
            continue
        inner = value
        inner_end = value + size
        while True:
            inner = next_attribute(inner, inner_end, &kind, &value, &size)
            if inner == NULL:
                break
            if kind == IFLA_INET6_ADDR_GEN_MODE and size == 1:
                return value[0] == IN6_ADDR_GEN_MODE_NONE


cdef void read_tun_data(const uint8_t *cursor, const uint8_t *end, Link *link) noexcept nogil:
    cdef const uint8_t *value = NULL
    cdef uint32_t size = 0
    cdef uint32_t number
    cdef int kind = 0
    while True:
        cursor = next_attribute(cursor, end, &kind, &value, &size)
        if cursor == NULL:
            return
        if kind == IFLA_TUN_TYPE and size == 1:
            link.layer = LAYER_TAP if value[0] == IFF_TAP else LAYER_TUN
        elif kind == IFLA_TUN_PI and size == 1:
            link.packet_information = value[0]
        elif kind == IFLA_TUN_PERSIST and size == 1:
            link.persist = value[0]
        elif size == 4:
            memcpy(&number, value, 4)
            if kind == IFLA_TUN_OWNER:
                link.owner = number
            elif kind == IFLA_TUN_GROUP:
                link.group = number


cdef int ensure_control(Handle *handle, bint to_write) noexcept nogil:
    """Configuration sockets in the namespace the device is in now."""
    cdef int netns
    cdef int error
    cdef intptr_t netns_fd
    cdef uint64_t realm
    cdef int result = 0
    if handle.io < 0:
        return 0
    if handle.layer == LAYER_UNKNOWN:
        handle.failed[PATH_CONTROL] = b"ioctl(TUNGETIFF)"
        return -ENOTTY
    netns = ioctl(<int> handle.io, TUNGETDEVNETNS)
    if netns < 0:
        error = errno
        if error == EBADFD or error == EBADF:
            return fail(handle, PATH_CONTROL, b"ioctl(TUNGETDEVNETNS)")
        if handle.control[0] < 0:
            result = open_in(handle, -1, False)
            if error == EPERM:
                handle.realm = 0      # adopted, and perhaps of another namespace: look, do not touch
        if result == 0 and to_write and handle.realm == 0:
            handle.failed[PATH_CONTROL] = b"ioctl(TUNGETDEVNETNS)"
            return -EPERM
        return result
    netns_fd = netns
    realm = realm_of(netns)
    if handle.control[0] < 0 or realm != handle.realm:
        close_fd(&handle.control[0])
        close_fd(&handle.control[1])
        result = open_in(handle, -1 if realm == own_realm() else netns_fd, False)
    close_fd(&netns_fd)
    return result


cdef int find_link(Handle *handle, Link *link, bint to_write) noexcept nogil:
    """Everything the kernel says about the interface behind the handle."""
    cdef Request request
    cdef ifreq name
    cdef ifinfomsg info
    cdef int result = ensure_control(handle, to_write)
    if result < 0:
        return result
    result = os_get_name(handle, name.ifr_name)
    if result < 0:
        return result
    memset(link, 0, sizeof(Link))
    memset(&info, 0, sizeof(info))
    begin(&request, RTM_GETLINK, 0, &info, sizeof(info))
    put(&request, IFLA_IFNAME, name.ifr_name, <uint32_t> strlen(name.ifr_name) + 1)
    handle.failed[PATH_CONTROL] = b"netlink(RTM_GETLINK)"
    result = exchange(<int> handle.control[0], &request, visit_link, link)
    if result == 0 and handle.io >= 0 and link.layer and link.layer != handle.layer:
        result = -ENODEV
    return result


cdef int change_link(Handle *handle, int attribute, const void *value, uint32_t size, int up) noexcept nogil:
    """RTM_NEWLINK with one attribute, or with `up` 0 or 1 the flag; -1 leaves the flag alone."""
    cdef Request request
    cdef ifinfomsg info
    cdef Link link
    cdef uint32_t outer
    cdef uint32_t middle
    cdef int result = find_link(handle, &link, True)
    if result < 0:
        return result
    memset(&info, 0, sizeof(info))
    info.ifi_index = link.index
    if up >= 0:
        info.ifi_change = IFF_UP
        info.ifi_flags = IFF_UP if up else 0
    begin(&request, RTM_NEWLINK, 0, &info, sizeof(info))
    if attribute == IFLA_AF_SPEC:
        outer = put(&request, IFLA_AF_SPEC | NLA_F_NESTED, NULL, 0)
        middle = put(&request, AF_INET6 | NLA_F_NESTED, NULL, 0)
        put(&request, IFLA_INET6_ADDR_GEN_MODE, value, size)
        nest(&request, middle)
        nest(&request, outer)
    elif size:
        put(&request, attribute, value, size)
    handle.failed[PATH_CONTROL] = b"netlink(RTM_NEWLINK)"
    return exchange(<int> handle.control[0], &request, NULL, NULL)


cdef int os_get(Handle *handle, int setting, int64_t *value) noexcept nogil:
    cdef Link link
    cdef int result
    if setting == SETTING_OFFLOAD:
        value[0] = handle.offload
        return 0
    if setting == SETTING_ATTACHED:
        return get_attached(handle, value)
    result = find_link(handle, &link, False)
    if result < 0:
        return result
    if setting == SETTING_INDEX:
        value[0] = link.index
    elif setting == SETTING_MTU:
        value[0] = link.mtu
    elif setting == SETTING_UP:
        value[0] = (link.flags & IFF_UP) != 0
    elif setting == SETTING_RUNNING:
        value[0] = (link.flags & IFF_RUNNING) != 0
    elif setting == SETTING_CARRIER:
        value[0] = link.carrier
    elif setting == SETTING_TX_QUEUE_LEN:
        value[0] = link.tx_queue_len
    elif setting == SETTING_PERSIST:
        value[0] = link.persist
    elif setting == SETTING_OWNER:
        value[0] = link.owner
    elif setting == SETTING_GROUP:
        value[0] = link.group
    elif setting == SETTING_QUIET:
        value[0] = link.quiet
    elif setting == SETTING_PACKET_INFORMATION:
        value[0] = link.packet_information
    elif setting == SETTING_LAYER:
        value[0] = link.layer
    else:
        return -EOPNOTSUPP
    return 0


cdef int driver_ioctl(Handle *handle, unsigned long request, int64_t value, const char *call) noexcept nogil:
    """These ioctls take the value itself as their argument, not a pointer to it."""
    if handle.layer == LAYER_UNKNOWN:
        handle.failed[PATH_CONTROL] = call
        return -ENOTTY
    if ioctl(<int> handle.io, request, <unsigned long> value) < 0:
        return fail(handle, PATH_CONTROL, call)
    return 0


cdef int set_offload(Handle *handle, int wanted) noexcept nogil:
    """As much of it as the kernel offers: it takes a mask whole or not at all (TUNSETOFFLOAD)."""
    cdef int tries[4]
    cdef int mask
    cdef int i
    cdef int result = 0
    tries[0] = wanted | (OFFLOAD_CHECKSUM if wanted else 0)     # the others need it
    tries[1] = tries[0] & ~OFFLOAD_UDP                          # since Linux 6.2
    tries[2] = tries[0] & OFFLOAD_CHECKSUM
    tries[3] = 0
    if handle.layer == LAYER_UNKNOWN and handle.framing[PATH_SEND] == FRAMING_VIRTIO:
        handle.offload = tries[0]     # a socket: there is no kernel to ask
        return 0
    for i in range(4):
        mask = TUN_F_CSUM if tries[i] else 0
        if tries[i] & OFFLOAD_TCP4:
            mask |= TUN_F_TSO4 | TUN_F_TSO_ECN
        if tries[i] & OFFLOAD_TCP6:
            mask |= TUN_F_TSO6 | TUN_F_TSO_ECN
        if tries[i] & OFFLOAD_UDP:
            mask |= TUN_F_USO4 | TUN_F_USO6
        result = driver_ioctl(handle, TUNSETOFFLOAD, mask, b"ioctl(TUNSETOFFLOAD)")
        if result != -EINVAL:
            break
    if result == 0:
        handle.offload = tries[i]
    return result


cdef int get_attached(Handle *handle, int64_t *value) noexcept nogil:
    cdef ifreq request
    value[0] = 1
    if handle.layer == LAYER_UNKNOWN:
        return 0                      # a socket: there are no others
    memset(&request, 0, sizeof(request))
    if ioctl(<int> handle.io, TUNGETIFF, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(TUNGETIFF)")
    value[0] = not request.ifr_flags & IFF_DETACH_QUEUE
    return 0


cdef int set_attached(Handle *handle, bint attached) noexcept nogil:
    cdef ifreq request
    cdef int64_t was_attached
    cdef int result = get_attached(handle, &was_attached)
    if handle.layer == LAYER_UNKNOWN:
        handle.failed[PATH_CONTROL] = b"ioctl(TUNSETQUEUE)"
        return -ENOTTY
    if result < 0:
        return result
    if attached != was_attached:
        memset(&request, 0, sizeof(request))
        request.ifr_flags = IFF_ATTACH_QUEUE if attached else IFF_DETACH_QUEUE
        if ioctl(<int> handle.io, TUNSETQUEUE, &request) < 0:
            return fail(handle, PATH_CONTROL, b"ioctl(TUNSETQUEUE)")
    handle.detached = not attached
    return 0


cdef int os_set(Handle *handle, int setting, int64_t value) noexcept nogil:
    cdef uint32_t number = <uint32_t> value
    cdef uint8_t byte = <uint8_t> value
    cdef int result
    if setting == SETTING_MTU:
        return change_link(handle, IFLA_MTU, &number, sizeof(number), -1)
    if setting == SETTING_UP:
        return change_link(handle, 0, NULL, 0, value != 0)
    if setting == SETTING_CARRIER:
        return change_link(handle, IFLA_CARRIER, &byte, sizeof(byte), -1)
    if setting == SETTING_TX_QUEUE_LEN:
        return change_link(handle, IFLA_TXQLEN, &number, sizeof(number), -1)
    if setting == SETTING_QUIET:
        byte = IN6_ADDR_GEN_MODE_NONE if value else IN6_ADDR_GEN_MODE_EUI64
        result = change_link(handle, IFLA_AF_SPEC, &byte, sizeof(byte), -1)
        return 0 if result == -EAFNOSUPPORT else result    # no IPv6 on it: quiet already
    if setting == SETTING_PERSIST:
        return driver_ioctl(handle, TUNSETPERSIST, value, b"ioctl(TUNSETPERSIST)")
    if setting == SETTING_OWNER:
        return driver_ioctl(handle, TUNSETOWNER, value, b"ioctl(TUNSETOWNER)")
    if setting == SETTING_GROUP:
        return driver_ioctl(handle, TUNSETGROUP, value, b"ioctl(TUNSETGROUP)")
    if setting == SETTING_OFFLOAD:
        return set_offload(handle, <int> value)
    if setting == SETTING_ATTACHED:
        return set_attached(handle, value != 0)
    handle.failed[PATH_CONTROL] = b"os_set"
    return -EOPNOTSUPP


cdef int os_get_name(Handle *handle, char *name) noexcept nogil:
    cdef ifreq request
    if handle.io < 0:
        memcpy(name, handle.name, NAME_SIZE)
        return 0
    memset(&request, 0, sizeof(request))
    if ioctl(<int> handle.io, TUNGETIFF, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(TUNGETIFF)")
    memcpy(name, request.ifr_name, NAME_SIZE)
    name[NAME_SIZE - 1] = 0
    return 0


cdef int os_set_name(Handle *handle, const char *name) noexcept nogil:
    return change_link(handle, IFLA_IFNAME, name, <uint32_t> strlen(name) + 1, -1)


cdef int os_get_mac(Handle *handle, uint8_t *mac) noexcept nogil:
    cdef Link link
    cdef int result = find_link(handle, &link, False)
    if result < 0:
        return result
    if not link.has_mac:
        return -EOPNOTSUPP
    memcpy(mac, link.mac, MAC_SIZE)
    return 0


cdef int os_set_mac(Handle *handle, const uint8_t *mac) noexcept nogil:
    return change_link(handle, IFLA_ADDRESS, mac, MAC_SIZE, -1)


cdef struct AddressList:
    int index
    Address *addresses
    int capacity
    int count


cdef int visit_address(const nlmsghdr *header, const uint8_t *body, uint32_t size, void *result) noexcept nogil:
    cdef AddressList *found = <AddressList *> result
    cdef const uint8_t *end = body + size
    cdef const uint8_t *cursor = body + aligned(sizeof(ifaddrmsg))
    cdef const uint8_t *value = NULL
    cdef uint32_t value_size = 0
    cdef uint32_t width
    cdef int kind = 0
    cdef uint32_t flags
    cdef bint has_local = False
    cdef ifaddrmsg info
    cdef Address address
    if size < sizeof(info):
        return -EINVAL
    memcpy(&info, body, sizeof(info))
    if <int> info.ifa_index != found.index or info.ifa_family not in (AF_INET, AF_INET6):
        return 0
    memset(&address, 0, sizeof(address))
    address.family = 4 if info.ifa_family == AF_INET else 6
    address.prefix = info.ifa_prefixlen
    width = 4 if address.family == 4 else 16
    while True:
        cursor = next_attribute(cursor, end, &kind, &value, &value_size)
        if cursor == NULL:
            break
        if kind == IFA_LOCAL and value_size == width:
            memcpy(address.ip, value, width)
            has_local = True
        elif kind == IFA_ADDRESS and value_size == width:
            memcpy(address.peer, value, width)
        elif kind == IFA_BROADCAST and value_size == width:
            memcpy(address.broadcast, value, width)
            address.has_broadcast = 1
        elif kind == IFA_FLAGS and value_size == 4:
            memcpy(&flags, value, 4)
            address.no_route = (flags & IFA_F_NOPREFIXROUTE) != 0
        elif kind == IFA_PROTO and value_size == 1:
            address.automatic = value[0] == IFAPROT_KERNEL_LL
        elif kind == IFA_RT_PRIORITY and value_size == 4:
            memcpy(&address.metric, value, 4)
    # IFA_ADDRESS is the peer if there is an IFA_LOCAL beside it that differs (if_addr.h).
    if not has_local:
        memcpy(address.ip, address.peer, width)
    address.has_peer = memcmp(address.ip, address.peer, width) != 0
    if found.count < found.capacity:
        found.addresses[found.count] = address
    found.count += 1
    return 0


cdef int os_get_addresses(Handle *handle, Address *addresses, int capacity) noexcept nogil:
    cdef Request request
    cdef ifaddrmsg info
    cdef AddressList found
    cdef Link link
    cdef int _attempt
    cdef int result = find_link(handle, &link, False)
    if result < 0:
        return result
    handle.failed[PATH_CONTROL] = b"netlink(RTM_GETADDR)"
    for _attempt in range(8):
        found.index = link.index
        found.addresses = addresses
        found.capacity = capacity
        found.count = 0
        memset(&info, 0, sizeof(info))
        begin(&request, RTM_GETADDR, NLM_F_DUMP, &info, sizeof(info))
        result = exchange(<int> handle.control[0], &request, visit_address, &found)
        if result != -EAGAIN:
            break
    return found.count if result == 0 else result


cdef int change_address(Handle *handle, int kind, int flags, const Address *address, const char *call) noexcept nogil:
    cdef Request request
    cdef ifaddrmsg info
    cdef Link link
    cdef uint32_t width = 4 if address.family == 4 else 16
    cdef uint32_t address_flags = 0
    cdef int result = find_link(handle, &link, True)
    if result < 0:
        return result
    memset(&info, 0, sizeof(info))
    info.ifa_family = AF_INET if address.family == 4 else AF_INET6
    info.ifa_prefixlen = <uint8_t> address.prefix
    info.ifa_index = <uint32_t> link.index
    begin(&request, kind, flags, &info, sizeof(info))
    put(&request, IFA_LOCAL, address.ip, width)
    if address.has_peer:
        put(&request, IFA_ADDRESS, address.peer, width)
    else:
        put(&request, IFA_ADDRESS, address.ip, width)
    if kind == RTM_NEWADDR:
        if address.family == 6:
            address_flags |= IFA_F_NODAD      # usable at once
        if address.no_route:
            address_flags |= IFA_F_NOPREFIXROUTE
        put(&request, IFA_FLAGS, &address_flags, sizeof(address_flags))
        if address.has_broadcast:
            put(&request, IFA_BROADCAST, address.broadcast, width)
        if address.metric:
            put(&request, IFA_RT_PRIORITY, &address.metric, sizeof(address.metric))
    handle.failed[PATH_CONTROL] = call
    return exchange(<int> handle.control[0], &request, NULL, NULL)


cdef int os_add_address(Handle *handle, const Address *address) noexcept nogil:
    cdef int result = change_address(
        handle, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, address, b"netlink(RTM_NEWADDR)")
    if result == -EACCES:
        return -EAFNOSUPPORT      # IPv6 is switched off on the interface: no matter of rights
    return result


cdef int os_remove_address(Handle *handle, const Address *address) noexcept nogil:
    return change_address(handle, RTM_DELADDR, 0, address, b"netlink(RTM_DELADDR)")


cdef int change_route(Handle *handle, int kind, int flags, const Route *route, const char *call) noexcept nogil:
    cdef rtmsg body
    cdef Request request
    cdef Link link
    cdef uint32_t index
    cdef uint32_t width = 4 if route.family == 4 else 16
    cdef int result = find_link(handle, &link, True)
    if result < 0:
        return result
    index = <uint32_t> link.index
    memset(&body, 0, sizeof(body))
    body.rtm_family = <uint8_t> (AF_INET if route.family == 4 else AF_INET6)
    body.rtm_dst_len = <uint8_t> route.prefix
    body.rtm_table = RT_TABLE_MAIN
    body.rtm_type = RTN_UNICAST
    body.rtm_scope = RT_SCOPE_UNIVERSE if route.has_gateway or route.family == 6 else RT_SCOPE_LINK
    if kind == RTM_NEWROUTE:
        body.rtm_protocol = RTPROT_STATIC
    begin(&request, kind, flags, &body, sizeof(body))
    put(&request, RTA_DST, route.network, width)
    put(&request, RTA_OIF, &index, sizeof(index))
    if route.has_gateway:
        put(&request, RTA_GATEWAY, route.gateway, width)
    if route.metric:
        put(&request, RTA_PRIORITY, &route.metric, sizeof(route.metric))
    handle.failed[PATH_CONTROL] = call
    return exchange(<int> handle.control[0], &request, NULL, NULL)


cdef int os_add_route(Handle *handle, const Route *route) noexcept nogil:
    return change_route(handle, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route, b"netlink(RTM_NEWROUTE)")


cdef int os_remove_route(Handle *handle, const Route *route) noexcept nogil:
    return change_route(handle, RTM_DELROUTE, 0, route, b"netlink(RTM_DELROUTE)")


cdef int os_set_broadcast(Handle *handle, const uint8_t *broadcast) noexcept nogil:
    cdef uint8_t request[64]          # struct ifreq: the name, then a sockaddr_in
    cdef sockaddr_in address
    cdef Link link
    cdef int result = find_link(handle, &link, True)
    if result < 0:
        return result
    memset(request, 0, sizeof(request))
    memset(&address, 0, sizeof(address))
    address.sin_family = AF_INET
    memcpy(&address.sin_addr, broadcast, 4)
    memcpy(request, link.name, NAME_SIZE)
    memcpy(request + NAME_SIZE, &address, sizeof(address))
    if ioctl(<int> handle.control[1], SIOCSIFBRDADDR, request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(SIOCSIFBRDADDR)")
    return 0


cdef int os_get_statistics(Handle *handle, uint64_t *values) noexcept nogil:
    cdef Link link
    cdef int result = find_link(handle, &link, False)
    if result == 0:
        values[STATISTIC_RX_PACKETS] = link.statistics.rx_packets
        values[STATISTIC_TX_PACKETS] = link.statistics.tx_packets
        values[STATISTIC_RX_BYTES] = link.statistics.rx_bytes
        values[STATISTIC_TX_BYTES] = link.statistics.tx_bytes
        values[STATISTIC_RX_ERRORS] = link.statistics.rx_errors
        values[STATISTIC_TX_ERRORS] = link.statistics.tx_errors
        values[STATISTIC_RX_DROPPED] = link.statistics.rx_dropped
        values[STATISTIC_TX_DROPPED] = link.statistics.tx_dropped
    return result


# --- notifications ---

cdef int os_get_dns(Handle *handle, Address *servers, int capacity) noexcept nogil:
    return not_here(handle, b"name servers of an interface")


cdef int os_set_dns(Handle *handle, const Address *servers, int count) noexcept nogil:
    return not_here(handle, b"name servers of an interface")


cdef int os_watch(Handle *handle, Watch *watch) noexcept nogil:
    cdef sockaddr_nl address
    cdef Handle beside
    cdef Link link
    cdef int tries = 3
    cdef int result = -EAGAIN
    watch.io = -1
    memset(&address, 0, sizeof(address))
    address.nl_family = AF_NETLINK
    address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
    # The interface may move to another namespace meanwhile.
    while result == -EAGAIN and tries:
        tries -= 1
        handle_clear(&beside)
        result = open_beside(&beside, handle, False)
        if result == 0 and bind(<int> beside.control[0], <sockaddr *> &address, sizeof(address)) < 0:
            result = fail(&beside, PATH_CONTROL, b"bind(AF_NETLINK)")
        if result < 0:
            handle.failed[PATH_CONTROL] = beside.failed[PATH_CONTROL]
        else:
            result = find_link(handle, &link, False)
        if result == 0 and handle.realm and handle.realm != beside.realm:
            result = -EAGAIN
        if result == 0:
            watch.io = beside.control[0]
            watch.index = link.index
            beside.control[0] = -1
        os_close(&beside)
    return result


cdef int os_next_change(Watch *watch, Change *change) noexcept nogil:
    cdef uint8_t message[ANSWER_SIZE]
    cdef ssize_t size
    cdef int kind = CHANGE_NONE
    while kind == CHANGE_NONE:
        size = recv(<int> watch.io, message, sizeof(message), MSG_DONTWAIT)
        if size >= 0:
            kind = read_change(watch, message, size, change)
        elif errno == EAGAIN:
            break
        elif errno == ENOBUFS:
            return CHANGE_LOST
        elif errno != EINTR:
            return -errno
    return kind


cdef int read_change(const Watch *watch, const uint8_t *message, ssize_t size, Change *change) noexcept nogil:
    """What a notification says about the interface; each comes in a message of its own."""
    cdef const uint8_t *body = message + sizeof(nlmsghdr)
    cdef uint32_t body_size
    cdef nlmsghdr header
    cdef AddressList found
    cdef Link link
    if size < <ssize_t> sizeof(header):
        return CHANGE_NONE
    memcpy(&header, message, sizeof(header))
    if header.nlmsg_len < sizeof(header) or <ssize_t> header.nlmsg_len > size:
        return CHANGE_NONE
    body_size = header.nlmsg_len - <uint32_t> sizeof(header)
    memset(change, 0, sizeof(Change))
    if header.nlmsg_type in (RTM_NEWLINK, RTM_DELLINK):
        memset(&link, 0, sizeof(link))
        if visit_link(&header, body, body_size, &link) < 0 or link.index != watch.index:
            return CHANGE_NONE
        if body[0] != AF_UNSPEC:          # ifi_family: of a bridge, about its port
            return CHANGE_NONE
        if header.nlmsg_type == RTM_DELLINK:
            return CHANGE_MOVED
        change.up = (link.flags & IFF_UP) != 0
        change.running = (link.flags & IFF_RUNNING) != 0
        change.mtu = <int> link.mtu
        memcpy(change.name, link.name, NAME_SIZE)
        return CHANGE_LINK
    if header.nlmsg_type in (RTM_NEWADDR, RTM_DELADDR):
        found.index = watch.index
        found.addresses = &change.address
        found.capacity = 1
        found.count = 0
        if visit_address(&header, body, body_size, &found) < 0 or found.count != 1:
            return CHANGE_NONE
        return CHANGE_ADDRESS_ADDED if header.nlmsg_type == RTM_NEWADDR else CHANGE_ADDRESS_REMOVED
    return CHANGE_NONE


cdef void os_unwatch(Watch *watch) noexcept nogil:
    close_fd(&watch.io)


# --- the system ---

cdef uint64_t os_capabilities() noexcept nogil:
    cdef uint64_t settings = (<uint64_t> 2 << SETTING_ATTACHED) - 1
    return settings | (
        <uint64_t> 1 << CAN_RENAME | <uint64_t> 1 << CAN_SET_MAC | <uint64_t> 1 << CAN_SET_BROADCAST
        | <uint64_t> 1 << CAN_SET_ADDRESSES | <uint64_t> 1 << CAN_OPEN_IN_NETNS | <uint64_t> 1 << CAN_TAP
        | <uint64_t> 1 << CAN_TUN | <uint64_t> 1 << CAN_PEER_ADDRESS | <uint64_t> 1 << CAN_STATISTICS
        | <uint64_t> 1 << CAN_METRIC | <uint64_t> 1 << CAN_MULTI_QUEUE | <uint64_t> 1 << CAN_WATCH
        | <uint64_t> 1 << CAN_ROUTE
    )


cdef int os_features(Handle *handle, uint32_t *features) noexcept nogil:
    cdef unsigned int flags = 0
    cdef int result
    handle_clear(handle)
    handle.owned = 1
    result = open_node(handle)
    if result == 0 and ioctl(<int> handle.io, TUNGETFEATURES, &flags) < 0:
        result = fail(handle, PATH_CONTROL, b"ioctl(TUNGETFEATURES)")
    os_close(handle)
    features[0] = (
        (1 << FEATURE_TUN if flags & IFF_TUN else 0)
        | (1 << FEATURE_TAP if flags & IFF_TAP else 0)
        | (1 << FEATURE_MULTI_QUEUE if flags & IFF_MULTI_QUEUE else 0)
        | (1 << FEATURE_VIRTIO_HEADER if flags & IFF_VNET_HDR else 0)
        | (1 << FEATURE_NAPI if flags & IFF_NAPI else 0)
    )
    return result


cdef struct NameList:
    char *names
    int capacity
    int count


cdef int visit_name(const nlmsghdr *header, const uint8_t *body, uint32_t size, void *result) noexcept nogil:
    cdef NameList *found = <NameList *> result
    cdef Link link
    cdef int outcome
    memset(&link, 0, sizeof(link))
    outcome = visit_link(header, body, size, &link)
    if outcome == 0 and link.layer:
        if found.count < found.capacity:
            memcpy(found.names + found.count * NAME_SIZE, link.name, NAME_SIZE)
        found.count += 1
    return outcome


cdef int os_interfaces(Handle *handle, char *names, int capacity) noexcept nogil:
    cdef Request request
    cdef ifinfomsg info
    cdef NameList found
    cdef int _attempt
    cdef int result = os_inspect(handle, b"")
    if result < 0:
        return result
    handle.failed[PATH_CONTROL] = b"netlink(RTM_GETLINK)"
    for _attempt in range(8):
        found.names = names
        found.capacity = capacity
        found.count = 0
        memset(&info, 0, sizeof(info))
        begin(&request, RTM_GETLINK, NLM_F_DUMP, &info, sizeof(info))
        result = exchange(<int> handle.control[0], &request, visit_name, &found)
        if result != -EAGAIN:
            break
    os_close(handle)
    return found.count if result == 0 else result


cdef int os_delete(Handle *handle, const char *name) noexcept nogil:
    cdef Request request
    cdef ifinfomsg info
    cdef Link link
    cdef int result = os_inspect(handle, name)
    if result < 0:
        return result
    result = find_link(handle, &link, True)
    if result == 0 and not link.layer:
        handle.failed[PATH_CONTROL] = b"netlink(RTM_DELLINK)"
        result = -EOPNOTSUPP              # never delete what is no TUN or TAP
    if result == 0:
        memset(&info, 0, sizeof(info))
        info.ifi_index = link.index
        begin(&request, RTM_DELLINK, 0, &info, sizeof(info))
        handle.failed[PATH_CONTROL] = b"netlink(RTM_DELLINK)"
        result = exchange(<int> handle.control[0], &request, NULL, NULL)
    os_close(handle)
    return result


cdef int write_file(Handle *handle, const char *path, const char *text, const char *call) noexcept nogil:
    cdef intptr_t fd = open_(path, O_RDWR | O_CLOEXEC)
    cdef int result = 0
    if fd < 0 or write(<int> fd, text, strlen(text)) < 0:
        result = fail(handle, PATH_CONTROL, call)
    close_fd(&fd)
    return result


cdef int os_delete_driver(Handle *handle, const char *libraries) noexcept nogil:
    handle_clear(handle)
    return not_here(handle, b"deleting a driver")


cdef int os_private_network(Handle *handle) noexcept nogil:
    cdef char mapping[64]
    cdef unsigned int user = geteuid()
    cdef unsigned int group = getegid()
    cdef int result
    handle_clear(handle)
    if unshare(CLONE_NEWNET | CLONE_NEWNS) < 0:
        if errno != EPERM:
            return fail(handle, PATH_CONTROL, b"unshare(CLONE_NEWNET)")
        if unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) < 0:
            return fail(handle, PATH_CONTROL, b"unshare(CLONE_NEWUSER)")
        result = write_file(handle, b"/proc/self/setgroups", b"deny", b"write(/proc/self/setgroups)")
        if result < 0:
            return result
        snprintf(mapping, sizeof(mapping), b"0 %u 1", user)
        result = write_file(handle, b"/proc/self/uid_map", mapping, b"write(/proc/self/uid_map)")
        if result < 0:
            return result
        snprintf(mapping, sizeof(mapping), b"0 %u 1", group)
        result = write_file(handle, b"/proc/self/gid_map", mapping, b"write(/proc/self/gid_map)")
        if result < 0:
            return result
    if mount(NULL, b"/", NULL, MS_REC | MS_PRIVATE, NULL) < 0:
        return fail(handle, PATH_CONTROL, b"mount(MS_PRIVATE)")
    result = os_inspect(handle, b"lo")
    if result == 0:
        result = os_set(handle, SETTING_UP, 1)
        os_close(handle)
    return result


cdef const char *ADVICE_NO_DRIVER = (
    b"the kernel offers no TUN/TAP here: load it with `modprobe tun`, and in a container pass the "
    b"device in (`--device /dev/net/tun`)"
)
cdef const char *ADVICE_NODE_RIGHTS = (
    b"this user may not open it: as root run `chmod 666 /dev/net/tun` (creating interfaces still takes"
    b" CAP_NET_ADMIN), or run as root"
)
cdef const char *ADVICE_OTHER_FLAGS = (
    b"another queue of the interface is open, with or without a virtio-net header or packet information;"
    b" open it with the same offload= and packet_information="
)
cdef const char *ADVICE_BOTH_HEADERS = (
    b"the descriptor was made with packet information and a virtio-net header; make it with IFF_NO_PI"
)
cdef const char *ADVICE_LONG_HEADER = (
    b"the virtio-net header of the interface is too long: set 10 or 12 bytes with TUNSETVNETHDRSZ"
)
cdef const char *ADVICE_DETACHED = b"the queue is detached: attach() it first"
cdef const char *ADVICE_TOO_MANY = b"the interface has as many queues as the kernel allows (256)"
cdef const char *ADVICE_ONE_QUEUE = b"the interface has a single queue: open it with queues=2 or more"
cdef const char *ADVICE_OTHER_KIND = (
    b"the name belongs to another kind of interface (TUN, TAP, multi-queue or neither): choose another"
    b" name or open it as what it is"
)
cdef const char *ADVICE_NET_ADMIN = (
    b"this takes CAP_NET_ADMIN: run as root, give the interpreter the capability (`setcap "
    b"cap_net_admin+ep`), or use a persistent interface made for this user (`tuntap add NAME --owner "
    b"USER`)"
)
cdef const char *ADVICE_SETNS_RIGHTS = b"entering a network namespace takes CAP_SYS_ADMIN there: run as root"
cdef const char *ADVICE_NO_NETNS = b"netns is no network namespace: see `ip netns`"
cdef const char *ADVICE_HAS_ADDRESS = b"the interface has this address already; see `addresses`"
cdef const char *ADVICE_NO_SUCH_ADDRESS = b"the kernel takes no such address on this interface"
cdef const char *ADVICE_HAS_ROUTE = b"there is such a route already; see `ip route`"
cdef const char *ADVICE_NO_ROUTE = b"the interface has no such route; see `ip route`"
cdef const char *ADVICE_NO_GATEWAY = b"the gateway must be in a subnet of this interface"
cdef const char *ADVICE_NO_INTERFACE = b"there is no such interface; see `tuntap list`"
cdef const char *ADVICE_NO_TUN = b"it is neither a TUN nor a TAP"
cdef const char *ADVICE_NO_ROOM = b"the buffer is smaller than the header in front of the packet, which is lost"
cdef const char *ADVICE_BAD_HEADER = b"the packet does not fit its virtio-net header and is lost; go on with the next"
cdef const char *ADVICE_FAMILY_OFF = (
    b"this address family is switched off on the interface (net.ipv6.conf.*.disable_ipv6)"
)


cdef int os_meaning(int path, int error, const char *failed, const char **advice) noexcept nogil:
    advice[0] = b""
    if path == PATH_CONTROL and strcmp(failed, b"open(/dev/net/tun)") == 0:
        if error in (ENOENT, ENODEV, ENXIO):
            advice[0] = ADVICE_NO_DRIVER
            return MEANS_UNSUPPORTED
        if error in (EACCES, EPERM):
            advice[0] = ADVICE_NODE_RIGHTS
            return MEANS_PRIVILEGE
    if strcmp(failed, b"setns") == 0:
        if error == EPERM:
            advice[0] = ADVICE_SETNS_RIGHTS
            return MEANS_PRIVILEGE
        advice[0] = ADVICE_NO_NETNS
        return MEANS_OTHER
    if strcmp(failed, b"netlink(RTM_NEWADDR)") == 0:
        if error == EEXIST:
            advice[0] = ADVICE_HAS_ADDRESS
            return MEANS_BUSY
        if error in (EADDRNOTAVAIL, EINVAL):
            advice[0] = ADVICE_NO_SUCH_ADDRESS
            return MEANS_OTHER
    if strcmp(failed, b"netlink(RTM_NEWROUTE)") == 0:
        if error == EEXIST:
            advice[0] = ADVICE_HAS_ROUTE
            return MEANS_BUSY
        if error == ENETDOWN:
            return MEANS_LINK_DOWN
        if error in (EINVAL, ENETUNREACH, EHOSTUNREACH):
            advice[0] = ADVICE_NO_GATEWAY
            return MEANS_OTHER
    if strcmp(failed, b"netlink(RTM_DELROUTE)") == 0 and error == ESRCH:
        advice[0] = ADVICE_NO_ROUTE
        return MEANS_OTHER
    if strcmp(failed, b"netlink(RTM_GETLINK)") == 0 and error == ENODEV:
        advice[0] = ADVICE_NO_INTERFACE
        return MEANS_GONE
    if strcmp(failed, b"netlink(RTM_DELLINK)") == 0 and error == EOPNOTSUPP:
        advice[0] = ADVICE_NO_TUN
        return MEANS_UNSUPPORTED
    if error == EBADMSG:
        advice[0] = ADVICE_BAD_HEADER
        return MEANS_PACKET
    if path == PATH_RECV and error == EINVAL:
        advice[0] = ADVICE_NO_ROOM
        return MEANS_PACKET
    if failed == OTHER_FLAGS:
        advice[0] = ADVICE_OTHER_FLAGS
        return MEANS_BUSY
    if failed == BOTH_HEADERS:
        advice[0] = ADVICE_BOTH_HEADERS
        return MEANS_UNSUPPORTED
    if failed == LONG_HEADER:
        advice[0] = ADVICE_LONG_HEADER
        return MEANS_UNSUPPORTED
    if error == E2BIG:
        advice[0] = ADVICE_TOO_MANY
        return MEANS_BUSY
    if error == EUNATCH:
        advice[0] = ADVICE_DETACHED
        return MEANS_LINK_DOWN
    if path == PATH_CONTROL and strcmp(failed, b"ioctl(TUNSETQUEUE)") == 0 and error == EINVAL:
        advice[0] = ADVICE_ONE_QUEUE
        return MEANS_UNSUPPORTED
    if path == PATH_CONTROL and strcmp(failed, b"ioctl(TUNSETIFF)") == 0 and error == EINVAL:
        advice[0] = ADVICE_OTHER_KIND
        return MEANS_BUSY
    if error in (EBADFD, ENODEV, ENXIO) or (error == EFAULT and path == PATH_RECV):
        return MEANS_GONE
    if error in (ECONNREFUSED, ECONNRESET, ENOTCONN, EPIPE):
        return MEANS_GONE         # the other end of a socket pair
    if error == EBADF:
        return MEANS_CLOSED
    if error == EIO and path != PATH_CONTROL:
        return MEANS_LINK_DOWN
    if error in (EPERM, EACCES):
        advice[0] = ADVICE_NET_ADMIN
        return MEANS_PRIVILEGE
    if error in (EBUSY, EEXIST):
        return MEANS_BUSY
    if error == EAFNOSUPPORT:
        advice[0] = ADVICE_FAMILY_OFF
        return MEANS_UNSUPPORTED
    if error in (EOPNOTSUPP, ENOTTY, ENOSYS):
        return MEANS_UNSUPPORTED
    if path == PATH_SEND and error in (EINVAL, EMSGSIZE):
        return MEANS_PACKET
    return MEANS_OTHER


cdef int os_explain(int error, char *text, int size) noexcept nogil:
    return 0


cdef void os_log(Log log) noexcept nogil:
    pass
