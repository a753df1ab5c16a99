"""PF_ROUTE sockets of macOS and the BSDs: the route to a subnet, and what the system tells of an interface."""
from libc.errno cimport (
    EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBADF, EBUSY, EEXIST, EINTR, EINVAL, ENOBUFS, ENODEV, ENOSYS, ENOTTY, ENXIO,
    EOPNOTSUPP, ESRCH, errno,
)
from libc.stdint cimport int64_t, intptr_t, uint8_t
from libc.string cimport memcmp, memcpy, memset, strcmp

from tuntap._os.ifconfig cimport (
    AF_LINK, IFF_POINTOPOINT, IFF_RUNNING, IFF_UP, add_address4, add_address6, delete_address, fill_mask,
    fill_sockaddr4, fill_sockaddr6, get_flags, if_indextoname, if_nametoindex, is_link_local, list_addresses,
    read_address, sockaddr, sockaddr_dl, sockaddr_in, sockaddr_in6, socket,
)
from tuntap._os.native cimport (
    CHANGE_ADDRESS_ADDED, CHANGE_ADDRESS_REMOVED, CHANGE_LINK, CHANGE_LOST, CHANGE_MOVED, CHANGE_NONE, MEANS_BUSY,
    MEANS_CLOSED, MEANS_GONE, MEANS_OTHER, MEANS_UNSUPPORTED, NAME_SIZE, PATH_CONTROL, Address, Change, Handle, Watch,
    handle_clear,
)
from tuntap._os.posix cimport (
    F_SETFD, F_SETFL, FD_CLOEXEC, O_NONBLOCK, POLLIN, SOL_SOCKET, close_fd, fail, fcntl, poll, pollfd, read, write,
)

cdef extern from *:
    """
    #include <net/route.h>
    #include <unistd.h>
    #if defined(__APPLE__)
    #define TUNTAP_ROUTE_ALIGN sizeof(uint32_t)   /* of the addresses behind a message */
    #elif defined(__NetBSD__)
    #define TUNTAP_ROUTE_ALIGN sizeof(uint64_t)
    #else
    #define TUNTAP_ROUTE_ALIGN sizeof(long)
    #endif
    #if defined(__APPLE__) || defined(__FreeBSD__)
    #define TUNTAP_ROUTE_BY_LINK 1                /* an interface is a gateway by its index */
    #else
    #define TUNTAP_ROUTE_BY_LINK 0                /* it is one by its own address */
    #endif
    #if defined(__OpenBSD__)                      /* where the addresses begin */
    #define TUNTAP_BEGIN_ROUTE(message) ((message)->rtm_hdrlen = sizeof(struct rt_msghdr))
    #define TUNTAP_ADDRESSES(message) ((message)->ifam_hdrlen)
    #else
    #define TUNTAP_BEGIN_ROUTE(message) sizeof(struct rt_msghdr)
    #define TUNTAP_ADDRESSES(message) sizeof(struct ifa_msghdr)
    #endif
    #if defined(__FreeBSD__)                      /* or the routes that the kernel made are not deleted */
    #define TUNTAP_DELETE_FLAGS RTF_PINNED
    #else
    #define TUNTAP_DELETE_FLAGS 0
    #endif
    #if !defined(SO_RERROR)
    #define SO_RERROR 0                           /* tell when notifications were dropped */
    #endif
    #if !defined(RTM_DESYNC)
    #define RTM_DESYNC -1                         /* OpenBSD: the same */
    #endif
    #define TUNTAP_MTU(message) ((message)->ifm_data.ifi_mtu)
    #if defined(RTM_IFANNOUNCE)
    #define tuntap_announcement if_announcemsghdr
    #else                                         /* macOS has none */
    #define RTM_IFANNOUNCE -1
    struct tuntap_announcement { unsigned short ifan_index; };
    #endif
    """
    enum: TUNTAP_ROUTE_ALIGN, TUNTAP_ROUTE_BY_LINK
    enum: PF_ROUTE, SOCK_RAW
    enum: RTM_VERSION, RTM_ADD, RTM_DELETE, RTM_GET, RTM_IFINFO, RTM_NEWADDR, RTM_DELADDR, RTM_IFANNOUNCE
    enum: RTM_DESYNC, SO_RERROR
    enum: RTA_DST, RTA_GATEWAY, RTA_NETMASK, RTA_IFP, RTA_IFA
    enum: RTAX_NETMASK, RTAX_IFA, RTAX_BRD, RTAX_MAX
    enum: RTF_UP, RTF_STATIC, TUNTAP_DELETE_FLAGS

    struct rt_msghdr:
        unsigned short rtm_msglen
        uint8_t rtm_version
        uint8_t rtm_type
        unsigned short rtm_index
        int rtm_flags
        int rtm_addrs
        int rtm_pid
        int rtm_seq
    struct if_msghdr:
        unsigned short ifm_index
        int ifm_flags
    struct ifa_msghdr:
        unsigned short ifam_index
        int ifam_addrs
    struct tuntap_announcement:
        unsigned short ifan_index
    size_t begin_route "TUNTAP_BEGIN_ROUTE"(rt_msghdr *message) nogil
    size_t addresses_behind "TUNTAP_ADDRESSES"(const ifa_msghdr *message) nogil
    int mtu_of "TUNTAP_MTU"(const if_msghdr *message) nogil
    int getpid() nogil
    int setsockopt(int fd, int level, int option, const void *value, unsigned int size) nogil

