"""What tcp_gso_segment, __udp_gso_segment and inet_gso_segment of Linux do, byte for byte."""
from libc.errno cimport EINVAL
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tuntap._kernels.checksum cimport copy_sum, fold, sum_bytes, sum_pseudo_header
from tuntap._kernels.cursor cimport Cursor, cursor_set, get8, get16, get32, put16, put32, span
from tuntap._kernels.ip cimport (
    IPV6_HEADER_SIZE, PROTOCOL_TCP, PROTOCOL_UDP, TCP_CHECKSUM, TCP_HEADER_SIZE, UDP_CHECKSUM,
    UDP_HEADER_SIZE, Layout, find_layout,
)
from tuntap._kernels.virtio cimport (
    VIRTIO_F_NEEDS_CSUM, VIRTIO_GSO_ECN, VIRTIO_GSO_NONE, VIRTIO_GSO_TCPV4, VIRTIO_GSO_TCPV6, VIRTIO_GSO_UDP_L4,
    VirtioHeader,
)

cdef enum:
    TCP_FIN = 0x01
    TCP_PSH = 0x08
    TCP_CWR = 0x80


cdef inline uint64_t without(uint64_t total, uint16_t word) noexcept nogil:
    """A ones' complement sum less one of its words."""
    return total + <uint16_t> ~word


cdef int gso_begin(
    Split *split, const Cursor *packet, const VirtioHeader *header, bint is_frame, bint with_checksum,
) noexcept nogil:
    cdef uint8_t kind = header.gso_type & <uint8_t> ~VIRTIO_GSO_ECN
    cdef bint has_seed = header.flags & VIRTIO_F_NEEDS_CSUM
    cdef Layout layout
    cdef Cursor ip
    cdef size_t size = packet.size
    cdef size_t checksum_at
    cdef const uint8_t *at
    if kind == VIRTIO_GSO_NONE:
        return 0
    split.packet = packet[0]
    if find_layout(&split.packet, is_frame, &layout) < 0 or layout.is_fragment or header.gso_size == 0:
        return -EINVAL
    split.is_tcp = kind != VIRTIO_GSO_UDP_L4
    if split.is_tcp:
        if kind != (VIRTIO_GSO_TCPV4 if layout.version == 4 else VIRTIO_GSO_TCPV6) or layout.protocol != PROTOCOL_TCP:
            return -EINVAL
        split.header = 4 * (get8(&split.packet, layout.transport + 12) >> 4)
        if split.header < TCP_HEADER_SIZE:
            return -EINVAL
        checksum_at = TCP_CHECKSUM
    else:
        if layout.protocol != PROTOCOL_UDP or not has_seed or header.gso_type & VIRTIO_GSO_ECN:
            return -EINVAL
        split.header = UDP_HEADER_SIZE
        checksum_at = UDP_CHECKSUM
    if has_seed and (header.csum_start != layout.transport or header.csum_offset != checksum_at):
        return -EINVAL
    at = span(&split.packet, layout.transport, split.header)
    if at == NULL:
        return -EINVAL
    split.transport_sum = sum_bytes(at, split.header, 0)
    split.header += layout.transport
    split.payload = size - split.header
    split.gso_size = header.gso_size
    if split.payload <= split.gso_size:
        return 0                  # "too small packets are not really GSO ones" (virtio_net.h)
    split.segments = <int> ((split.payload + split.gso_size - 1) / split.gso_size)
    if not split.is_tcp and split.segments > UDP_SEGMENTS_MAX:
        return -EINVAL

    split.network = layout.network
    split.transport = layout.transport
    split.version = layout.version
    split.with_checksum = with_checksum
    if layout.version == 4:
        at = span(&split.packet, layout.network, layout.transport - layout.network)
        split.identification = get16(&split.packet, layout.network + 4)
        split.ip_sum = sum_bytes(at, layout.transport - layout.network, 0)
        split.ip_sum = without(split.ip_sum, get16(&split.packet, layout.network + 2))
        split.ip_sum = without(split.ip_sum, split.identification)
        split.ip_sum = without(split.ip_sum, get16(&split.packet, layout.network + 10))
    checksum_at += layout.transport
    split.transport_sum = without(split.transport_sum, get16(&split.packet, checksum_at))
    if split.is_tcp:
        split.sequence = get32(&split.packet, layout.transport + 4)
        split.flags = get16(&split.packet, layout.transport + 12)
        split.transport_sum = without(split.transport_sum, <uint16_t> (split.sequence >> 16))
        split.transport_sum = without(split.transport_sum, <uint16_t> split.sequence)
        split.transport_sum = without(split.transport_sum, split.flags)
        size = size - layout.transport
    else:
        # The kernel believes this field, not the packet, when it takes the length out of the seed.
        size = get16(&split.packet, layout.transport + 4)
        split.transport_sum = without(split.transport_sum, <uint16_t> size)
    if has_seed:
        split.seed = without(get16(&split.packet, checksum_at), <uint16_t> size)
    else:
        cursor_set(&ip, split.packet.data + layout.network, split.packet.size - layout.network)
        split.seed = sum_pseudo_header(&ip, PROTOCOL_TCP, 0)
    return split.segments


