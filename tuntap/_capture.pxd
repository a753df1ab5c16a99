"""The joint of captures: batches and the files they are written to and read from (tuntap.capture)."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tuntap._kernels.pcap cimport PcapRecord, PcapWalk
from tuntap._os.lock cimport Lock
from tuntap._os.native cimport SlotView


# Numbers of an array, one for each packet or one for all.
cdef class Column:
    cdef Py_buffer buffer
    cdef Py_ssize_t step


cdef class Capture:
    cdef Lock lock
    cdef bint is_busy
    cdef bytearray memory

    cdef int enter(self) except -1


cdef class Output(Capture):
    cdef object file                # what takes the bytes
    cdef object front               # the buffer in front of it; None if there is none
    cdef bint is_raw                # it may take a part, and says which
    cdef int format
    cdef int layer
    cdef uint32_t snap_length
    cdef Py_ssize_t at              # what of `memory` is not in the file yet
    cdef Py_ssize_t end

    cdef int encode(
        self, SlotView *slots, int count, const int64_t *times, Py_ssize_t step, Column originals,
    ) except -1
    cdef int put(self) except -1
    cdef int drain(self) except -1
    cdef int undo(self) except -1


cdef class Input(Capture):
    cdef object read
    cdef bint fills                 # read() wants memory
    cdef bint is_patient            # it does not wait for others
    cdef PcapWalk *walk
    cdef size_t filled              # bytes in `memory`
    cdef uint64_t passed            # bytes of the file before them
    cdef int outcome                # of the last look at them
    cdef bint has_link              # there was a packet

    cdef int deliver(self, SlotView *slots, int start, Column times, Column originals) noexcept nogil
    cdef bint find(self, PcapRecord *record) except -1
    cdef bint fill(self) except -1
    cdef int finish(self) except -1
    cdef uint8_t *data(self) noexcept
