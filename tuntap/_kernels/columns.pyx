"""IPv4 (RFC 791), IPv6 (8200), TCP (9293), UDP (768), UDP-Lite (3828), SCTP (9260), DCCP (4340), ICMP (792, 4443)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tuntap._kernels.cursor cimport Cursor, cursor_set, load16, load32, load48, load64, span
from tuntap._kernels.ip cimport *

cdef enum:
    HEADERS_MAX = 16              # extension headers of one packet; more are an attack
    AUTHENTICATION_SIZE = 12      # RFC 4302: what each has
    DCCP_LONG_SIZE = 16           # RFC 4340: with long sequence numbers


cdef void rows_clear(Row *rows, size_t count) noexcept nogil:
    # Of a size that the compiler does not know, or it writes the zeros itself, and slower than the C library.
    memset(rows, 0, count * sizeof(Row))


cdef void row_read(
    const uint8_t *data, size_t size, bint is_frame, int wanted, uint64_t seed, Row *row,
) noexcept nogil:
    cdef Cursor packet
    cdef size_t at = 0
    cdef size_t end
    row.length = <uint32_t> size
    cursor_set(&packet, data, size)
    if is_frame and not read_link(&packet, &at, row):
        return
    end = read_network(&packet, &at, is_frame, row)
    if end == 0 or not wanted & WANT_TRANSPORT:
        return
    row.transport_offset = <uint16_t> at
    row.payload_offset = <uint32_t> at
    row.payload_length = <uint32_t> (end - at)
    if row.fragment_offset == 0:
        # Beyond `end` is another's, be it padding.
        cursor_set(&packet, data, end)
        read_transport(&packet, at, row)
    if wanted & WANT_FLOW_HASH:
        row.flow_hash = hash_flow(row, seed, (wanted & WANT_SYMMETRIC) != 0)


cdef inline bint read_link(Cursor *packet, size_t *at, Row *row) noexcept nogil:
    """Whether an IP header may follow, and where."""
    cdef const uint8_t *header = span(packet, 0, ETHERNET_HEADER_SIZE)
    cdef size_t kind = 12
    cdef uint16_t tag
    if header == NULL:
        row.marks |= MARK_TRUNCATED
        return False
    row.eth_dst = load48(header)
    row.eth_src = load48(header + 6)
    row.ethertype = load16(header + 12)
    while row.ethertype in (ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN) and kind < 12 + 2 * VLAN_TAG_SIZE:
        header = span(packet, kind + 2, VLAN_TAG_SIZE)
        if header == NULL:
            row.marks |= MARK_TRUNCATED
            return False
        tag = load16(header)
        if kind == 12:
            row.marks |= MARK_VLAN
            row.vlan = tag & 0xfff
            row.vlan_priority = <uint8_t> (tag >> 13)
        else:
            row.vlan_inner = tag & 0xfff
        kind += VLAN_TAG_SIZE
        row.ethertype = load16(header + 2)
    at[0] = kind + 2
    return row.ethertype in (ETHERTYPE_IPV4, ETHERTYPE_IPV6)


cdef inline size_t read_network(Cursor *packet, size_t *at, bint is_frame, Row *row) noexcept nogil:
    """The IP header, and where the header behind it is; the end of what there is of the IP packet, or 0."""
    cdef const uint8_t *header = span(packet, at[0], 1)
    cdef uint8_t version
    if header == NULL:
        row.marks |= MARK_TRUNCATED
        return 0
    version = header[0] >> 4
    if is_frame and version != (4 if row.ethertype == ETHERTYPE_IPV4 else 6):
        row.marks |= MARK_MALFORMED
        return 0
    if version == 4:
        return read_ipv4(packet, at, row)
    if version == 6:
        return read_ipv6(packet, at, row)
    return 0


cdef inline size_t read_ipv4(Cursor *packet, size_t *at, Row *row) noexcept nogil:
    cdef const uint8_t *header = span(packet, at[0], IPV4_HEADER_SIZE)
    cdef size_t size
    cdef uint16_t length
    cdef uint16_t fragment
    if header == NULL:
        row.marks |= MARK_TRUNCATED
        return 0
    size = 4 * (header[0] & 15)
    length = load16(header + 2)
    if size < IPV4_HEADER_SIZE or length < size:
        row.marks |= MARK_MALFORMED
        return 0
    if span(packet, at[0], size) == NULL:
        row.marks |= MARK_TRUNCATED
        return 0
    row.version = 4
    row.ip_length = length
    row.dscp = header[1] >> 2
    row.ecn = header[1] & 3
    row.ip_id = load16(header + 4)
    fragment = load16(header + 6)
    row.ip_flags = <uint8_t> (fragment >> 13)
    row.fragment_offset = <uint16_t> (8 * (fragment & 0x1fff))
    row.ttl = header[8]
    row.protocol = header[9]
    row.src4 = load32(header + 12)
    row.dst4 = load32(header + 16)
    row.marks |= MARK_IP
    if size > IPV4_HEADER_SIZE:
        row.marks |= MARK_OPTIONS
    if fragment & IPV4_FRAGMENT_MASK:
        note_fragment(row, row.ip_length)
    row.network_offset = <uint16_t> at[0]
    at[0] += size
    return end_of(packet, row)


cdef inline size_t read_ipv6(Cursor *packet, size_t *at, Row *row) noexcept nogil:
    cdef const uint8_t *header = span(packet, at[0], IPV6_HEADER_SIZE)
    cdef uint32_t first
    cdef size_t end
    if header == NULL:
        row.marks |= MARK_TRUNCATED
        return 0
    first = load32(header)
    row.version = 6
    row.dscp = first >> 22 & 63
    row.ecn = first >> 20 & 3
    row.flow_label = first & 0xfffff
    row.ip_length = IPV6_HEADER_SIZE + load16(header + 4)
    row.protocol = header[6]
    row.ttl = header[7]
    memcpy(row.src6, header + 8, 16)
    memcpy(row.dst6, header + 24, 16)
    row.marks |= MARK_IP
    row.network_offset = <uint16_t> at[0]
    at[0] += IPV6_HEADER_SIZE
    end = end_of(packet, row)
    if is_extension(row.protocol):
        pass_extensions(packet, at, end, row)
    return end


cdef void pass_extensions(Cursor *packet, size_t *at, size_t end, Row *row) noexcept nogil:
    """Go on to what is behind all extension headers, or behind the first fragment header with an offset."""
    cdef Cursor all_there
    cdef const uint8_t *header
    cdef size_t size
    cdef uint16_t fragment
    cdef bint is_short
    cdef int count = 0
    cursor_set(&all_there, packet.data, end)
    row.marks |= MARK_OPTIONS
    while is_extension(row.protocol) and row.fragment_offset == 0:
        header = span(&all_there, at[0], 8)
        size = extension_size(row.protocol, header) if header != NULL else 8
        count += 1
        is_short = header != NULL and row.protocol == PROTOCOL_AUTHENTICATION and size < AUTHENTICATION_SIZE
        if count > HEADERS_MAX or is_short:
            row.marks |= MARK_MALFORMED
            return
        if span(&all_there, at[0], size) == NULL:
            if leaves_packet(row, at[0] + size):
                row.marks |= MARK_MALFORMED
            return
        if row.protocol == PROTOCOL_FRAGMENT:
            fragment = load16(header + 2)
            row.ip_id = load32(header + 4)
            row.ip_flags = fragment & 1
            row.fragment_offset = fragment & 0xfff8
            if fragment & 0xfff9:                     # or it is whole (RFC 6946)
                note_fragment(row, row.ip_length - IPV6_HEADER_SIZE - <uint32_t> size)
        row.protocol = header[0]
        at[0] += size


cdef inline void note_fragment(Row *row, uint32_t size) noexcept nogil:
    """The whole packet would have its offset and `size` bytes, as its length counts them."""
    row.marks |= MARK_FRAGMENT
    if row.fragment_offset + size > 0xffff:
        row.marks |= MARK_MALFORMED


cdef inline bint leaves_packet(const Row *row, size_t end) noexcept nogil:
    """Whether something that goes on to `end`, where nothing is, is no part of the IP packet either.

    It may be in another fragment, which is an attack if it is a header, but no contradiction.
    """
    return end > <size_t> row.network_offset + row.ip_length and not row.marks & MARK_FRAGMENT


cdef inline size_t end_of(Cursor *packet, Row *row) noexcept nogil:
    """The end of what there is of the IP packet."""
    cdef size_t end = <size_t> row.network_offset + row.ip_length
    if end > packet.size:
        row.marks |= MARK_TRUNCATED
        return packet.size
    if end < packet.size:
        row.marks |= MARK_PADDED
    return end


cdef inline size_t transport_size(const Row *row) noexcept nogil:
    """Bytes of a header that there is a way to read, at least; 0 if there is none."""
    if row.protocol == PROTOCOL_TCP:
        return TCP_HEADER_SIZE
    if row.protocol in (PROTOCOL_UDP, PROTOCOL_UDPLITE):
        return UDP_HEADER_SIZE
    if row.protocol == (PROTOCOL_ICMP if row.version == 4 else PROTOCOL_ICMPV6):
        return ICMP_HEADER_SIZE
    if row.protocol in (PROTOCOL_SCTP, PROTOCOL_DCCP):
        return SCTP_HEADER_SIZE
    return 0


cdef inline void read_transport(Cursor *packet, size_t at, Row *row) noexcept nogil:
    """The header behind that of IP, if it is all there."""
    cdef size_t size = transport_size(row)
    cdef const uint8_t *header
    cdef uint32_t left = row.payload_length
    cdef uint16_t length
    if size == 0:
        return
    header = span(packet, at, size)
    if header != NULL and row.protocol in (PROTOCOL_TCP, PROTOCOL_DCCP):
        size = 4 * (header[12] >> 4) if row.protocol == PROTOCOL_TCP else 4 * <size_t> header[4]
        if size < (DCCP_LONG_SIZE if row.protocol == PROTOCOL_DCCP and header[8] & 1 else transport_size(row)):
            row.marks |= MARK_MALFORMED
            return
        header = span(packet, at, size)
    if header == NULL:
        if leaves_packet(row, at + size):
            row.marks |= MARK_MALFORMED
        return
    if row.protocol in (PROTOCOL_UDP, PROTOCOL_UDPLITE):
        length = load16(header + 4)
        if row.protocol == PROTOCOL_UDPLITE and length == 0:
            length = UDP_HEADER_SIZE                  # the checksum is of everything (RFC 3828)
        if length < UDP_HEADER_SIZE or length > left and leaves_packet(row, at + length):
            row.marks |= MARK_MALFORMED
            return
        if row.protocol == PROTOCOL_UDP:
            left = min(<uint32_t> length, left)
    row.marks |= MARK_TRANSPORT
    row.payload_offset += <uint32_t> size
    row.payload_length = left - <uint32_t> size
    if row.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
        row.icmp_type = header[0]
        row.icmp_code = header[1]
        if is_echo(row):
            row.icmp_id = load16(header + 4)
            row.icmp_seq = load16(header + 6)
        return
    row.src_port = load16(header)
    row.dst_port = load16(header + 2)
    if row.protocol == PROTOCOL_TCP:
        row.tcp_seq = load32(header + 4)
        row.tcp_ack = load32(header + 8)
        row.tcp_flags = load16(header + 12) & 0xfff
        row.tcp_window = load16(header + 14)


cdef inline uint64_t mix(uint64_t value) noexcept nogil:
    """Each bit of the result depends on each of the value (the finalizer of MurmurHash3)."""
    value ^= value >> 33
    value *= <uint64_t> 0xff51afd7ed558ccd
    value ^= value >> 33
    value *= <uint64_t> 0xc4ceb9fe1a85ec53
    return value ^ value >> 33


cdef inline uint64_t hash_flow(const Row *row, uint64_t seed, bint symmetric) noexcept nogil:
    """Of the version, the protocol, and both ends; of the parts of an IP packet what all of them have."""
    cdef bint is_whole = not row.marks & MARK_FRAGMENT
    cdef uint64_t src = row.src_port if is_whole else 0
    cdef uint64_t dst = row.dst_port if is_whole else 0
    cdef uint64_t protocol = row.protocol if is_whole else 0
    cdef uint64_t other
    if row.version == 4:
        src = mix(seed + (<uint64_t> row.src4 << 16 | src))
        dst = mix(seed + (<uint64_t> row.dst4 << 16 | dst))
    else:
        src = mix(mix(mix(seed + load64(row.src6)) + load64(row.src6 + 8)) + src)
        dst = mix(mix(mix(seed + load64(row.dst6)) + load64(row.dst6 + 8)) + dst)
    if symmetric and src > dst:
        other = src
        src = dst
        dst = other
    return mix(mix(src + protocol) + dst + row.version)
