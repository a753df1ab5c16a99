"""What ifconfig(8) does, on macOS and the BSDs: flags, MTU, addresses, MAC and counters of an interface.

By its name, through the sockets of `Handle.control`: the first is of IPv4, the second of IPv6.
"""
from libc.errno cimport EAFNOSUPPORT, EINVAL, ENXIO, EOPNOTSUPP, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strcmp, strlen, strncmp, strncpy

from tuntap._os.native cimport (
    LAYER_UNKNOWN, MAC_SIZE, NAME_SIZE, PATH_CONTROL, STATISTIC_RX_BYTES, STATISTIC_RX_DROPPED, STATISTIC_RX_ERRORS,
    STATISTIC_RX_PACKETS, STATISTIC_TX_BYTES, STATISTIC_TX_DROPPED, STATISTIC_TX_ERRORS, STATISTIC_TX_PACKETS, Address,
    Handle,
)
from tuntap._os.posix cimport FD_CLOEXEC, F_SETFD, close_fd, fail, fcntl

cdef extern from *:
    """
    #include <stddef.h>
    #include <string.h>
    #include <unistd.h>
    #include <sys/types.h>
    #include <sys/param.h>
    #include <sys/socket.h>
    #include <sys/ioctl.h>
    #include <sys/sockio.h>
    #include <net/if.h>
    #include <net/if_dl.h>
    #include <net/if_types.h>
    #include <netinet/in.h>
    #include <ifaddrs.h>
    #if defined(__APPLE__)
    /* Not every SDK has netinet6/in6_var.h: what it says, and compared with it where it is. */
    struct tuntap_in6_aliasreq {
        char ifra_name[IFNAMSIZ];
        struct sockaddr_in6 ifra_addr, ifra_dstaddr, ifra_prefixmask;
        int ifra_flags;
        struct { time_t expire, preferred; u_int32_t ia6t_vltime, ia6t_pltime; } ifra_lifetime;
    };
    struct tuntap_in6_ifreq {
        char ifr_name[IFNAMSIZ];
        union { struct sockaddr_in6 ifru_addr; u_int64_t counters[34]; } ifr_ifru;
    };
    #define TUNTAP_AIFADDR_IN6 _IOW('i', 26, struct tuntap_in6_aliasreq)
    #define TUNTAP_DIFADDR_IN6 _IOW('i', 25, struct tuntap_in6_ifreq)
    #define TUNTAP_NODAD 0x20
    #if __has_include(<netinet6/in6_var.h>)
    #include <netinet6/in6_var.h>
    _Static_assert(TUNTAP_AIFADDR_IN6 == SIOCAIFADDR_IN6, "struct in6_aliasreq");
    _Static_assert(TUNTAP_DIFADDR_IN6 == SIOCDIFADDR_IN6, "struct in6_ifreq");
    _Static_assert(TUNTAP_NODAD == IN6_IFF_NODAD, "IN6_IFF_NODAD");
    _Static_assert(offsetof(struct tuntap_in6_aliasreq, ifra_lifetime)
        == offsetof(struct in6_aliasreq, ifra_lifetime), "struct in6_aliasreq");
    #endif
    #else
    #include <netinet/in_var.h>
    #include <netinet6/in6_var.h>
    #define tuntap_in6_aliasreq in6_aliasreq
    #define tuntap_in6_ifreq in6_ifreq
    #define TUNTAP_AIFADDR_IN6 SIOCAIFADDR_IN6
    #define TUNTAP_DIFADDR_IN6 SIOCDIFADDR_IN6
    #if defined(IN6_IFF_NODAD)
    #define TUNTAP_NODAD IN6_IFF_NODAD
    #else
    #define TUNTAP_NODAD 0                  /* OpenBSD: only the kernel sets it */
    #endif
    #endif
    #if defined(__FreeBSD__) || defined(__OpenBSD__)
    #define TUNTAP_SENT_DROPS(counted) ((counted)->ifi_oqdrops)
    #else
    #define TUNTAP_SENT_DROPS(counted) 0
    #endif
    #if defined(__APPLE__)
    #define TUNTAP_FAR_END_IS_ITSELF 1      /* of an IPv4 address of a point-to-point link without a peer */
    #else
    #define TUNTAP_FAR_END_IS_ITSELF 0
    #endif

    /* The MAC address. */
    static inline int tuntap_set_mac(int fd, const char *name, const unsigned char *mac) {
    #if defined(__NetBSD__)
        struct if_laddrreq request;
        struct sockaddr_dl *address = (struct sockaddr_dl *) &request.addr;
        int result, link = socket(AF_LINK, SOCK_DGRAM, 0);
        (void) fd;
        if (link < 0)
            return -1;
        memset(&request, 0, sizeof(request));
        strncpy(request.iflr_name, name, sizeof(request.iflr_name) - 1);
        request.flags = IFLR_ACTIVE;
        address->sdl_len = sizeof(*address);
        address->sdl_family = AF_LINK;
        address->sdl_alen = 6;
        memcpy(LLADDR(address), mac, 6);
        result = ioctl(link, SIOCALIFADDR, &request);
        close(link);
        return result;
    #else
        struct ifreq request;
        memset(&request, 0, sizeof(request));
        strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
        request.ifr_addr.sa_len = 6;
        request.ifr_addr.sa_family = AF_LINK;
        memcpy(request.ifr_addr.sa_data, mac, 6);
        return ioctl(fd, SIOCSIFLLADDR, &request);
    #endif
    }
    _Static_assert(IFNAMSIZ == 16, "names of interfaces");
    _Static_assert(sizeof(struct sockaddr_in) == sizeof(struct sockaddr), "struct ifaliasreq");
    """
    enum: ENETRESET

    enum: AF_INET, AF_INET6, AF_LINK, SOCK_DGRAM
    enum: IFF_UP, IFF_RUNNING, IFF_POINTOPOINT, IFF_BROADCAST
    enum: TUNTAP_NODAD, TUNTAP_FAR_END_IS_ITSELF
    unsigned long SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFMTU, SIOCSIFMTU, SIOCDIFADDR, SIOCAIFADDR
    unsigned long SIOCIFCREATE, SIOCIFDESTROY
    unsigned long TUNTAP_AIFADDR_IN6, TUNTAP_DIFADDR_IN6

    struct sockaddr:
        uint8_t sa_len
        uint8_t sa_family
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        uint8_t sin_len
        uint8_t sin_family
        in_addr sin_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in6:
        uint8_t sin6_len
        uint8_t sin6_family
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct sockaddr_dl:
        uint8_t sdl_len
        uint8_t sdl_family
        uint16_t sdl_index
        uint8_t sdl_type
        uint8_t sdl_alen

    struct ifreq:
        char ifr_name[16]
        short ifr_flags
        int ifr_mtu
        sockaddr ifr_addr
    struct ifaliasreq:
        char ifra_name[16]
        sockaddr ifra_addr
        sockaddr ifra_broadaddr           # or the far end of a point-to-point link
        sockaddr ifra_mask
    struct in6_lifetime:
        uint32_t ia6t_vltime
        uint32_t ia6t_pltime
    struct tuntap_in6_aliasreq:
        char ifra_name[16]
        sockaddr_in6 ifra_addr
        sockaddr_in6 ifra_dstaddr
        sockaddr_in6 ifra_prefixmask
        int ifra_flags
        in6_lifetime ifra_lifetime
    union in6_request:
        sockaddr_in6 ifru_addr
    struct tuntap_in6_ifreq:
        char ifr_name[16]
        in6_request ifr_ifru

    struct ifaddrs:
        ifaddrs *ifa_next
        char *ifa_name
        unsigned int ifa_flags
        sockaddr *ifa_addr
        sockaddr *ifa_netmask
        sockaddr *ifa_dstaddr             # or the broadcast address
        void *ifa_data

    struct if_data:
        uint64_t ifi_ipackets, ifi_opackets, ifi_ibytes, ifi_obytes, ifi_ierrors, ifi_oerrors, ifi_iqdrops
    uint64_t sent_drops "TUNTAP_SENT_DROPS"(const if_data *counted) nogil

    struct name_index "if_nameindex":
        unsigned int if_index
        char *if_name
    name_index *if_nameindex() nogil
    void if_freenameindex(name_index *list) nogil
    size_t strspn(const char *text, const char *accepted) nogil
    int mac_ioctl "tuntap_set_mac"(int fd, const char *name, const uint8_t *mac) nogil

    int getifaddrs(ifaddrs **list) nogil
    void freeifaddrs(ifaddrs *list) nogil
    unsigned int if_nametoindex(const char *name) nogil
    char *if_indextoname(unsigned int index, char *name) nogil
    int ioctl(int fd, unsigned long request, ...) nogil
    int socket(int family, int kind, int protocol) nogil
    uint8_t *LLADDR(const sockaddr_dl *address) nogil

