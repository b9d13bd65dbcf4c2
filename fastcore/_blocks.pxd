"""Blocks of memory and the views of them."""

cimport cython
from libc.stdint cimport uint8_t

cdef enum:
    # The usual size. One Block of it is kept for whoever needs one next, since fresh
    # memory costs more than receiving into it.
    STEP = 131_072


@cython.final
cdef class Block:
    cdef uint8_t *data
    cdef Py_ssize_t capacity
    # Memoryviews that look at it.
    cdef Py_ssize_t views

    cdef int grow(self, Py_ssize_t capacity) except -1


cdef Block new_block(Py_ssize_t capacity)
cdef object view_of(Block block, Py_ssize_t start, Py_ssize_t size, bint readonly)
