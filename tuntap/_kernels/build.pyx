from libc.errno cimport EINVAL, EMSGSIZE
from libc.stdint cimport intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tuntap._kernels.checksum cimport copy_sum, fold, sum_bytes
from tuntap._kernels.cursor cimport Cursor, cursor_set, span, store16, store32, store48
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
    total = row.protocol + header + size
    if row.version == 4:
        total += write_ipv4(at, <uint16_t> (addresses + header + size), row)
    else:
        total = sum_bytes(row.dst6, 16, sum_bytes(row.src6, 16, total))
        write_ipv6(at, <uint16_t> (header + size), row)
    at += addresses
    if row.protocol == PROTOCOL_ICMP and row.version == 4:
        total = 0
    total += write_transport(at, <uint16_t> (header + size), row)
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
    store48(at, row.eth_dst)
    store48(at + 6, row.eth_src)
    at += 12
    if has_tag:
        store16(at, ETHERTYPE_VLAN)
        store16(at + 2, <uint16_t> (row.vlan_priority << 13 | row.vlan & 0xfff))
        at += VLAN_TAG_SIZE
    store16(at, ETHERTYPE_IPV4 if row.version == 4 else ETHERTYPE_IPV6)


# What is written is summed as it is, not read again: a CPU waits for small writes before a larger read.
cdef inline uint64_t write16(uint8_t *at, uint16_t value) noexcept nogil:
    store16(at, value)
    return value


cdef inline uint64_t write32(uint8_t *at, uint32_t value) noexcept nogil:
    store32(at, value)
    return <uint64_t> (value >> 16) + (value & 0xffff)


cdef inline uint64_t write_ipv4(uint8_t *at, uint16_t length, const Row *row) noexcept nogil:
    """The header; the sum of its addresses."""
    cdef uint64_t addresses = write32(at + 12, row.src4) + write32(at + 16, row.dst4)
    cdef uint64_t total = addresses
    total += write16(at, <uint16_t> ((4 << 4 | IPV4_HEADER_SIZE // 4) << 8 | row.dscp << 2 & 0xff | row.ecn & 3))
    total += write16(at + 2, length)
    total += write16(at + 4, <uint16_t> row.ip_id)
    total += write16(at + 6, <uint16_t> (row.ip_flags << 13))
    total += write16(at + 8, <uint16_t> (row.ttl << 8 | row.protocol))
    store16(at + IPV4_CHECKSUM, <uint16_t> ~fold(total))
    return addresses


cdef inline void write_ipv6(uint8_t *at, uint16_t length, const Row *row) noexcept nogil:
    store32(
        at, <uint32_t> 6 << 28 | <uint32_t> <uint8_t> (row.dscp << 2 | row.ecn & 3) << 20 | row.flow_label & 0xfffff)
    store16(at + 4, length)
    at[6] = row.protocol
    at[7] = row.ttl
    memcpy(at + 8, row.src6, 16)
    memcpy(at + 24, row.dst6, 16)


cdef inline uint64_t write_transport(uint8_t *at, uint16_t length, const Row *row) noexcept nogil:
    """The header, with 0 for its checksum; its sum."""
    cdef uint64_t total = 0
    if row.protocol == PROTOCOL_TCP:
        total = write16(at, row.src_port) + write16(at + 2, row.dst_port)
        total += write32(at + 4, row.tcp_seq) + write32(at + 8, row.tcp_ack)
        total += write16(at + 12, <uint16_t> (TCP_HEADER_SIZE // 4 << 12 | row.tcp_flags & 0xfff))
        total += write16(at + 14, row.tcp_window)
        store32(at + 16, 0)
    elif row.protocol == PROTOCOL_UDP:
        total = write16(at, row.src_port) + write16(at + 2, row.dst_port)
        total += write16(at + 4, length)
    elif transport_size(row):
        total = write16(at, <uint16_t> (row.icmp_type << 8 | row.icmp_code))
        total += write16(at + 4, row.icmp_id) + write16(at + 6, row.icmp_seq)
    return total


cdef inline void write_checksum(uint8_t *at, uint16_t checksum, const Row *row) noexcept nogil:
    if row.protocol == PROTOCOL_TCP:
        store16(at + TCP_CHECKSUM, checksum)
    elif row.protocol == PROTOCOL_UDP:
        store16(at + UDP_CHECKSUM, checksum or 0xffff)
    elif transport_size(row):
        store16(at + ICMP_CHECKSUM, checksum)
