"""What bpf(4) says of a read: record behind record, each on a boundary, the last perhaps without its padding."""
from libc.errno cimport EINVAL
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from tuntap._kernels.cursor cimport cursor_set, span

cdef enum:
    LENGTHS_SIZE = 10             # bh_caplen, bh_datalen and bh_hdrlen, behind the timestamp


cdef void bpf_begin(
    BpfWalk *walk, const uint8_t *data, size_t size, size_t timestamp_size, size_t alignment,
) noexcept nogil:
    cursor_set(&walk.bytes, data, size)
    walk.at = 0
    walk.timestamp_size = timestamp_size
    walk.alignment = alignment


cdef int bpf_next(BpfWalk *walk, BpfRecord *record) noexcept nogil:
    cdef const uint8_t *header
    cdef const uint8_t *lengths
    cdef uint32_t halves[2]
    cdef uint32_t captured
    cdef uint32_t original
    cdef uint16_t header_size
    cdef size_t size
    if walk.at == walk.bytes.size:
        return 0
    header = span(&walk.bytes, walk.at, walk.timestamp_size + LENGTHS_SIZE)
    if header == NULL:
        return -EINVAL
    lengths = header + walk.timestamp_size
    memcpy(&captured, lengths, 4)
    memcpy(&original, lengths + 4, 4)
    memcpy(&header_size, lengths + 8, 2)
    # The header has more fields on some systems, and padding that puts the packet on a boundary.
    if header_size < walk.timestamp_size + LENGTHS_SIZE or captured > original:
        return -EINVAL
    record.packet = span(&walk.bytes, walk.at + header_size, captured)
    if record.packet == NULL:
        return -EINVAL
    record.captured = captured
    record.original = original
    if walk.timestamp_size == 8:
        memcpy(halves, header, 8)
        record.seconds = halves[0]
        record.microseconds = halves[1]
    else:
        memcpy(&record.seconds, header, 8)
        memcpy(&record.microseconds, header + 8, 8)
    size = header_size + captured
    walk.at += size
    walk.at += min(-size & (walk.alignment - 1), walk.bytes.size - walk.at)
    return 1