cdef inline size_t payload_of(const Split *split, int segment) noexcept nogil:
    """Bytes of payload of a segment: gso_size, but for the last."""
    return split.gso_size if segment < split.segments - 1 else split.payload - split.gso_size * segment


cdef size_t gso_size(const Split *split, int segment) noexcept nogil:
    return split.header + payload_of(split, segment)


cdef void gso_write(Split *split, int segment, Cursor *target) noexcept nogil:
    cdef size_t size = payload_of(split, segment)
    cdef size_t room = min(size, target.size - split.header if target.size > split.header else 0)
    cdef const uint8_t *payload = span(&split.packet, split.header + split.gso_size * segment, size)
    cdef uint64_t total = 0
    if payload == NULL:
        return
    if room == size and split.with_checksum:
        total = copy_sum(target.data + split.header, payload, size, 0)
    elif room:
        memcpy(target.data + split.header, payload, room)
    if room < size and split.with_checksum:
        total = sum_bytes(payload, size, 0)
    write_headers(split, segment, target, size, total)


cdef void write_headers(
    Split *split, int segment, Cursor *target, size_t payload, uint64_t payload_sum,
) noexcept nogil:
    """Headers of a segment; what does not fit the target is left out."""
    cdef uint16_t size = <uint16_t> (split.header + payload - split.network)
    cdef uint16_t transport_size = <uint16_t> (split.header + payload - split.transport)
    cdef uint16_t identification
    cdef uint32_t sequence
    cdef uint16_t flags
    cdef uint64_t total = split.transport_sum
    cdef uint16_t checksum
    memcpy(target.data, split.packet.data, min(split.header, target.size))
    if split.version == 4:
        identification = <uint16_t> (split.identification + segment)
        put16(target, split.network + 2, size)
        put16(target, split.network + 4, identification)
        put16(target, split.network + 10, <uint16_t> ~fold(split.ip_sum + size + identification))
    else:
        put16(target, split.network + 4, <uint16_t> (size - IPV6_HEADER_SIZE))
    if split.is_tcp:
        sequence = split.sequence + <uint32_t> (split.gso_size * segment)
        flags = split.flags
        if segment > 0:
            flags &= <uint16_t> ~TCP_CWR
        if segment < split.segments - 1:
            flags &= <uint16_t> ~(TCP_FIN | TCP_PSH)
        put32(target, split.transport + 4, sequence)
        put16(target, split.transport + 12, flags)
        total += (sequence >> 16) + (sequence & 0xffff) + flags
    else:
        put16(target, split.transport + 4, transport_size)
        total += transport_size
    if split.with_checksum:
        checksum = <uint16_t> ~fold(split.seed + transport_size + total + payload_sum)
        if checksum == 0 and not split.is_tcp:
            checksum = 0xffff     # RFC 768: zero means that there is none
    else:
        checksum = fold(split.seed + transport_size)
    put16(target, split.transport + (TCP_CHECKSUM if split.is_tcp else UDP_CHECKSUM), checksum)


cdef int gso_complete(Cursor *packet, const VirtioHeader *header) noexcept nogil:
    cdef size_t at = <size_t> header.csum_start + header.csum_offset
    cdef const uint8_t *covered
    cdef uint16_t checksum
    if not header.flags & VIRTIO_F_NEEDS_CSUM:
        return 0
    if header.csum_start >= packet.size or at + 2 > packet.size:
        return -EINVAL
    covered = span(packet, header.csum_start, packet.size - header.csum_start)
    checksum = <uint16_t> ~fold(sum_bytes(covered, packet.size - header.csum_start, 0))
    put16(packet, at, checksum if checksum else 0xffff)      # as skb_checksum_help
    return 0
