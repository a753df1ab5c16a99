"""The Internet checksum (RFC 1071), its incremental update (RFC 1624) and the pseudo-headers."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tuntap._kernels.cursor cimport Cursor

# Sums are ones' complement sums of big-endian 16-bit words, not complemented; `fold` makes 16 bits.
cdef uint64_t sum_bytes(const uint8_t *data, size_t size, uint64_t initial) noexcept nogil
cdef uint64_t copy_sum(uint8_t *target, const uint8_t *source, size_t size, uint64_t initial) noexcept nogil
cdef uint64_t sum_pseudo_header(Cursor *packet, uint8_t protocol, uint32_t length) noexcept nogil
cdef uint16_t checksum_update(uint16_t checksum, uint16_t before, uint16_t after) noexcept nogil
# So that tests run every way of summing; the fastest is chosen on import.
cdef const char *choose_summer(int index) noexcept nogil


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """64 bits of ones' complement sum as 16."""
    # A number and its rotation, added: in the upper half the sum of the halves, and the carry of it.
    total += total >> 32 | total << 32
    cdef uint32_t word = <uint32_t> (total >> 32)
    word += word >> 16 | word << 16
    return <uint16_t> (word >> 16)
