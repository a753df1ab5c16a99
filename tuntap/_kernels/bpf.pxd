"""Walking over the records that one read of a BPF descriptor yields (struct bpf_hdr, net/bpf.h)."""
from libc.stdint cimport uint8_t, uint64_t

from tuntap._kernels.cursor cimport Cursor

cdef struct BpfRecord:
    const uint8_t *packet         # as much of it as was captured
    size_t captured               # bytes (bh_caplen)
    size_t original               # bytes of the whole packet (bh_datalen), never less
    uint64_t seconds              # bh_tstamp
    uint64_t microseconds

cdef struct BpfWalk:
    Cursor bytes
    size_t at                     # of the next record; bytes.size at the end
    size_t timestamp_size         # bytes of bh_tstamp, both halves together: 8 or 16
    size_t alignment              # of each record (BPF_ALIGNMENT), a power of two

cdef void bpf_begin(
    BpfWalk *walk, const uint8_t *data, size_t size, size_t timestamp_size, size_t alignment,
) noexcept nogil

# 1 with the next record, which points into the bytes; 0 at the end; -EINVAL if what comes is no record or not
# whole, as every later call says too: there is no way to tell where another would begin.
cdef int bpf_next(BpfWalk *walk, BpfRecord *record) noexcept nogil
