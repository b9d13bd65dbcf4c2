"""Which connections have their turn; see the module."""

cimport cython


@cython.final
cdef class Turns:
    cdef object loop
    # A weak reference to the queue, while there is one.
    cdef object waiting
    # Whether somebody took long in this turn: nobody else is given anything in it.
    cdef bint is_over
    cdef object __weakref__

    cdef RunQueue queue(self)
    cdef int wait(self, object channel, bint takes_long) except -1
    cdef int took_long(self, object channel, double seconds) except -1
    cdef bint is_crowded(self) except -1


@cython.final
cdef class RunQueue:
    cdef Turns turns
    # Those that take little, and those that take long.
    cdef object brief
    cdef object long
    # Until when none of these has its turn but who had the last.
    cdef double rests_until
    cdef void *last
    # Whether `serve` will be called.
    cdef bint is_called
    cdef object __weakref__

    cdef int call(self) except -1


cdef Turns turns_of(object loop)
