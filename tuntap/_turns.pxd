"""How tasks of an asyncio loop wait for their turn at a device."""
from tuntap._core cimport Port


cdef class Call:
    cdef Port port
    cdef int path
    cdef object source
    cdef object timeout
    cdef object attempt
    cdef tuple arguments
    cdef int state
    cdef Line line
    cdef unsigned int interrupts              # of the device when the wait began
    cdef object deadline                      # by the clock of the loop
    cdef object timer
    cdef bint is_late
    cdef int outcome                          # of the wait
    cdef object cancelled
    cdef object callback                      # of the task
    cdef object context
    cdef public bint _asyncio_future_blocking

    cdef object step(self)
    cdef void renew_share(self)
    cdef bint wait(self) except -1
    cdef void end(self)
    cdef int leave(self) except -1


cdef class Line:
    cdef AsyncioWaits waits
    cdef tuple key                            # path, descriptor
    cdef object calls
    cdef bint is_looking

    cdef int start(self) except -1
    cdef int stop(self) except -1


cdef class AsyncioWaits:
    cdef Port port
    cdef object loop
    cdef dict lines

    cdef Line line(self, int path, int fd)
    cdef int forget_line(self, Line line) except -1
    cdef int dismiss(self, Line line) except -1
