"""rtnetlink for the Linux core: build a request, send it, walk the answers (rtnetlink(7))."""
from libc.errno cimport EAGAIN, EINTR, EPROTO, errno
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_NETLINK, AF_UNSPEC, AF_INET, AF_INET6, SOCK_RAW, SOCK_DGRAM, SOCK_CLOEXEC
    int socket(int family, int kind, int protocol)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    struct sockaddr:
        pass
    int bind(int fd, const sockaddr *address, unsigned int size)

cdef extern from "<linux/netlink.h>" nogil:
    enum: NETLINK_ROUTE, NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTI
    enum: NLM_F_CREATE, NLM_F_EXCL, NLMSG_ERROR, NLMSG_DONE, NLA_F_NESTED, NLA_TYPE_MASK
    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
        uint32_t nlmsg_pid
    struct nlmsgerr:
        int error
    struct sockaddr_nl:
        unsigned short nl_family
        uint32_t nl_groups

cdef extern from "<linux/rtnetlink.h>" nogil:
    enum: RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR
    enum: RTM_NEWROUTE, RTM_DELROUTE, RT_TABLE_MAIN, RTN_UNICAST, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTPROT_STATIC
    enum: RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY
    enum: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
    struct rtattr:
        uint16_t rta_len
        uint16_t rta_type
    struct rtmsg:
        uint8_t rtm_family
        uint8_t rtm_dst_len
        uint8_t rtm_table
        uint8_t rtm_protocol
        uint8_t rtm_scope
        uint8_t rtm_type
    struct ifinfomsg:
        uint8_t ifi_family
        uint16_t ifi_type
        int32_t ifi_index
        uint32_t ifi_flags
        uint32_t ifi_change

cdef extern from "<linux/if_link.h>" nogil:
    enum: IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN, IFLA_ADDRESS, IFLA_CARRIER, IFLA_STATS64
    enum: IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_AF_SPEC
    enum: IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE, IN6_ADDR_GEN_MODE_EUI64
    enum: IFLA_TUN_OWNER, IFLA_TUN_GROUP, IFLA_TUN_TYPE, IFLA_TUN_PI, IFLA_TUN_PERSIST
    struct rtnl_link_stats64:
        uint64_t rx_packets
        uint64_t tx_packets
        uint64_t rx_bytes
        uint64_t tx_bytes
        uint64_t rx_errors
        uint64_t tx_errors
        uint64_t rx_dropped
        uint64_t tx_dropped

cdef extern from "<linux/if_addr.h>" nogil:
    enum: IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY
    enum: IFA_F_NODAD, IFA_F_NOPREFIXROUTE
    struct ifaddrmsg:
        uint8_t ifa_family
        uint8_t ifa_prefixlen
        uint8_t ifa_flags
        uint8_t ifa_scope
        uint32_t ifa_index

cdef extern from *:
    """
    #ifndef IFA_PROTO
    #define IFA_PROTO 11              /* linux/if_addr.h since 5.18 */
    #endif
    #ifndef IFAPROT_KERNEL_LL
    #define IFAPROT_KERNEL_LL 3
    #endif
    """
    enum: IFA_PROTO, IFAPROT_KERNEL_LL

cdef enum:
    REQUEST_SIZE = 512        # the largest request we make is under 200 bytes
    ANSWER_SIZE = 32768       # the kernel never fills a dump message beyond this


cdef struct Request:
    uint8_t data[REQUEST_SIZE]
    uint32_t size

# Called for each answer that is neither an error nor the end; below 0 stops with that error.
ctypedef int (*Visitor)(const nlmsghdr *header, const uint8_t *body, uint32_t size, void *result) noexcept nogil


cdef inline uint32_t aligned(uint32_t size) noexcept nogil:
    return (size + 3) & ~(<uint32_t> 3)