cdef enum:
    FOR_EVER = 0xffffffff     # of an IPv6 address


cdef inline int open_control(Handle *handle) noexcept nogil:
    """The sockets that configuration goes through; a system without IPv6 has but the first."""
    cdef int i
    cdef int *family = [AF_INET, AF_INET6]
    for i in range(2):
        if handle.control[i] < 0:
            handle.control[i] = socket(family[i], SOCK_DGRAM, 0)
            if handle.control[i] >= 0:
                fcntl(<int> handle.control[i], F_SETFD, FD_CLOEXEC)
            elif i == 0:
                return fail(handle, PATH_CONTROL, b"socket(AF_INET)")
    return 0


cdef inline int on_interface(
    Handle *handle, const char *name, unsigned long number, ifreq *request, const char *call,
) noexcept nogil:
    """One ioctl about an interface; the rest of the request is the caller's."""
    cdef int result = open_control(handle)
    if result < 0:
        return result
    strncpy(request.ifr_name, name, sizeof(request.ifr_name))
    if ioctl(<int> handle.control[0], number, request) < 0:
        return fail(handle, PATH_CONTROL, call)
    return 0


cdef inline int get_flags(Handle *handle, const char *name, int64_t *flags) noexcept nogil:
    cdef ifreq request
    cdef int result
    memset(&request, 0, sizeof(request))
    result = on_interface(handle, name, SIOCGIFFLAGS, &request, b"ioctl(SIOCGIFFLAGS)")
    flags[0] = <uint16_t> request.ifr_flags
    return result