cdef enum:
    ANSWER_TIME = 1000        # milliseconds for the answer to a question
    ADDRESSES = 64            # of an interface, that a new one is compared with
    MESSAGE_SIZE = 2048       # more than any message about an interface or a route has

# A message with room behind it, aligned as the system's own structures.
cdef union RouteMessage:
    rt_msghdr route
    if_msghdr link
    ifa_msghdr address
    tuntap_announcement announcement
    uint8_t bytes[MESSAGE_SIZE]


cdef inline size_t padded(size_t size) noexcept nogil:
    """What an address of this length takes in a message."""
    if size == 0:
        return TUNTAP_ROUTE_ALIGN
    return (size + TUNTAP_ROUTE_ALIGN - 1) // TUNTAP_ROUTE_ALIGN * TUNTAP_ROUTE_ALIGN


cdef inline intptr_t open_route_socket() noexcept nogil:
    cdef intptr_t fd = socket(PF_ROUTE, SOCK_RAW, 0)
    if fd >= 0:
        fcntl(<int> fd, F_SETFD, FD_CLOEXEC)
        fcntl(<int> fd, F_SETFL, O_NONBLOCK)
    return fd


# --- routes ---

cdef inline void append_ip(RouteMessage *message, int family, const uint8_t *ip) noexcept nogil:
    cdef uint8_t *end = message.bytes + message.route.rtm_msglen
    if family == 4:
        fill_sockaddr4(<sockaddr_in *> end, ip)
    else:
        fill_sockaddr6(<sockaddr_in6 *> end, ip)
    message.route.rtm_msglen += <unsigned short> padded((<sockaddr *> end).sa_len)


cdef inline void append_link(RouteMessage *message, unsigned int index) noexcept nogil:
    cdef sockaddr_dl *link = <sockaddr_dl *> (message.bytes + message.route.rtm_msglen)
    link.sdl_len = sizeof(sockaddr_dl)
    link.sdl_family = AF_LINK
    link.sdl_index = <unsigned short> index
    message.route.rtm_msglen += <unsigned short> padded(link.sdl_len)


