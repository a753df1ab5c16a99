"""The virtio-net header in front of a packet (struct virtio_net_hdr, linux/virtio_net.h).

Ten bytes in native byte order, unless the device was told otherwise.
"""
from libc.errno cimport EINVAL
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcpy

from tuntap._kernels.cursor cimport Cursor, span

cdef enum:
    VIRTIO_HEADER_SIZE = 10
    VIRTIO_F_NEEDS_CSUM = 1
    VIRTIO_F_DATA_VALID = 2
    VIRTIO_GSO_NONE = 0
    VIRTIO_GSO_TCPV4 = 1
    VIRTIO_GSO_UDP = 3
    VIRTIO_GSO_TCPV6 = 4
    VIRTIO_GSO_UDP_L4 = 5
    VIRTIO_GSO_ECN = 0x80

cdef struct VirtioHeader:
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset


cdef inline int virtio_decode(Cursor *cursor, VirtioHeader *header) noexcept nogil:
    """The header at the start of the bytes; 0, or -EINVAL if they are too few."""
    cdef const uint8_t *at = span(cursor, 0, VIRTIO_HEADER_SIZE)
    if at == NULL:
        return -EINVAL
    header.flags = at[0]
    header.gso_type = at[1]
    memcpy(&header.hdr_len, at + 2, 2)
    memcpy(&header.gso_size, at + 4, 2)
    memcpy(&header.csum_start, at + 6, 2)
    memcpy(&header.csum_offset, at + 8, 2)
    return 0


cdef inline int virtio_encode(Cursor *cursor, const VirtioHeader *header) noexcept nogil:
    """Write the header to the start of the bytes; 0, or -EINVAL if they are too few."""
    cdef uint8_t *at = span(cursor, 0, VIRTIO_HEADER_SIZE)
    if at == NULL:
        return -EINVAL
    at[0] = header.flags
    at[1] = header.gso_type
    memcpy(at + 2, &header.hdr_len, 2)
    memcpy(at + 4, &header.gso_size, 2)
    memcpy(at + 6, &header.csum_start, 2)
    memcpy(at + 8, &header.csum_offset, 2)
    return 0