cdef inline void begin(Request *request, int kind, int flags, const void *body, uint32_t size) noexcept nogil:
    cdef nlmsghdr header
    memset(request, 0, sizeof(Request))
    memset(&header, 0, sizeof(header))
    header.nlmsg_type = <uint16_t> kind
    header.nlmsg_flags = <uint16_t> (NLM_F_REQUEST | flags)
    memcpy(request.data, &header, sizeof(header))
    memcpy(request.data + sizeof(header), body, size)
    request.size = sizeof(header) + aligned(size)


cdef inline uint32_t put(Request *request, int kind, const void *value, uint32_t size) noexcept nogil:
    """Append an attribute; the answer is where it starts, for `nest`."""
    cdef rtattr attribute
    cdef uint32_t start = request.size
    attribute.rta_len = <uint16_t> (sizeof(attribute) + size)
    attribute.rta_type = <uint16_t> kind
    memcpy(request.data + start, &attribute, sizeof(attribute))
    if size:
        memcpy(request.data + start + sizeof(attribute), value, size)
    request.size = start + aligned(attribute.rta_len)
    return start


cdef inline void nest(Request *request, uint32_t start) noexcept nogil:
    """Everything appended since `start` belongs inside the attribute there."""
    cdef uint16_t size = <uint16_t> (request.size - start)
    memcpy(request.data + start, &size, sizeof(size))


cdef inline const uint8_t *next_attribute(
    const uint8_t *cursor, const uint8_t *end, int *kind, const uint8_t **value, uint32_t *size,
) noexcept nogil:
    """The attribute at `cursor`; returns where the next one starts, NULL when there is none."""
    cdef rtattr attribute
    if end - cursor < <ssize_t> sizeof(attribute):
        return NULL
    memcpy(&attribute, cursor, sizeof(attribute))
    if attribute.rta_len < sizeof(attribute) or attribute.rta_len > end - cursor:
        return NULL
    kind[0] = attribute.rta_type & NLA_TYPE_MASK
    value[0] = cursor + sizeof(attribute)
    size[0] = attribute.rta_len - <uint32_t> sizeof(attribute)
    cursor += aligned(attribute.rta_len)
    return cursor if cursor < end else end


cdef inline int exchange(int fd, Request *request, Visitor visit, void *result) noexcept nogil:
    """Send the request and visit every answer; 0, or -errno as the kernel or the visitor said it.

    Reads to the end whatever happens, so that nothing of this exchange is left for the next one.
    """
    cdef uint8_t answer[ANSWER_SIZE]
    cdef nlmsghdr header
    cdef nlmsgerr verdict
    cdef uint8_t *cursor
    cdef ssize_t got
    cdef int outcome = 0
    cdef int visited
    memcpy(&header, request.data, sizeof(header))
    header.nlmsg_len = request.size
    header.nlmsg_flags |= NLM_F_ACK
    memcpy(request.data, &header, sizeof(header))
    if send(fd, request.data, request.size, 0) < 0:
        return -errno
    while True:
        got = recv(fd, answer, ANSWER_SIZE, 0)
        if got < 0:
            if errno == EINTR:
                continue
            return -errno
        cursor = answer
        while got >= <ssize_t> sizeof(header):
            memcpy(&header, cursor, sizeof(header))
            if header.nlmsg_len < sizeof(header) or <ssize_t> header.nlmsg_len > got:
                return -EPROTO
            if header.nlmsg_flags & NLM_F_DUMP_INTR and outcome == 0:
                outcome = -EAGAIN         # the list changed while it was read; ask again
            if header.nlmsg_type == NLMSG_DONE:
                return outcome
            if header.nlmsg_type == NLMSG_ERROR:
                if header.nlmsg_len < sizeof(header) + sizeof(verdict):
                    return -EPROTO
                memcpy(&verdict, cursor + sizeof(header), sizeof(verdict))
                return verdict.error if verdict.error else outcome
            if visit != NULL:
                visited = visit(
                    &header, cursor + sizeof(header), header.nlmsg_len - <uint32_t> sizeof(header), result)
                if visited < 0 and outcome == 0:
                    outcome = visited
            if <ssize_t> aligned(header.nlmsg_len) >= got:
                break
            got -= aligned(header.nlmsg_len)
            cursor += aligned(header.nlmsg_len)