cdef inline int set_up(Handle *handle, const char *name, bint up) noexcept nogil:
    cdef ifreq request
    cdef int result
    memset(&request, 0, sizeof(request))
    result = on_interface(handle, name, SIOCGIFFLAGS, &request, b"ioctl(SIOCGIFFLAGS)")
    if result < 0:
        return result
    request.ifr_flags = <short> (request.ifr_flags | IFF_UP if up else request.ifr_flags & ~IFF_UP)
    return on_interface(handle, name, SIOCSIFFLAGS, &request, b"ioctl(SIOCSIFFLAGS)")


cdef inline int get_mtu(Handle *handle, const char *name, int64_t *mtu) noexcept nogil:
    cdef ifreq request
    cdef int result
    memset(&request, 0, sizeof(request))
    result = on_interface(handle, name, SIOCGIFMTU, &request, b"ioctl(SIOCGIFMTU)")
    mtu[0] = request.ifr_mtu
    return result


cdef inline int set_mtu(Handle *handle, const char *name, int64_t mtu) noexcept nogil:
    cdef ifreq request
    memset(&request, 0, sizeof(request))
    request.ifr_mtu = <int> mtu
    return on_interface(handle, name, SIOCSIFMTU, &request, b"ioctl(SIOCSIFMTU)")


cdef inline int get_index(Handle *handle, const char *name, int64_t *index) noexcept nogil:
    index[0] = if_nametoindex(name)
    if index[0] == 0:
        handle.failed[PATH_CONTROL] = b"if_nametoindex"
        return -ENXIO
    return 0


# --- interfaces ---

cdef inline bint is_numbered(const char *name, const char *stem) noexcept nogil:
    """Whether it is the stem and a number."""
    cdef size_t length = strlen(stem)
    return (
        strncmp(name, stem, length) == 0 and name[length] != 0
        and strspn(name + length, b"0123456789") == strlen(name + length)
    )


