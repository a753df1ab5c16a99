"""Where the headers of a packet are: link layer, IPv4 (RFC 791) or IPv6 (RFC 8200), then transport."""
from libc.errno cimport EINVAL
from libc.stdint cimport uint8_t, uint16_t

from tuntap._kernels.cursor cimport Cursor, get8, get16

cdef enum:
    PROTOCOL_HOP_BY_HOP = 0
    PROTOCOL_ICMP = 1
    PROTOCOL_TCP = 6
    PROTOCOL_UDP = 17
    PROTOCOL_DCCP = 33
    PROTOCOL_ROUTING = 43
    PROTOCOL_FRAGMENT = 44
    PROTOCOL_AUTHENTICATION = 51
    PROTOCOL_ICMPV6 = 58
    PROTOCOL_DESTINATION = 60
    PROTOCOL_SCTP = 132
    PROTOCOL_MOBILITY = 135
    PROTOCOL_UDPLITE = 136
    PROTOCOL_HIP = 139
    PROTOCOL_SHIM6 = 140

cdef enum:
    ETHERNET_HEADER_SIZE = 14
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_VLAN = 0x8100
    ETHERTYPE_IPV6 = 0x86dd
    ETHERTYPE_SERVICE_VLAN = 0x88a8
    VLAN_TAG_SIZE = 4
    IPV4_HEADER_SIZE = 20
    IPV6_HEADER_SIZE = 40
    IPV4_FRAGMENT_MASK = 0x3fff       # more fragments, and the offset
    TCP_HEADER_SIZE = 20
    UDP_HEADER_SIZE = 8
    ICMP_HEADER_SIZE = 8
    SCTP_HEADER_SIZE = 12             # and the least that DCCP has
    # Where the checksum is in each.
    IPV4_CHECKSUM = 10
    TCP_CHECKSUM = 16
    UDP_CHECKSUM = 6
    ICMP_CHECKSUM = 2

cdef struct Layout:
    size_t network            # where the IP header starts
    size_t transport          # where the header behind it, and behind its options or extensions, starts
    size_t end                # where the IP header says that the packet ends
    int version               # 4 or 6
    int protocol              # of the transport header
    bint is_fragment


cdef inline int find_network(Cursor *packet, bint is_frame, size_t *network) noexcept nogil:
    """Where the IP header starts; -EINVAL for a frame that carries something else."""
    cdef size_t kind = 12
    cdef uint16_t ethertype
    cdef uint8_t version
    network[0] = 0
    if is_frame:
        ethertype = get16(packet, kind)
        while ethertype in (ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN) and kind < 12 + 2 * VLAN_TAG_SIZE:
            kind += VLAN_TAG_SIZE
            ethertype = get16(packet, kind)
        network[0] = kind + 2
        version = get8(packet, kind + 2) >> 4
        if not (ethertype == ETHERTYPE_IPV4 and version == 4 or ethertype == ETHERTYPE_IPV6 and version == 6):
            return -EINVAL
    return -EINVAL if packet.failed else 0


cdef inline int find_layout(Cursor *packet, bint is_frame, Layout *layout) noexcept nogil:
    """Where everything is; -EINVAL if it is no IP packet or one of its headers is not all there."""
    cdef uint8_t first
    cdef size_t at
    if find_network(packet, is_frame, &at) < 0:
        return -EINVAL
    layout.network = at
    layout.is_fragment = False
    first = get8(packet, at)
    if first >> 4 == 4:
        layout.version = 4
        layout.transport = at + 4 * (first & 15)
        layout.end = at + get16(packet, at + 2)
        layout.protocol = get8(packet, at + 9)
        layout.is_fragment = (get16(packet, at + 6) & IPV4_FRAGMENT_MASK) != 0
        if layout.transport < at + IPV4_HEADER_SIZE:
            return -EINVAL
    elif first >> 4 == 6:
        layout.version = 6
        layout.transport = at + IPV6_HEADER_SIZE
        layout.end = layout.transport + get16(packet, at + 4)
        layout.protocol = get8(packet, at + 6)
        while layout.protocol in (PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_DESTINATION):
            layout.protocol = get8(packet, layout.transport)
            layout.transport += 8 * (get8(packet, layout.transport + 1) + 1)
            if packet.failed:
                return -EINVAL
        layout.is_fragment = layout.protocol == PROTOCOL_FRAGMENT
    else:
        return -EINVAL
    return -EINVAL if packet.failed or layout.transport > packet.size else 0


cdef inline bint is_extension(uint8_t protocol) noexcept nogil:
    """Of IPv6 (IANA's list, but for ESP, which hides what follows)."""
    return protocol in (
        PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_FRAGMENT, PROTOCOL_DESTINATION, PROTOCOL_AUTHENTICATION,
        PROTOCOL_MOBILITY, PROTOCOL_HIP, PROTOCOL_SHIM6)


cdef inline size_t extension_size(uint8_t protocol, const uint8_t *header) noexcept nogil:
    """Bytes of an extension header, of which 2 are there."""
    if protocol == PROTOCOL_FRAGMENT:
        return 8
    if protocol == PROTOCOL_AUTHENTICATION:
        return 4 * (<size_t> header[1] + 2)
    return 8 * (<size_t> header[1] + 1)
