"""What the kernel's GRO would merge (tcp_gro_receive, udp_gro_receive, inet_gro_receive), and no more."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from tuntap._kernels.checksum cimport fold, sum_bytes, sum_pseudo_header
from tuntap._kernels.cursor cimport Cursor, cursor_set, get8, get16, get32, put16, span
from tuntap._kernels.ip cimport (
    ETHERNET_HEADER_SIZE, IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, PROTOCOL_TCP, PROTOCOL_UDP, TCP_CHECKSUM,
    TCP_HEADER_SIZE, UDP_CHECKSUM, UDP_HEADER_SIZE, Layout, find_layout,
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
    cdef Cursor packet
    cdef Layout layout
    cdef int place
    if window.packets == WINDOW:
        return -1
    cursor_set(&packet, data, size)
    if window.packets and (size < ETHERNET_HEADER_SIZE if window.is_frame else get8(&packet, 0) >> 4 not in (4, 6)):
        return -1
    # Most often it goes on with the flow of the packet before, and need not be taken apart.
    if window.recent >= 0 and joins(window, &window.item[window.recent], &packet):
        return 0
    item = &window.item[window.items]
    memset(item, 0, sizeof(Item))
    item.packet = data
    item.size = item.first_size = <uint32_t> size
    item.count = 1
    item.first = item.last = <int16_t> window.packets
    if find_layout(&packet, window.is_frame, &layout) < 0 or layout.is_fragment:
        forget_flows(window)
    elif layout.protocol in (PROTOCOL_TCP, PROTOCOL_UDP):
        if not read_item(window, item, &packet, &layout):
            forget_flows(window)
        else:
            place = window.flow[item.flow]
            if place >= 0 and place != window.recent and joins(window, &window.item[place], &packet):
                window.recent = place
                return 0
            window.recent = window.items if item.is_open else -1
            window.flow[item.flow] = <int16_t> window.recent
    window.next[window.packets] = -1
    window.items += 1
    window.packets += 1
    return 0


cdef inline void forget_flows(Window *window) noexcept nogil:
    """End every item: of which flow the next packet is cannot be told."""
    memset(window.flow, 0xff, sizeof(window.flow))
    window.recent = -1


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
        item.is_open = not flags & (TCP_UNMERGEABLE | TCP_ENDING)
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


cdef inline bint equal(const Item *item, const Cursor *packet, size_t start, size_t end) noexcept nogil:
    """Whether a packet has the same bytes there as the first of an item; both have so many."""
    return memcmp(item.packet + start, packet.data + start, end - start) == 0


cdef bint joins(Window *window, Item *into, Cursor *packet) noexcept nogil:
    """Whether a packet continues an item; if so it is made part of it.

    Its headers must be those of the item's first packet, byte for byte, but for the fields that count,
    and these must go on.  So it is laid out in the same way, too.
    """
    cdef size_t network = into.network
    cdef size_t transport = into.transport
    cdef size_t payload = packet.size - into.payload
    cdef uint16_t identification = 0
    cdef uint8_t ending = 0
    cdef bint fixed = False
    if not into.is_open or packet.size <= into.payload or payload > into.gso_size or into.size + payload > LARGEST:
        return False
    # Ports.
    if not equal(into, packet, transport, transport + 4) or network and not equal(into, packet, 0, network):
        return False
    if into.version == 4:
        # Type of service; flags; time to live and protocol; addresses.
        if (
            get16(packet, network + 2) != packet.size - network
            or not equal(into, packet, network, network + 2)
            or not equal(into, packet, network + 6, network + 10)
            or not equal(into, packet, network + 12, network + 20)
        ):
            return False
        identification = get16(packet, network + 4)
        fixed = <uint16_t> (identification + 1) == into.identification
        if fixed:
            if not window.renumber or not get8(packet, network + 6) & (IPV4_MAY_NOT_FRAGMENT >> 8):
                return False
        elif identification != into.identification:
            return False
        if into.count > 1 and fixed != into.fixed_id:
            return False
    # Traffic class and flow label; next header, hop limit, addresses and extension headers.
    elif (
        get16(packet, network + 4) != packet.size - network - IPV6_HEADER_SIZE
        or not equal(into, packet, network, network + 4)
        or not equal(into, packet, network + 6, transport)
    ):
        return False
    if into.type == GRO_UDP:
        if (
            get16(packet, transport + 4) != packet.size - transport
            or get16(packet, transport + UDP_CHECKSUM) == 0
            or into.count == UDP_MERGED_MAX
        ):
            return False
    else:
        # Acknowledgement and data offset; flags; window; urgent pointer and options.
        ending = get8(packet, transport + 13) & TCP_ENDING
        if (
            get32(packet, transport + 4) != into.sequence
            or not equal(into, packet, transport + 8, transport + 13)
            or get8(packet, transport + 13) != (into.packet[transport + 13] | ending)
            or not equal(into, packet, transport + 14, transport + 16)
            or not equal(into, packet, transport + 18, into.payload)
        ):
            return False
    if not window.trusted and not has_right_checksums(into, packet):
        return False
    into.count += 1
    into.size += <uint32_t> payload
    into.sequence += <uint32_t> payload
    into.identification = identification + 1
    into.fixed_id = fixed
    into.ending = ending
    into.is_open = payload == into.gso_size and not ending
    window.next[into.last] = <int16_t> window.packets
    window.next[window.packets] = -1
    into.last = <int16_t> window.packets
    window.packets += 1
    return True


cdef bint has_right_checksums(Item *into, Cursor *packet) noexcept nogil:
    """Whether a packet and the first of an item have; the item is closed if its own are wrong."""
    cdef Cursor first
    if not into.is_valid:
        cursor_set(&first, into.packet + into.network, into.first_size - into.network)
        into.pseudo_sum = sum_pseudo_header(&first, PROTOCOL_UDP if into.type == GRO_UDP else PROTOCOL_TCP, 0)
        cursor_set(&first, into.packet, into.first_size)
        into.is_valid = into.is_open = is_right(into, &first)
        if not into.is_valid:
            return False
    return is_right(into, packet)


cdef bint is_right(const Item *item, Cursor *packet) noexcept nogil:
    """Whether the checksums are right, and written as a split writes them: a zero has two forms (RFC 1624)."""
    cdef size_t size = packet.size - item.transport
    cdef uint64_t total = 0
    cdef int i
    if item.version == 4:
        for i in range(0, IPV4_HEADER_SIZE, 4):
            total += get32(packet, item.network + i)
        if fold(total) != 0xffff or get16(packet, item.network + 10) == 0xffff:
            return False
    if item.type != GRO_UDP and get16(packet, item.transport + TCP_CHECKSUM) == 0xffff:
        return False
    return fold(sum_bytes(packet.data + item.transport, size, item.pseudo_sum + size)) == 0xffff


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