cdef inline int create_interface(Handle *handle, char *name) noexcept nogil:
    """SIOCIFCREATE; a name without a number gets one where the system picks it."""
    cdef ifreq request
    cdef int result
    memset(&request, 0, sizeof(request))
    result = on_interface(handle, name, SIOCIFCREATE, &request, b"ioctl(SIOCIFCREATE)")
    if result == 0:
        memcpy(name, request.ifr_name, sizeof(request.ifr_name))
    return result


cdef inline int destroy_interface(Handle *handle, const char *name) noexcept nogil:
    cdef ifreq request
    memset(&request, 0, sizeof(request))
    return on_interface(handle, name, SIOCIFDESTROY, &request, b"ioctl(SIOCIFDESTROY)")


cdef inline int list_interfaces(
    Handle *handle, int (*layer_of)(Handle *handle, const char *name) noexcept nogil, char *names, int capacity,
) noexcept nogil:
    """How many have a layer; `names` gets the first of them."""
    cdef name_index *every = if_nameindex()
    cdef name_index *entry = every
    cdef int count = 0
    if every == NULL:
        return fail(handle, PATH_CONTROL, b"if_nameindex")
    while entry.if_index:
        if layer_of(handle, entry.if_name) != LAYER_UNKNOWN:
            if count < capacity:
                strncpy(names + count * NAME_SIZE, entry.if_name, NAME_SIZE)
            count += 1
        entry += 1
    if_freenameindex(every)
    return count


# --- addresses ---

cdef inline bint is_link_local(const uint8_t *ip) noexcept nogil:
    return ip[0] == 0xfe and ip[1] & 0xc0 == 0x80