cdef inline void begin_message(
    RouteMessage *message, int kind, int number, const Address *address, const char *name,
) noexcept nogil:
    """About the subnet of an address."""
    cdef uint8_t subnet[16]
    cdef uint8_t mask[16]
    memset(message, 0, sizeof(RouteMessage))
    memset(mask, 0, sizeof(mask))
    fill_mask(mask, address.prefix)
    subnet_of(address, subnet)
    message.route.rtm_msglen = <unsigned short> begin_route(&message.route)
    message.route.rtm_version = RTM_VERSION
    message.route.rtm_type = <uint8_t> kind
    message.route.rtm_seq = number
    message.route.rtm_flags = RTF_UP | RTF_STATIC | (TUNTAP_DELETE_FLAGS if kind == RTM_DELETE else 0)
    # In the order of their bits.
    message.route.rtm_addrs = RTA_DST | RTA_NETMASK
    append_ip(message, address.family, subnet)
    if kind != RTM_GET:
        message.route.rtm_addrs |= RTA_GATEWAY
        if TUNTAP_ROUTE_BY_LINK:
            append_link(message, if_nametoindex(name))
        else:
            append_ip(message, address.family, address.ip)
    append_ip(message, address.family, mask)
    if kind == RTM_GET:
        message.route.rtm_addrs |= RTA_IFP       # or NetBSD does not tell which interface it is
        append_link(message, 0)
    elif kind == RTM_ADD:
        message.route.rtm_addrs |= RTA_IFA       # what packets to the subnet come from
        append_ip(message, address.family, address.ip)


cdef inline void subnet_of(const Address *address, uint8_t *subnet) noexcept nogil:
    cdef uint8_t mask[16]
    cdef int i
    memset(mask, 0, sizeof(mask))
    fill_mask(mask, address.prefix)
    for i in range(16):
        subnet[i] = (address.peer[i] if address.has_peer else address.ip[i]) & mask[i]


cdef inline bint is_same_subnet(const Address *one, const Address *other) noexcept nogil:
    cdef uint8_t subnet[16]
    cdef uint8_t other_subnet[16]
    subnet_of(one, subnet)
    subnet_of(other, other_subnet)
    return one.family == other.family and one.prefix == other.prefix and memcmp(subnet, other_subnet, 16) == 0


cdef inline bint leads_to(int fd, const Address *address, const char *name) noexcept nogil:
    """Whether the system says that the subnet of an address is routed to an interface."""
    cdef RouteMessage message
    cdef pollfd answer
    cdef ssize_t size
    begin_message(&message, RTM_GET, fd, address, name)
    if write(fd, message.bytes, message.route.rtm_msglen) < 0:
        return False
    while True:
        size = read(fd, message.bytes, sizeof(message))
        if size < 0 and errno == EAGAIN:         # FreeBSD answers from another thread
            answer.fd = fd
            answer.events = POLLIN
            answer.revents = 0
            if poll(&answer, 1, ANSWER_TIME) == 0:
                return False
        elif size < 0 and errno != EINTR:
            return False
        elif (
            size >= <ssize_t> sizeof(rt_msghdr) and message.route.rtm_type == RTM_GET
            and message.route.rtm_pid == getpid() and message.route.rtm_seq == fd
        ):
            return message.route.rtm_index == if_nametoindex(name)


cdef inline bint has_route(const Address *address) noexcept nogil:
    """Whether there is more of its subnet than itself, and the system leaves the route to us."""
    if address.family == 6 and is_link_local(address.ip):
        return False
    return address.prefix < (32 if address.family == 4 else 128)


cdef inline bint is_routed(const Address *address, const char *name) noexcept nogil:
    """Whether the subnet of an address is routed to its interface."""
    cdef intptr_t fd = open_route_socket()
    cdef bint answer = has_route(address) and leads_to(<int> fd, address, name)
    close_fd(&fd)
    return answer


cdef inline int change_route(
    Handle *handle, const char *name, int kind, const Address *address,
) noexcept nogil:
    """RTM_ADD or RTM_DELETE of the route to the subnet of an address, where there is none, or one."""
    cdef RouteMessage message
    cdef intptr_t fd
    cdef int result = 0
    if not has_route(address):
        return 0
    fd = open_route_socket()
    if fd < 0:
        return fail(handle, PATH_CONTROL, b"socket(PF_ROUTE)")
    # Never delete the route of another interface.
    if leads_to(<int> fd, address, name) == (kind == RTM_DELETE):
        begin_message(&message, kind, <int> fd, address, name)
        if write(<int> fd, message.bytes, message.route.rtm_msglen) < 0:
            result = fail(handle, PATH_CONTROL, b"route(RTM_ADD)" if kind == RTM_ADD else b"route(RTM_DELETE)")
            if result == -ESRCH:
                result = 0
    close_fd(&fd)
    return result


