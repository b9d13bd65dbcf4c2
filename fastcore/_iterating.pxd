"""Iterating without a Future for what is here already; see the module."""


cdef class Next:
    cdef object look(self, bint *is_here)


cdef class Values:
    cdef Next next


cdef object waited_for(object future)
