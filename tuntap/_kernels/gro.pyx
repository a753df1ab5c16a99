"""What the kernel's GRO would merge (tcp_gro_receive, udp_gro_receive, inet_gro_receive), and no more."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from tuntap._kernels.checksum cimport fold, sum_bytes, sum_pseudo_header
from tuntap._kernels.cursor cimport Cursor, cursor_set, get8, get16, get32, put16, span
from tuntap._kernels.gso cimport UDP_SEGMENTS_MAX
from tuntap._kernels.ip cimport (
    ETHERNET_HEADER_SIZE, IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, PROTOCOL_TCP, PROTOCOL_UDP, TCP_HEADER_SIZE,
    UDP_HEADER_SIZE, Layout, find_layout,
)
from tuntap._kernels.virtio cimport (
    VIRTIO_F_NEEDS_CSUM, VIRTIO_GSO_TCPV4, VIRTIO_GSO_TCPV6, VIRTIO_GSO_UDP_L4, VirtioHeader,
)

cdef enum:
    LARGEST = 65535               # bytes of an IP packet
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_PSH = 0x08
    TCP_URG = 0x20
    TCP_CWR = 0x80
    TCP_ENDING = TCP_FIN | TCP_PSH
    TCP_UNMERGEABLE = TCP_SYN | TCP_RST | TCP_URG | TCP_CWR
    TCP_CHECKSUM = 16
    UDP_CHECKSUM = 6
    IPV4_MAY_NOT_FRAGMENT = 0x4000


cdef void gro_begin(Window *window, uint32_t types, bint is_frame, bint trusted, bint renumber) noexcept nogil:
    window.packets = window.items = 0
    window.types = types
    window.is_frame = is_frame
    window.trusted = trusted
    window.renumber = renumber
    forget_flows(window)


cdef int gro_add(Window *window, const uint8_t *data, size_t size) noexcept nogil:
    cdef Item *item
    cdef Item *previous
    cdef Cursor packet
    cdef Layout layout
    cdef int place
    if window.packets == WINDOW:
        return -1
    cursor_set(&packet, data, size)
    if window.packets and (size < ETHERNET_HEADER_SIZE if window.is_frame else get8(&packet, 0) >> 4 not in (4, 6)):
        return -1
    item = &window.item[window.items]
    memset(item, 0, sizeof(Item))
    item.packet = data
    item.size = item.first_size = <uint32_t> size
    item.count = 1
    item.first = item.last = <int16_t> window.packets
    window.next[window.packets] = -1
    if find_layout(&packet, window.is_frame, &layout) < 0 or layout.is_fragment:
        forget_flows(window)
    elif layout.protocol in (PROTOCOL_TCP, PROTOCOL_UDP):
        if not read_item(window, item, &packet, &layout):
            forget_flows(window)
        else:
            place = window.flow[item.flow]
            if place >= 0:
                previous = &window.item[place]
                if item.is_open and is_same_flow(previous, item) and joins(window, previous, item):
                    window.next[previous.last] = item.first
                    previous.last = item.first
                    window.packets += 1
                    return 0
            window.flow[item.flow] = <int16_t> (window.items if item.is_open and not item.ending else -1)
    window.items += 1
    window.packets += 1
    return 0


cdef inline void forget_flows(Window *window) noexcept nogil:
    """End every item: of which flow the next packet is cannot be told."""
    memset(window.flow, 0xff, sizeof(window.flow))


cdef bint read_item(Window *window, Item *item, Cursor *packet, const Layout *layout) noexcept nogil:
    """What merging must know of a TCP or UDP packet; False if its header is not all there."""
    cdef size_t transport = layout.transport
    cdef size_t least = TCP_HEADER_SIZE if layout.protocol == PROTOCOL_TCP else UDP_HEADER_SIZE
    cdef size_t header = least
    cdef bint is_whole = layout.end == packet.size
    cdef uint8_t flags
    cdef uint16_t fragmentation
    item.version = <uint8_t> layout.version
    if layout.protocol == PROTOCOL_TCP:
        item.type = GRO_TCPV4 if layout.version == 4 else GRO_TCPV6
        header = 4 * (get8(packet, transport + 12) >> 4)
        flags = get8(packet, transport + 13)
        item.sequence = get32(packet, transport + 4)
        item.ending = flags & TCP_ENDING
        item.is_open = not flags & TCP_UNMERGEABLE
    else:
        item.type = GRO_UDP
        item.is_open = get16(packet, transport + 6) != 0
        is_whole = is_whole and get16(packet, transport + 4) == packet.size - transport
    if span(packet, transport, max(header, least)) == NULL:
        return False
    item.flow = place_of(packet, layout)
    is_whole = is_whole and header >= least
    header += transport
    is_whole = is_whole and header <= GRO_HEADERS_MAX
    item.is_open = item.is_open and is_whole and item.type & window.types and packet.size > header
    if layout.version == 4:
        fragmentation = get16(packet, layout.network + 6)
        item.identification = get16(packet, layout.network + 4)
        item.is_open = (
            item.is_open and transport == layout.network + IPV4_HEADER_SIZE
            and fragmentation in (0, IPV4_MAY_NOT_FRAGMENT)
        )
    if not is_whole:
        return True               # its checksum is not ours to complete, either
    item.network = <uint16_t> layout.network
    item.transport = <uint16_t> transport
    item.payload = <uint16_t> header
    item.gso_size = <uint16_t> (packet.size - header)
    item.sequence += item.gso_size
    item.identification += 1
    return True


cdef inline uint16_t place_of(Cursor *packet, const Layout *layout) noexcept nogil:
    """A hash of addresses, ports and protocol."""
    cdef size_t at = layout.network + (12 if layout.version == 4 else 8)
    cdef size_t end = layout.network + (IPV4_HEADER_SIZE if layout.version == 4 else IPV6_HEADER_SIZE)
    cdef uint64_t mixed = get32(packet, layout.transport) + <uint64_t> layout.protocol
    while at < end:
        mixed = (mixed ^ get32(packet, at)) * <uint64_t> 0x9e3779b97f4a7c15
        mixed ^= mixed >> 32
        at += 4
    return <uint16_t> (mixed % FLOWS)


cdef inline bint equal(const Item *a, const Item *b, size_t start, size_t end) noexcept nogil:
    """Whether two packets have the same bytes there; both have so many."""
    return memcmp(a.packet + start, b.packet + start, end - start) == 0


cdef bint is_same_flow(const Item *a, const Item *b) noexcept nogil:
    cdef size_t at = a.network
    if a.type != b.type or a.version != b.version or a.network != b.network or a.transport != b.transport:
        return False
    if a.version == 4:
        at += 12
    else:
        at += 8
    # In IPv6 the extension headers lie between, and must be the same too.
    return equal(a, b, at, a.transport + 4)


cdef bint joins(Window *window, Item *into, Item *item) noexcept nogil:
    """Whether a packet of the same flow continues an item; if so it is made part of it."""
    cdef uint32_t payload = item.gso_size
    cdef size_t network = into.network
    cdef size_t transport = into.transport
    cdef bint fixed
    if not into.is_open or into.payload != item.payload or payload > into.gso_size:
        return False
    if into.size + payload > LARGEST or not equal(into, item, 0, network):
        return False
    if into.version == 4:
        # Type of service; flags; time to live and protocol.
        if not (equal(into, item, network, network + 2) and equal(into, item, network + 6, network + 10)):
            return False
        fixed = item.identification == into.identification
        if fixed:
            if not window.renumber or not into.packet[network + 6] & (IPV4_MAY_NOT_FRAGMENT >> 8):
                return False
        elif item.identification != <uint16_t> (into.identification + 1):
            return False
        if into.count > 1 and fixed != into.fixed_id:
            return False
    else:
        fixed = False
        # Traffic class and flow label; next header and hop limit.
        if not (equal(into, item, network, network + 4) and equal(into, item, network + 6, network + 8)):
            return False
    if item.type == GRO_UDP:
        if into.count == UDP_SEGMENTS_MAX:
            return False
    else:
        # Acknowledgement; data offset and flags; window; urgent pointer and options.
        if not (
            item.sequence - payload == into.sequence
            and equal(into, item, transport + 8, transport + 13)
            and into.packet[transport + 13] == (item.packet[transport + 13] & <uint8_t> ~TCP_ENDING)
            and equal(into, item, transport + 14, transport + 16)
            and equal(into, item, transport + 18, into.payload)
        ):
            return False
    if not window.trusted:
        if not into.is_valid and not has_valid_checksums(into):
            into.is_open = False
            return False
        into.is_valid = True
        if not has_valid_checksums(item):
            item.is_open = False
            return False
    into.count += 1
    into.size += payload
    into.sequence = item.sequence
    into.identification = item.identification
    into.fixed_id = fixed
    into.ending = item.ending
    into.is_open = payload == into.gso_size and not item.ending
    return True


cdef bint has_valid_checksums(const Item *item) noexcept nogil:
    """Whether they are right, and written as a split writes them: a zero has two forms (RFC 1624)."""
    cdef Cursor ip
    cdef const uint8_t *transport = item.packet + item.transport
    cdef size_t size = item.first_size - item.transport
    cdef bint is_udp = item.type == GRO_UDP
    cursor_set(&ip, item.packet + item.network, item.first_size - item.network)
    if item.version == 4 and (fold(sum_bytes(ip.data, IPV4_HEADER_SIZE, 0)) != 0xffff or get16(&ip, 10) == 0xffff):
        return False
    if not is_udp and get16(&ip, item.transport - item.network + TCP_CHECKSUM) == 0xffff:
        return False
    return fold(sum_bytes(transport, size, sum_pseudo_header(
        &ip, PROTOCOL_UDP if is_udp else PROTOCOL_TCP, <uint32_t> size))) == 0xffff


cdef size_t gro_headers(const Window *window, const Item *item, VirtioHeader *header, Cursor *target) noexcept nogil:
    cdef Cursor packet
    cdef Cursor ip
    cdef bint is_udp = item.type == GRO_UDP
    cdef size_t size = item.payload
    cdef uint16_t length = <uint16_t> (item.size - item.transport)
    cdef size_t checksum_at = item.transport + (UDP_CHECKSUM if is_udp else TCP_CHECKSUM)
    memset(header, 0, sizeof(VirtioHeader))
    cursor_set(&packet, item.packet, item.first_size)
    if size == 0 or target.size < size:
        return 0
    if item.count == 1 and (not window.trusted or is_udp and get16(&packet, checksum_at) == 0):
        return 0
    header.flags = VIRTIO_F_NEEDS_CSUM
    header.csum_start = item.transport
    header.csum_offset = UDP_CHECKSUM if is_udp else TCP_CHECKSUM
    memcpy(target.data, item.packet, size)
    cursor_set(&ip, target.data + item.network, size - item.network)
    if item.count > 1:
        header.gso_type = (
            VIRTIO_GSO_UDP_L4 if is_udp else VIRTIO_GSO_TCPV4 if item.version == 4 else VIRTIO_GSO_TCPV6)
        header.hdr_len = item.payload
        header.gso_size = item.gso_size
        if item.version == 4:
            put16(&ip, 2, <uint16_t> (item.size - item.network))
            put16(&ip, 10, 0)
            put16(&ip, 10, <uint16_t> ~fold(sum_bytes(ip.data, IPV4_HEADER_SIZE, 0)))
        else:
            put16(&ip, 4, <uint16_t> (item.size - item.network - IPV6_HEADER_SIZE))
        if is_udp:
            put16(target, item.transport + 4, length)
        else:
            target.data[item.transport + 13] |= item.ending
    put16(target, checksum_at, fold(sum_pseudo_header(&ip, PROTOCOL_UDP if is_udp else PROTOCOL_TCP, length)))
    return size
