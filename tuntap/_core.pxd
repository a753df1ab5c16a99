"""The joint between Python and the compiled layers: a Port moves packets, Slots hold them."""
from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t, uint32_t, uint64_t

from tuntap._offload cimport Offload
from tuntap._os.lock cimport AtomicFlag, AtomicInt32, AtomicUint32, Lock
from tuntap._os.native cimport Handle, SlotView, Watch
from tuntap._records cimport Records


# Outcomes of a call beside n >= 0 and -errno; no errno is that large.
cdef enum:
    WOULD_WAIT = 0
    IS_SHUT = -100001
    IS_CLOSED = -100002
    IS_INTERRUPTED = -100003
    IS_SET = -100004


cdef class Slots:
    cdef SlotView view
    cdef Py_buffer memory
    cdef Py_buffer lengths_memory
    cdef Py_buffer headers_memory
    cdef int32_t used
    cdef int link_layer

    cdef int arrange(self, int count, bytes order, SlotView *slots) except -1


cdef class SuperPacketTypes:
    cdef AtomicUint32 bits


cdef class Event:
    cdef Handle handle              # only to be woken
    cdef Lock lock
    cdef AtomicInt32 state          # 0 if it is not set
    cdef object __weakref__


cdef class Port:
    cdef Handle handle
    cdef Offload *offload           # NULL unless packets have a virtio-net header
    cdef Records *records           # NULL unless they are received in BPF records
    cdef SuperPacketTypes types     # shared by the queues of a device
    cdef int layer
    cdef char label[64]             # the name in messages; empty before the first use
    cdef readonly dict _loops       # of each event loop that has a task waiting here, its `Waits`
    cdef object __weakref__

    # One lock per path serialises what the OS core does there; `handle` is valid under any of them.
    cdef Lock recv_lock
    cdef Lock send_lock
    cdef Lock control_lock
    cdef int pending[2]             # errno that followed a partial result, for the next call
    cdef bint drained               # the last receive found nothing more; under recv_lock

    # Who waits, and how a wait is ended; under state_lock.
    cdef Lock state_lock
    cdef Lock close_lock
    cdef PyThread_type_lock idle    # released by the last waiter when close() waits for it
    cdef int waiters                # threads
    cdef int tasks                  # and tasks of event loops
    cdef int holds                  # loops that look at the descriptor; the last closes a closed port
    cdef int to_wake                # waiters that have not yet seen the wake-up
    cdef unsigned int epoch         # counts wake-ups
    cdef unsigned int interrupts    # and those of them that are interrupts
    cdef bint has_packets           # in memory; under recv_lock, too
    cdef AtomicFlag tasks_want_to_know    # that there are packets in memory
    cdef AtomicFlag latched               # an interrupt that found nobody waiting
    cdef AtomicFlag is_shut
    cdef AtomicFlag is_closed             # closing or closed
    cdef bint close_waits

    cdef void init_locks(self)
    cdef set_label(self, str label)
    cdef learn_label(self)
    cdef int use_records(self) except -1
    cdef void wake_waiters(self) noexcept nogil
    cdef void release(self) noexcept nogil
    cdef int begin_wait(self, int path, unsigned int *interrupts) noexcept nogil
    cdef int end_wait(self, unsigned int interrupts) noexcept nogil
    cdef int may_wait(self, int path, int64_t timeout_ns) noexcept nogil
    cdef bint wait_ready(self, int path, object timeout, Event event) except -1
    cdef tell_tasks(self)
    cdef void note_packets(self, bint are_there) noexcept nogil
    cdef int receive(self, SlotView *slots, int stop) noexcept nogil
    cdef int receive_in_time(
        self, SlotView *slots, int stop, int64_t timeout_ns, intptr_t other) noexcept nogil
    cdef int receive_all(self, SlotView *slots, int stop, object timeout, Event event) except -1
    cdef bytes select(
        self, Slots batch, object start, object stop, object where, SlotView *slots, int *first, int *last)
    cdef int transmit(self, SlotView *slots, int start, int stop, uint64_t *call) noexcept nogil
    cdef void stop_rejected(self) noexcept nogil
    cdef int wait(self, int path, int64_t timeout_ns, intptr_t other) noexcept nogil
    cdef int settle(
        self, int path, int outcome, int64_t deadline, intptr_t other, bint partial=*) except -1
    cdef void postpone(self, int outcome)
    cdef object failure(self, int path, int outcome, const char *failed)
    cdef _take(self, Handle *handle, int result, str label)
    cdef int begin(self) noexcept nogil
    cdef const char *end(self) noexcept nogil
    cdef check(self, int result, const char *failed)


cdef class Notification:
    cdef Port port
    cdef int path
    cdef intptr_t other
    cdef object callback
    cdef void *state                # NULL while it is stopped


cdef class Watcher:
    cdef Port port
    cdef Watch watch
    cdef object __weakref__


cdef class Sending:
    cdef Port port
    cdef Slots batch                # these two hold what `slots` points to
    cdef bytes order
    cdef SlotView slots
    cdef int first
    cdef int last
    cdef uint64_t call
    cdef readonly int sent          # packets
