"""The way of a packet out of a descriptor that yields BPF records.

One read takes whatever there is, and its packets are copied to slots; those that the slots have no room for
wait in memory for the next receive.
"""
from libc.errno cimport EBADMSG
from libc.stdint cimport intptr_t, uint8_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from tuntap._kernels.bpf cimport BpfRecord, BpfWalk, bpf_begin, bpf_next
from tuntap._os.native cimport Handle, Part, SlotView, os_recv_parts, slot_cut, slot_fill


cdef Records *records_new(const Handle *handle) noexcept nogil:
    cdef Records *records = <Records *> malloc(sizeof(Records) + handle.record_buffer)
    if records != NULL:
        records.buffer = <uint8_t *> (records + 1)
        bpf_begin(&records.walk, NULL, 0, handle.record_timestamp, handle.record_alignment)
    return records


cdef int records_recv(Records *records, Handle *handle, SlotView *slots, int stop, int *error) noexcept nogil:
    cdef BpfRecord record
    cdef int filled = 0
    cdef int result
    error[0] = 0
    while filled < stop and error[0] == 0:
        result = bpf_next(&records.walk, &record)
        if result == 0:
            error[0] = -read_records(records, handle)
        elif result < 0:
            if filled:
                break             # the next call meets it again
            records_forget(records)
            error[0] = EBADMSG
        elif record.captured:
            deliver(slots, filled, &record)
            filled += 1
    return filled


cdef int read_records(Records *records, Handle *handle) noexcept nogil:
    """One read; 0 or -errno."""
    cdef Part part
    cdef intptr_t size
    # No more and no less: some systems take no other size.
    part.base = records.buffer
    part.size = handle.record_buffer
    size = os_recv_parts(handle, &part, 1)
    if size < 0:
        return <int> size
    bpf_begin(&records.walk, records.buffer, size, handle.record_timestamp, handle.record_alignment)
    return 0


cdef void deliver(SlotView *slots, int slot, const BpfRecord *record) noexcept nogil:
    cdef size_t size = min(record.captured, <size_t> slots.slot_size)
    memcpy(slots.data + slot * slots.stride, record.packet, size)
    slot_fill(slots, slot, <intptr_t> size)
    if record.original > size:
        slot_cut(slots, slot)


cdef int records_left(const Records *records) noexcept nogil:
    cdef BpfWalk walk = records.walk
    cdef BpfRecord record
    cdef int count = 0
    while bpf_next(&walk, &record) > 0:
        count += record.captured > 0
    return count


cdef void records_forget(Records *records) noexcept nogil:
    records.walk.at = records.walk.bytes.size
