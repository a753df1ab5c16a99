"""Packets made of rows: headers without options, and checksums."""
from libc.stdint cimport intptr_t, uint8_t

from tuntap._kernels.columns cimport Row

# A packet with `size` bytes of payload, zeros if `payload` is NULL, at `target`; its size, -EINVAL if the version is
# neither 4 nor 6, or -EMSGSIZE if it needs more than `room`, or its IP packet more than 65,535 bytes.  What has no
# header here (anything but TCP, UDP, ICMP and ICMPv6) is all payload.
cdef intptr_t row_build(
    uint8_t *target, size_t room, bint is_frame, bint has_tag, const Row *row, const uint8_t *payload, size_t size,
) noexcept nogil
