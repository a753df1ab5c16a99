"""Packets of a descriptor that yields several with one read, in BPF records."""
from libc.stdint cimport uint8_t

from tuntap._kernels.bpf cimport BpfWalk
from tuntap._os.native cimport Handle, SlotView

cdef struct Records:
    BpfWalk walk                  # over what was read last; the records before `at` are delivered
    uint8_t *buffer               # behind this struct, Handle.record_buffer bytes

cdef Records *records_new(const Handle *handle) noexcept nogil    # to be freed; NULL if there is no memory

# As os_recv, but a receive that found nothing more says EAGAIN.
cdef int records_recv(Records *records, Handle *handle, SlotView *slots, int stop, int *error) noexcept nogil

cdef int records_left(const Records *records) noexcept nogil      # packets in memory
cdef void records_forget(Records *records) noexcept nogil         # what is in memory