# --- addresses with their routes ---

cdef inline int add_address(
    Handle *handle, const char *name, const Address *address,
) noexcept nogil:
    """An address, and the route to its subnet unless it is to have none."""
    cdef Address present[ADDRESSES]
    cdef const char *failed
    cdef int result = list_addresses(handle, name, present, ADDRESSES)
    cdef int i
    for i in range(min(result, ADDRESSES)):
        if present[i].family == address.family and memcmp(present[i].ip, address.ip, 16) == 0:
            handle.failed[PATH_CONTROL] = b"ioctl(SIOCAIFADDR)"
            return -EEXIST            # the system would change it
    if result < 0:
        return result
    if address.family == 4:
        result = add_address4(handle, name, address)
    else:
        result = add_address6(handle, name, address)
    if result < 0:
        return result
    result = change_route(handle, name, RTM_DELETE if address.no_route else RTM_ADD, address)
    if result < 0:
        failed = handle.failed[PATH_CONTROL]
        delete_address(handle, name, address)
        handle.failed[PATH_CONTROL] = failed
    return result


cdef inline int remove_address(
    Handle *handle, const char *name, const Address *address,
) noexcept nogil:
    """An address and the route to its subnet, which another address there keeps."""
    cdef Address left[ADDRESSES]
    cdef bint was_routed = is_routed(address, name)
    cdef int result = delete_address(handle, name, address)
    cdef int i
    if result < 0 or not was_routed:
        return result
    result = list_addresses(handle, name, left, ADDRESSES)
    for i in range(min(result, ADDRESSES)):
        if is_same_subnet(&left[i], address):
            return change_route(handle, name, RTM_ADD, &left[i])
    return result if result < 0 else change_route(handle, name, RTM_DELETE, address)


cdef inline int set_broadcast(
    Handle *handle, const char *name, const uint8_t *broadcast,
) noexcept nogil:
    """Of the first IPv4 address, which is added once more; FreeBSD has no other way."""
    cdef Address present[ADDRESSES]
    cdef int result = list_addresses(handle, name, present, ADDRESSES)
    cdef int i
    for i in range(min(result, ADDRESSES)):
        if present[i].family == 4:
            present[i].has_broadcast = 1
            memcpy(present[i].broadcast, broadcast, 4)
            return add_address4(handle, name, &present[i])
    handle.failed[PATH_CONTROL] = b"getifaddrs"
    return result if result < 0 else -EADDRNOTAVAIL


# --- notifications ---

cdef inline int watch_interface(Handle *handle, const char *name, Watch *watch) noexcept nogil:
    cdef int on = 1
    watch.io = open_route_socket()
    if watch.io < 0:
        return fail(handle, PATH_CONTROL, b"socket(PF_ROUTE)")
    if SO_RERROR:
        setsockopt(<int> watch.io, SOL_SOCKET, SO_RERROR, &on, sizeof(on))
    watch.index = <int> if_nametoindex(name)
    return 0


cdef inline int next_change(const Watch *watch, Change *change) noexcept nogil:
    cdef RouteMessage message
    cdef ssize_t size
    cdef int kind = CHANGE_NONE
    while kind == CHANGE_NONE:
        size = read(<int> watch.io, message.bytes, sizeof(message))
        if size >= 0:
            kind = read_change(watch, &message, size, change)
        elif errno == EAGAIN:
            break
        elif errno == ENOBUFS:
            return CHANGE_LOST
        elif errno != EINTR:
            return -errno
    return kind


