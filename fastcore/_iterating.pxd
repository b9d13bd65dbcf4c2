"""Iterating without a Future for what is here already; see the module."""


cdef class Source:
    cdef object next_one(self, bint *is_here)
    cdef bint has_failed(self, object error) except -1


cdef class Next:
    cdef Source source


cdef class Values:
    cdef Source source
    # What the last `__anext__` gave, and the next one gives if nobody has kept it.
    cdef Next next


cdef Next next_of(Source source)
cdef object waited_for(object future)
