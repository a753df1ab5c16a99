"""How tasks of an asyncio loop wait for their turn at a device."""
from libc.stdint cimport uint64_t

from tuntap._core cimport Notification, Port


cdef class Rest:
    pass


cdef class Turn:
    cdef Line line
    cdef uint64_t number                      # of the call, in the order they came
    cdef unsigned int interrupts              # of the device when the wait began
    cdef bint is_over                         # the wait is
    cdef bint is_late
    cdef int outcome                          # of the wait
    cdef object timer
    cdef object cancelled                     # the error, if the task was
    cdef object callback                      # of the task
    cdef object context
    cdef public bint _asyncio_future_blocking

    cdef void end(self)
    cdef int leave(self) except -1


cdef class Line:
    cdef AsyncioWaits waits
    cdef tuple key                            # descriptor, whether for writing; or what a notification takes
    cdef object turns
    cdef Notification notification            # None where the loop looks itself
    cdef bint is_looking

    cdef int enter(self, Turn turn) except -1
    cdef int start(self) except -1
    cdef int stop(self) except -1


cdef class AsyncioWaits:
    cdef Port port
    cdef object loop
    cdef bint stops_at_errors
    cdef dict lines

    cdef Line line(self, tuple key)
    cdef int leave(self) except -1
    cdef int dismiss(self, Line line) except -1