cdef inline void fill_mask(uint8_t *mask, int prefix) noexcept nogil:
    """The first `prefix` bits of zeros."""
    cdef int i
    for i in range(prefix):
        mask[i // 8] |= <uint8_t> (0x80 >> (i % 8))


# The room for an address is empty before it is filled.
cdef inline void fill_sockaddr4(sockaddr_in *address, const uint8_t *ip) noexcept nogil:
    address.sin_len = sizeof(sockaddr_in)
    address.sin_family = AF_INET
    memcpy(&address.sin_addr, ip, 4)


cdef inline void fill_sockaddr6(sockaddr_in6 *address, const uint8_t *ip) noexcept nogil:
    address.sin6_len = sizeof(sockaddr_in6)
    address.sin6_family = AF_INET6
    memcpy(&address.sin6_addr, ip, 16)


cdef inline void fill_scoped6(sockaddr_in6 *address, const uint8_t *ip, const char *name) noexcept nogil:
    """A link-local address says of which link it is."""
    fill_sockaddr6(address, ip)
    if is_link_local(ip):
        address.sin6_scope_id = if_nametoindex(name)


cdef inline void far_end(const Address *address, uint8_t *ip) noexcept nogil:
    """The other end that an IPv4 address of a point-to-point link must have, if nobody named one.

    Itself; or, where the address would not be reachable from this host then, the last or the first of
    the subnet.
    """
    cdef uint8_t mask[4]
    cdef int i
    if address.has_peer:
        memcpy(ip, address.peer, 4)
        return
    memcpy(ip, address.ip, 4)
    if TUNTAP_FAR_END_IS_ITSELF:
        return
    memset(mask, 0, sizeof(mask))
    fill_mask(mask, address.prefix)
    for i in range(4):
        ip[i] |= <uint8_t> ~mask[i]
    if memcmp(ip, address.ip, 4) == 0:
        for i in range(4):
            ip[i] &= mask[i]


cdef inline int add_address4(
    Handle *handle, const char *name, const Address *address,
) noexcept nogil:
    cdef ifaliasreq request
    cdef int64_t flags
    cdef uint8_t other[4]
    cdef uint8_t mask[4]
    cdef int result = get_flags(handle, name, &flags)
    if result < 0:
        return result
    memset(&request, 0, sizeof(request))
    memset(mask, 0, sizeof(mask))
    strncpy(request.ifra_name, name, sizeof(request.ifra_name))
    fill_mask(mask, address.prefix)
    fill_sockaddr4(<sockaddr_in *> &request.ifra_addr, address.ip)
    fill_sockaddr4(<sockaddr_in *> &request.ifra_mask, mask)
    if flags & IFF_POINTOPOINT:
        far_end(address, other)
        fill_sockaddr4(<sockaddr_in *> &request.ifra_broadaddr, other)
    elif address.has_broadcast:
        fill_sockaddr4(<sockaddr_in *> &request.ifra_broadaddr, address.broadcast)
    if ioctl(<int> handle.control[0], SIOCAIFADDR, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(SIOCAIFADDR)")
    return 0


cdef inline int add_address6(Handle *handle, const char *name, const Address *address) noexcept nogil:
    """With the sockets that the flags were asked for by."""
    cdef tuntap_in6_aliasreq request
    cdef uint8_t mask[16]
    if handle.control[1] < 0:
        handle.failed[PATH_CONTROL] = b"socket(AF_INET6)"
        return -EAFNOSUPPORT
    memset(&request, 0, sizeof(request))
    memset(mask, 0, sizeof(mask))
    strncpy(request.ifra_name, name, sizeof(request.ifra_name))
    fill_mask(mask, address.prefix)
    fill_scoped6(&request.ifra_addr, address.ip, name)
    fill_sockaddr6(&request.ifra_prefixmask, mask)
    if address.has_peer:
        fill_scoped6(&request.ifra_dstaddr, address.peer, name)
    request.ifra_flags = TUNTAP_NODAD
    request.ifra_lifetime.ia6t_vltime = <uint32_t> FOR_EVER
    request.ifra_lifetime.ia6t_pltime = <uint32_t> FOR_EVER
    if ioctl(<int> handle.control[1], TUNTAP_AIFADDR_IN6, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(SIOCAIFADDR_IN6)")
    return 0


cdef inline int delete_address(Handle *handle, const char *name, const Address *address) noexcept nogil:
    cdef ifreq request
    cdef tuntap_in6_ifreq request6
    cdef int result
    if address.family == 4:
        memset(&request, 0, sizeof(request))
        fill_sockaddr4(<sockaddr_in *> &request.ifr_addr, address.ip)
        return on_interface(handle, name, SIOCDIFADDR, &request, b"ioctl(SIOCDIFADDR)")
    result = open_control(handle)
    if result < 0:
        return result
    memset(&request6, 0, sizeof(request6))
    strncpy(request6.ifr_name, name, sizeof(request6.ifr_name))
    fill_scoped6(&request6.ifr_ifru.ifru_addr, address.ip, name)
    if ioctl(<int> handle.control[1], TUNTAP_DIFADDR_IN6, &request6) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(SIOCDIFADDR_IN6)")
    return 0


cdef inline int prefix_of(const sockaddr *mask, size_t at, int width) noexcept nogil:
    """Length of a netmask, which the kernel may cut behind its last byte that is not zero."""
    cdef const uint8_t *cursor = <const uint8_t *> mask + at
    cdef const uint8_t *end = <const uint8_t *> mask + mask.sa_len
    cdef int prefix = 0
    cdef uint8_t byte
    if mask.sa_len > at + width:
        end = cursor + width
    while cursor < end:
        byte = cursor[0]
        while byte & 0x80:
            prefix += 1
            byte = <uint8_t> (byte << 1)
        if prefix % 8:
            break
        cursor += 1
    return prefix


cdef inline bint read_ip(const sockaddr *source, uint8_t *ip) noexcept nogil:
    """The address in network order; of a link-local one without the index that the kernel keeps in it."""
    if source == NULL:
        return False
    if source.sa_family == AF_INET:
        memcpy(ip, &(<const sockaddr_in *> source).sin_addr, 4)
        return True
    if source.sa_family == AF_INET6:
        memcpy(ip, &(<const sockaddr_in6 *> source).sin6_addr, 16)
        if is_link_local(ip):
            ip[2] = ip[3] = 0
        return True
    return False


cdef inline bint read_address(
    const sockaddr *ip, const sockaddr *mask, const sockaddr *other, bint is_link, Address *address,
) noexcept nogil:
    """What the system tells of an address; `other` is the far end of a link, or the broadcast address."""
    cdef uint8_t unnamed[4]
    cdef int width
    memset(address, 0, sizeof(Address))
    if not read_ip(ip, address.ip):
        return False
    address.family = 4 if ip.sa_family == AF_INET else 6
    width = 4 if address.family == 4 else 16
    address.prefix = 8 * width
    if mask != NULL and mask.sa_len:
        address.prefix = prefix_of(mask, 4 if address.family == 4 else 8, width)
    address.automatic = address.family == 6 and is_link_local(address.ip)
    if other == NULL or other.sa_family != ip.sa_family:
        return True
    if is_link:
        read_ip(other, address.peer)
        if address.family == 4:
            far_end(address, unnamed)
            address.has_peer = memcmp(address.peer, unnamed, 4) != 0
        else:
            address.has_peer = memcmp(address.peer, address.ip, 16) != 0
    elif address.family == 4:
        read_ip(other, address.broadcast)
        address.has_broadcast = True
    return True


cdef inline int list_addresses(
    Handle *handle, const char *name, Address *addresses, int capacity,
) noexcept nogil:
    """How many there are; `addresses` gets the first of them."""
    cdef ifaddrs *every
    cdef ifaddrs *entry
    cdef Address address
    cdef int count = 0
    if getifaddrs(&every) < 0:
        return fail(handle, PATH_CONTROL, b"getifaddrs")
    entry = every
    while entry != NULL:
        if strcmp(entry.ifa_name, name) == 0 and read_address(
            entry.ifa_addr, entry.ifa_netmask, entry.ifa_dstaddr,
            (entry.ifa_flags & IFF_POINTOPOINT) != 0, &address,
        ):
            if count < capacity:
                addresses[count] = address
            count += 1
        entry = entry.ifa_next
    freeifaddrs(every)
    return count


cdef inline const ifaddrs *link_entry(const ifaddrs *entry, const char *name) noexcept nogil:
    """That of the link of an interface; NULL if there is none."""
    while entry != NULL:
        if strcmp(entry.ifa_name, name) == 0 and entry.ifa_addr != NULL and entry.ifa_addr.sa_family == AF_LINK:
            return entry
        entry = entry.ifa_next
    return NULL


cdef inline int get_mac(Handle *handle, const char *name, uint8_t *mac) noexcept nogil:
    cdef ifaddrs *every
    cdef const ifaddrs *entry
    cdef const sockaddr_dl *link
    cdef int result = -EOPNOTSUPP
    handle.failed[PATH_CONTROL] = b"getifaddrs"
    if getifaddrs(&every) < 0:
        return -errno
    entry = link_entry(every, name)
    if entry != NULL:
        link = <const sockaddr_dl *> entry.ifa_addr
        if link.sdl_alen == MAC_SIZE:
            memcpy(mac, LLADDR(link), MAC_SIZE)
            result = 0
    freeifaddrs(every)
    return result


cdef inline int set_mac(Handle *handle, const char *name, const uint8_t *mac) noexcept nogil:
    cdef int result = open_control(handle)
    if result == 0 and mac_ioctl(<int> handle.control[0], name, mac) < 0:
        result = fail(handle, PATH_CONTROL, b"ioctl(SIOCSIFLLADDR)")
    return result


cdef inline int get_statistics(Handle *handle, const char *name, uint64_t *values) noexcept nogil:
    """What getifaddrs(3) says; its counters have 32 bits on macOS."""
    cdef ifaddrs *every
    cdef const ifaddrs *entry
    cdef const if_data *counted
    cdef int result = -ENXIO
    handle.failed[PATH_CONTROL] = b"getifaddrs"
    if getifaddrs(&every) < 0:
        return -errno
    entry = link_entry(every, name)
    if entry != NULL and entry.ifa_data != NULL:
        counted = <const if_data *> entry.ifa_data
        values[STATISTIC_RX_PACKETS] = counted.ifi_ipackets
        values[STATISTIC_TX_PACKETS] = counted.ifi_opackets
        values[STATISTIC_RX_BYTES] = counted.ifi_ibytes
        values[STATISTIC_TX_BYTES] = counted.ifi_obytes
        values[STATISTIC_RX_ERRORS] = counted.ifi_ierrors
        values[STATISTIC_TX_ERRORS] = counted.ifi_oerrors
        values[STATISTIC_RX_DROPPED] = counted.ifi_iqdrops
        values[STATISTIC_TX_DROPPED] = sent_drops(counted)
        result = 0
    freeifaddrs(every)
    return result