cdef inline int read_change(
    const Watch *watch, RouteMessage *message, ssize_t size, Change *change,
) noexcept nogil:
    """What a message says about the interface."""
    cdef int kind
    if size < 4 or message.route.rtm_msglen > size or message.route.rtm_version != RTM_VERSION:
        return CHANGE_NONE
    kind = message.route.rtm_type
    if kind == RTM_DESYNC:
        return CHANGE_LOST
    if kind == RTM_IFANNOUNCE and size >= <ssize_t> sizeof(tuntap_announcement):
        if message.announcement.ifan_index == watch.index:
            return CHANGE_MOVED           # or renamed: FreeBSD announces both, before it has the new name and after
    elif kind == RTM_IFINFO and size >= <ssize_t> sizeof(if_msghdr) and message.link.ifm_index == watch.index:
        if if_indextoname(watch.index, change.name) == NULL:
            return CHANGE_MOVED
        change.up = (message.link.ifm_flags & IFF_UP) != 0
        change.running = (message.link.ifm_flags & IFF_RUNNING) != 0
        change.mtu = mtu_of(&message.link)
        return CHANGE_LINK
    elif (
        kind in (RTM_NEWADDR, RTM_DELADDR) and size >= <ssize_t> sizeof(ifa_msghdr)
        and message.address.ifam_index == watch.index and read_changed_address(message, &change.address)
    ):
        return CHANGE_ADDRESS_ADDED if kind == RTM_NEWADDR else CHANGE_ADDRESS_REMOVED
    return CHANGE_NONE


cdef inline bint read_changed_address(RouteMessage *message, Address *address) noexcept nogil:
    cdef const sockaddr *found[3]
    cdef const sockaddr *entry
    cdef size_t at = addresses_behind(&message.address)
    cdef size_t end = message.route.rtm_msglen
    cdef char name[NAME_SIZE]
    cdef int64_t flags = 0
    cdef Handle asking
    cdef int i
    memset(found, 0, sizeof(found))
    for i in range(RTAX_MAX):
        if not message.address.ifam_addrs >> i & 1:
            continue
        entry = <const sockaddr *> (message.bytes + at)
        if at + 2 > end or at + entry.sa_len > end:
            return False
        if i == RTAX_IFA:
            found[0] = entry
        elif i == RTAX_NETMASK:
            found[1] = entry
        elif i == RTAX_BRD:
            found[2] = entry
        at += padded(entry.sa_len)
    handle_clear(&asking)
    if if_indextoname(message.address.ifam_index, name) != NULL:
        get_flags(&asking, name, &flags)
    close_fd(&asking.control[0])
    close_fd(&asking.control[1])
    return read_address(found[0], found[1], found[2], (flags & IFF_POINTOPOINT) != 0, address)


# --- errors ---

cdef inline int configuration_meaning(int error, const char *failed, const char **advice) noexcept nogil:
    """What an error means to which a core has nothing of its own to say."""
    if strcmp(failed, b"if_nametoindex") == 0 and error == ENXIO:
        advice[0] = b"there is no such interface; see `tuntap list`"
        return MEANS_GONE
    if strcmp(failed, b"route(RTM_ADD)") == 0 and error == EEXIST:
        advice[0] = b"another interface routes this subnet: open with route=False, or choose another"
        return MEANS_BUSY
    if strcmp(failed, b"ioctl(SIOCAIFADDR)") == 0 or strcmp(failed, b"ioctl(SIOCAIFADDR_IN6)") == 0:
        if error == EEXIST:
            advice[0] = b"the interface has this address already; see `addresses`"
            return MEANS_BUSY
        if error in (EADDRNOTAVAIL, EINVAL):
            advice[0] = b"the kernel takes no such address on this interface"
            return MEANS_OTHER
    if error in (EBUSY, EEXIST):
        return MEANS_BUSY
    if error in (ENXIO, ENODEV):
        return MEANS_GONE
    if error == EBADF:
        return MEANS_CLOSED
    if error in (EOPNOTSUPP, ENOTTY, ENOSYS, EAFNOSUPPORT):
        return MEANS_UNSUPPORTED
    return MEANS_OTHER
