"""Batches and tables: packets become rows of the kernel's own, and their fields go to memory of the caller."""
from libc.stdint cimport intptr_t, uint8_t

# One field of all rows.
cdef struct Move:
    size_t source                 # within a row of the kernel
    size_t size
    uint8_t *target               # in the first of the caller's rows
    intptr_t stride


cdef class Plan:
    cdef Move *moves
    cdef int count
    cdef int wanted
    cdef size_t itemsize
    cdef bint is_all              # of a row, as it is


cdef class ColumnMemory:
    cdef Plan plan
    cdef Py_buffer *buffers
    cdef int count
    cdef readonly Py_ssize_t capacity
