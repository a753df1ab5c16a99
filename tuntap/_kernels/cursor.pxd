"""Bounds-checked reads and writes, big-endian unless they say so: the only way a kernel touches packet bytes.

A range that leaves the packet reads as zero, writes nothing, and sets `failed`, which stays set: a
kernel may read a whole header and look once.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Cursor:
    uint8_t *data
    size_t size
    int failed


cdef inline void cursor_set(Cursor *cursor, const uint8_t *data, size_t size) noexcept nogil:
    cursor.data = <uint8_t *> data
    cursor.size = size
    cursor.failed = 0


cdef inline uint8_t *span(Cursor *cursor, size_t offset, size_t size) noexcept nogil:
    """The bytes [offset, offset + size), or NULL if they are not all there."""
    if offset > cursor.size or size > cursor.size - offset:
        cursor.failed = 1
        return NULL
    return cursor.data + offset


# Of a span that is there.
cdef inline uint16_t load16(const uint8_t *at) noexcept nogil:
    return <uint16_t> (at[0] << 8 | at[1])


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]


cdef inline uint64_t load48(const uint8_t *at) noexcept nogil:
    return <uint64_t> load16(at) << 32 | load32(at + 2)


cdef inline uint64_t load64(const uint8_t *at) noexcept nogil:
    return <uint64_t> load32(at) << 32 | load32(at + 4)


cdef inline void store16(uint8_t *at, uint16_t value) noexcept nogil:
    at[0] = <uint8_t> (value >> 8)
    at[1] = <uint8_t> value


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    store16(at, <uint16_t> (value >> 16))
    store16(at + 2, <uint16_t> value)


cdef inline void store48(uint8_t *at, uint64_t value) noexcept nogil:
    store16(at, <uint16_t> (value >> 32))
    store32(at + 2, <uint32_t> value)


cdef inline uint8_t get8(Cursor *cursor, size_t offset) noexcept nogil:
    cdef const uint8_t *at = span(cursor, offset, 1)
    return at[0] if at != NULL else 0


cdef inline uint16_t get16(Cursor *cursor, size_t offset) noexcept nogil:
    cdef const uint8_t *at = span(cursor, offset, 2)
    return load16(at) if at != NULL else 0


cdef inline uint32_t get32(Cursor *cursor, size_t offset) noexcept nogil:
    cdef const uint8_t *at = span(cursor, offset, 4)
    return load32(at) if at != NULL else 0


cdef inline void put8(Cursor *cursor, size_t offset, uint8_t value) noexcept nogil:
    cdef uint8_t *at = span(cursor, offset, 1)
    if at != NULL:
        at[0] = value


cdef inline void put16(Cursor *cursor, size_t offset, uint16_t value) noexcept nogil:
    cdef uint8_t *at = span(cursor, offset, 2)
    if at != NULL:
        store16(at, value)


cdef inline void put32(Cursor *cursor, size_t offset, uint32_t value) noexcept nogil:
    cdef uint8_t *at = span(cursor, offset, 4)
    if at != NULL:
        store32(at, value)


cdef inline uint16_t get16_little(Cursor *cursor, size_t offset) noexcept nogil:
    cdef const uint8_t *at = span(cursor, offset, 2)
    return <uint16_t> (at[1] << 8 | at[0]) if at != NULL else 0


cdef inline uint32_t get32_little(Cursor *cursor, size_t offset) noexcept nogil:
    cdef const uint8_t *at = span(cursor, offset, 4)
    if at == NULL:
        return 0
    return <uint32_t> at[3] << 24 | <uint32_t> at[2] << 16 | <uint32_t> at[1] << 8 | at[0]


cdef inline void put16_little(Cursor *cursor, size_t offset, uint16_t value) noexcept nogil:
    cdef uint8_t *at = span(cursor, offset, 2)
    if at != NULL:
        at[0] = <uint8_t> value
        at[1] = <uint8_t> (value >> 8)


cdef inline void put32_little(Cursor *cursor, size_t offset, uint32_t value) noexcept nogil:
    cdef uint8_t *at = span(cursor, offset, 4)
    if at != NULL:
        at[0] = <uint8_t> value
        at[1] = <uint8_t> (value >> 8)
        at[2] = <uint8_t> (value >> 16)
        at[3] = <uint8_t> (value >> 24)
