from libc.errno cimport EINVAL, EMSGSIZE
from libc.stdint cimport intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tuntap._kernels.checksum cimport copy_sum, fold, sum_bytes
from tuntap._kernels.cursor cimport Cursor, cursor_set, span, store16, store32
from tuntap._kernels.ip cimport *


cdef intptr_t row_build(
    uint8_t *target, size_t room, bint is_frame, bint has_tag, const Row *row, const uint8_t *payload, size_t size,
) noexcept nogil:
    cdef Cursor memory
    cdef size_t network = 0
    cdef size_t header = transport_size(row)
    cdef size_t addresses
    cdef uint64_t total
    cdef uint8_t *at
    if row.version not in (4, 6):
        return -EINVAL
    if is_frame:
        network = ETHERNET_HEADER_SIZE + (VLAN_TAG_SIZE if has_tag else 0)
    addresses = IPV4_HEADER_SIZE if row.version == 4 else IPV6_HEADER_SIZE
    cursor_set(&memory, target, room)
    # What counts is the whole packet for IPv4, and what is behind the header for IPv6.
    if size > 0xffff or header + size + (addresses if row.version == 4 else 0) > 0xffff:
        return -EMSGSIZE
    at = span(&memory, 0, network + addresses + header + size)
    if at == NULL:
        return -EMSGSIZE
    if is_frame:
        write_link(at, has_tag, row)
        at += network
    if row.version == 4:
        write_ipv4(at, <uint16_t> (addresses + header + size), row)
        total = sum_bytes(at + 12, 8, row.protocol + header + size)
    else:
        write_ipv6(at, <uint16_t> (header + size), row)
        total = sum_bytes(at + 8, 32, row.protocol + header + size)
    at += addresses
    if row.protocol == PROTOCOL_ICMP and row.version == 4:
        total = 0
    write_transport(at, <uint16_t> (header + size), row)
    total = sum_bytes(at, header, total)
    if payload == NULL:
        memset(at + header, 0, size)
    elif header:
        total = copy_sum(at + header, payload, size, total)
    else:
        memcpy(at + header, payload, size)
    write_checksum(at, <uint16_t> ~fold(total), row)
    return <intptr_t> (network + addresses + header + size)


cdef inline size_t transport_size(const Row *row) noexcept nogil:
    if row.protocol == PROTOCOL_TCP:
        return TCP_HEADER_SIZE
    if row.protocol == PROTOCOL_UDP:
        return UDP_HEADER_SIZE
    return ICMP_HEADER_SIZE if row.protocol == (PROTOCOL_ICMP if row.version == 4 else PROTOCOL_ICMPV6) else 0


cdef inline void write_link(uint8_t *at, bint has_tag, const Row *row) noexcept nogil:
    store16(at, <uint16_t> (row.eth_dst >> 32))
    store32(at + 2, <uint32_t> row.eth_dst)
    store16(at + 6, <uint16_t> (row.eth_src >> 32))
    store32(at + 8, <uint32_t> row.eth_src)
    at += 12
    if has_tag:
        store16(at, ETHERTYPE_VLAN)
        store16(at + 2, <uint16_t> (row.vlan_priority << 13 | row.vlan & 0xfff))
        at += VLAN_TAG_SIZE
    store16(at, ETHERTYPE_IPV4 if row.version == 4 else ETHERTYPE_IPV6)


cdef inline void write_ipv4(uint8_t *at, uint16_t length, const Row *row) noexcept nogil:
    at[0] = 4 << 4 | IPV4_HEADER_SIZE // 4
    at[1] = <uint8_t> (row.dscp << 2 | row.ecn & 3)
    store16(at + 2, length)
    store16(at + 4, <uint16_t> row.ip_id)
    store16(at + 6, <uint16_t> (row.ip_flags << 13))
    at[8] = row.ttl
    at[9] = row.protocol
    store16(at + 10, 0)
    store32(at + 12, row.src4)
    store32(at + 16, row.dst4)
    store16(at + 10, <uint16_t> ~fold(sum_bytes(at, IPV4_HEADER_SIZE, 0)))


cdef inline void write_ipv6(uint8_t *at, uint16_t length, const Row *row) noexcept nogil:
    store32(
        at, <uint32_t> 6 << 28 | <uint32_t> <uint8_t> (row.dscp << 2 | row.ecn & 3) << 20 | row.flow_label & 0xfffff)
    store16(at + 4, length)
    at[6] = row.protocol
    at[7] = row.ttl
    memcpy(at + 8, row.src6, 16)
    memcpy(at + 24, row.dst6, 16)


cdef inline void write_transport(uint8_t *at, uint16_t length, const Row *row) noexcept nogil:
    """The header, with 0 for its checksum."""
    if row.protocol == PROTOCOL_TCP:
        store16(at, row.src_port)
        store16(at + 2, row.dst_port)
        store32(at + 4, row.tcp_seq)
        store32(at + 8, row.tcp_ack)
        store16(at + 12, <uint16_t> (TCP_HEADER_SIZE // 4 << 12 | row.tcp_flags & 0xfff))
        store16(at + 14, row.tcp_window)
        store32(at + 16, 0)
    elif row.protocol == PROTOCOL_UDP:
        store16(at, row.src_port)
        store16(at + 2, row.dst_port)
        store16(at + 4, length)
        store16(at + 6, 0)
    elif transport_size(row):
        at[0] = row.icmp_type
        at[1] = row.icmp_code
        store16(at + 2, 0)
        store16(at + 4, row.icmp_id)
        store16(at + 6, row.icmp_seq)


cdef inline void write_checksum(uint8_t *at, uint16_t checksum, const Row *row) noexcept nogil:
    if row.protocol == PROTOCOL_TCP:
        store16(at + TCP_CHECKSUM, checksum)
    elif row.protocol == PROTOCOL_UDP:
        store16(at + UDP_CHECKSUM, checksum or 0xffff)
    elif transport_size(row):
        store16(at + ICMP_CHECKSUM, checksum)
