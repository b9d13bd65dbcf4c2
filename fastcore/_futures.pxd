"""The Futures of one event loop; see the module."""

cimport cython


@cython.final
cdef class Futures:
    # What a new one is told.
    cdef dict options
    # One that is done, with None.
    cdef object done_one
    cdef object __weakref__

    cdef object new(self)
    cdef object done(self)
    cdef object failed(self, object error)


cdef Futures futures_of(object loop)
