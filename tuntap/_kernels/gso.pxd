"""Splitting a super-packet into the segments that the kernel would have made of it (GSO, receive side)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tuntap._kernels.cursor cimport Cursor
from tuntap._kernels.virtio cimport VirtioHeader

cdef enum:
    UDP_SEGMENTS_MAX = 128        # UDP_MAX_SEGMENTS, linux/udp.h: the kernel takes and makes no more

cdef struct Split:
    Cursor packet                 # the super-packet
    size_t header                 # bytes of all its headers
    size_t payload                # bytes behind them
    size_t gso_size
    int segments
    # What the headers of the segments have in common.
    size_t network
    size_t transport
    int version
    bint is_tcp
    bint with_checksum
    uint32_t sequence
    uint16_t flags                # the TCP word with the data offset and the flags
    uint16_t identification
    uint64_t seed                 # ones' complement sum of the pseudo-header, without its length
    uint64_t ip_sum               # of the IPv4 header, without length, identification and checksum
    uint64_t transport_sum        # of the transport header, without what differs

# Reads the headers of a packet.  How many segments it makes; 0 if it is no super-packet, but one for
# gso_complete; -EINVAL if the headers are not right.
cdef int gso_begin(
    Split *split, const Cursor *packet, const VirtioHeader *header, bint is_frame, bint with_checksum,
) noexcept nogil

# Bytes of a segment.
cdef size_t gso_size(const Split *split, int segment) noexcept nogil

# Write one segment, or as much of it as `target` has room for; its payload is copied out of the
# super-packet.
cdef void gso_write(Split *split, int segment, Cursor *target) noexcept nogil

# The checksum that the kernel left to us in a packet that is no super-packet; 0 or -EINVAL.
cdef int gso_complete(Cursor *packet, const VirtioHeader *header) noexcept nogil
