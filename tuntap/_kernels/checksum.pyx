from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tuntap._kernels.cursor cimport Cursor, get8, span

cdef extern from "simd.h" nogil:
    ctypedef struct Summer:
        const char *name
        uint64_t (*sum)(const uint8_t *source, size_t size) noexcept nogil
        uint64_t (*copy_sum)(uint8_t *target, const uint8_t *source, size_t size) noexcept nogil

    const Summer *summer(int index) noexcept
    uint64_t walk_words(uint8_t **target, const uint8_t *source, size_t size, uint64_t total) noexcept

cdef enum:
    SHORT = 64                    # bytes; up to here one more call costs more than it saves

cdef const Summer *chosen = summer(0)


cdef const char *choose_summer(int index) noexcept nogil:
    """Sum from now on with the `index`-th way that this CPU has, the fastest being 0.

    Its name, or NULL, with nothing changed, if there are not so many.
    """
    global chosen
    cdef const Summer *choice = summer(index)
    if choice == NULL:
        return NULL
    chosen = choice
    return choice.name


cdef inline uint16_t network_order(uint16_t value) noexcept nogil:
    """Swap the bytes on a little-endian host; RFC 1071 section 2(B): the sum may be swapped last."""
    cdef uint16_t one = 1
    if (<uint8_t *> &one)[0]:
        return <uint16_t> (value << 8 | value >> 8)
    return value


cdef uint64_t sum_bytes(const uint8_t *data, size_t size, uint64_t initial) noexcept nogil:
    """Sum of `size` bytes, an odd one padded with zero, added to `initial`."""
    cdef uint64_t total = walk_words(NULL, data, size, 0) if size < SHORT else chosen.sum(data, size)
    return <uint64_t> network_order(fold(total)) + fold(initial)


cdef uint64_t copy_sum(uint8_t *target, const uint8_t *source, size_t size, uint64_t initial) noexcept nogil:
    """`sum_bytes` of `source`, copied to `target` in the same pass; the two do not overlap."""
    cdef uint64_t total
    if size < SHORT:
        total = walk_words(&target, source, size, 0)
    else:
        total = chosen.copy_sum(target, source, size)
    return <uint64_t> network_order(fold(total)) + fold(initial)


cdef uint64_t sum_pseudo_header(Cursor *packet, uint8_t protocol, uint32_t length) noexcept nogil:
    """Pseudo-header of TCP and UDP over IPv4 (RFC 9293) or IPv6 (RFC 8200 section 8.1).

    The addresses come from the IP header at the start of `packet`; `length` is that of the
    transport header and its payload.  Sets `packet.failed` when there is no such header.
    """
    cdef uint8_t version = get8(packet, 0) >> 4
    cdef const uint8_t *addresses = NULL
    cdef size_t size = 8 if version == 4 else 32
    if version == 4:
        addresses = span(packet, 12, size)
    elif version == 6:
        addresses = span(packet, 8, size)
    if addresses == NULL:
        packet.failed = 1
        return 0
    return sum_bytes(addresses, size, <uint64_t> protocol + (length >> 16) + (length & 0xffff))


cdef uint16_t checksum_update(uint16_t checksum, uint16_t before, uint16_t after) noexcept nogil:
    """The checksum after one word of what it covers changed (RFC 1624, equation 3)."""
    return <uint16_t> ~fold(<uint64_t> (<uint16_t> ~checksum) + (<uint16_t> ~before) + after)
