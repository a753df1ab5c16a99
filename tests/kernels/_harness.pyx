"""Every kernel, callable from a test.

Built once per session by build_harness.py against the compiled package, so the ordinary suite runs
the very kernels that are shipped.  Packet bytes are copied to a block of their own with nothing
behind it, so that a sanitizer sees the first byte outside; with `guard` there are that many bytes of
0xA5 on either side instead, and the answer says whether they are still there.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tuntap._kernels cimport virtio
from tuntap._kernels.checksum cimport checksum_update, sum_bytes, sum_pseudo_header
from tuntap._kernels.checksum cimport fold as fold_sum
from tuntap._kernels.cursor cimport Cursor, cursor_set, get8, get16, get32, put8, put16, put32
from tuntap._kernels.cursor cimport span as cursor_span

cdef enum:
    GUARD = 0xA5

VIRTIO_CONSTANTS = {
    "VIRTIO_HEADER_SIZE": virtio.VIRTIO_HEADER_SIZE,
    "VIRTIO_F_NEEDS_CSUM": virtio.VIRTIO_F_NEEDS_CSUM,
    "VIRTIO_F_DATA_VALID": virtio.VIRTIO_F_DATA_VALID,
    "VIRTIO_GSO_NONE": virtio.VIRTIO_GSO_NONE,
    "VIRTIO_GSO_TCPV4": virtio.VIRTIO_GSO_TCPV4,
    "VIRTIO_GSO_UDP": virtio.VIRTIO_GSO_UDP,
    "VIRTIO_GSO_TCPV6": virtio.VIRTIO_GSO_TCPV6,
    "VIRTIO_GSO_UDP_L4": virtio.VIRTIO_GSO_UDP_L4,
    "VIRTIO_GSO_ECN": virtio.VIRTIO_GSO_ECN,
}


cdef class Block:
    """Bytes with nothing behind them, or with guards on both sides."""
    cdef uint8_t *memory
    cdef uint8_t *data
    cdef size_t size
    cdef size_t guard

    def __cinit__(self, bytes content, size_t guard=0):
        self.size = <size_t> len(content)
        self.guard = guard
        self.memory = <uint8_t *> malloc(self.size + 2 * guard)
        if self.memory == NULL:
            raise MemoryError()
        memset(self.memory, GUARD, self.size + 2 * guard)
        self.data = self.memory + guard
        memcpy(self.data, <const char *> content, self.size)

    def __dealloc__(self):
        free(self.memory)

    cdef bytes content(self):
        return (<char *> self.data)[:self.size]

    cdef bint intact(self):
        cdef size_t i
        for i in range(self.guard):
            if self.memory[i] != GUARD or self.data[self.size + i] != GUARD:
                return False
        return True


def span(bytes data, size_t offset, size_t size):
    """Where the span starts, or None; and `failed`."""
    cdef Block block = Block(data)
    cdef Cursor cursor
    cursor_set(&cursor, block.data, block.size)
    cdef uint8_t *at = cursor_span(&cursor, offset, size)
    return None if at == NULL else at - block.data, bool(cursor.failed)


def read(int width, bytes data, size_t offset, bint failed=False):
    """The value, and `failed` after a read that began with `failed` as given."""
    cdef Block block = Block(data)
    cdef Cursor cursor
    cdef uint32_t value
    cursor_set(&cursor, block.data, block.size)
    cursor.failed = failed
    if width == 1:
        value = get8(&cursor, offset)
    elif width == 2:
        value = get16(&cursor, offset)
    else:
        value = get32(&cursor, offset)
    return value, bool(cursor.failed)


def write(int width, bytes data, size_t offset, uint32_t value, size_t guard=0):
    """The bytes afterwards, `failed`, and whether nothing else was written to."""
    cdef Block block = Block(data, guard)
    cdef Cursor cursor
    cursor_set(&cursor, block.data, block.size)
    if width == 1:
        put8(&cursor, offset, <uint8_t> value)
    elif width == 2:
        put16(&cursor, offset, <uint16_t> value)
    else:
        put32(&cursor, offset, value)
    return block.content(), bool(cursor.failed), block.intact()


def checksum_sum(bytes data, size_t offset=0, uint64_t initial=0):
    """The sum of data[offset:], at an address `offset` behind an aligned one."""
    cdef Block block = Block(data)
    return sum_bytes(block.data + offset, block.size - offset, initial)


def fold(uint64_t total):
    return fold_sum(total)


def update(uint16_t checksum, uint16_t before, uint16_t after):
    return checksum_update(checksum, before, after)


def pseudo_header(bytes packet, uint8_t protocol, uint32_t length):
    """The sum, and `failed`."""
    cdef Block block = Block(packet)
    cdef Cursor cursor
    cursor_set(&cursor, block.data, block.size)
    cdef uint64_t total = sum_pseudo_header(&cursor, protocol, length)
    return total, bool(cursor.failed)


def virtio_decode(bytes data):
    """The result, and the six fields (as they were before, all 0xA5, if there was an error)."""
    cdef Block block = Block(data)
    cdef Cursor cursor
    cdef virtio.VirtioHeader header
    memset(&header, GUARD, sizeof(header))
    cursor_set(&cursor, block.data, block.size)
    cdef int result = virtio.virtio_decode(&cursor, &header)
    return result, (
        header.flags, header.gso_type, header.hdr_len, header.gso_size, header.csum_start, header.csum_offset)


def virtio_encode(bytes data, fields, size_t guard=0):
    """The result, the bytes afterwards, and whether nothing else was written to."""
    cdef Block block = Block(data, guard)
    cdef Cursor cursor
    cdef virtio.VirtioHeader header
    (
        header.flags, header.gso_type, header.hdr_len, header.gso_size, header.csum_start, header.csum_offset
    ) = fields
    cursor_set(&cursor, block.data, block.size)
    cdef int result = virtio.virtio_encode(&cursor, &header)
    return result, block.content(), block.intact()
