from fastcore._socket cimport Socket


cdef class Outbox:
    # Of bytes and memoryviews, the first one first. A new list when what it held was given
    # up, so whoever is in the middle of sending it can tell.
    cdef list pieces
    # Whether somebody is at it: what comes first is being sent, or the list changed for that.
    cdef bint is_sending
    # In bytes: what waits, and what has been sent, ever.
    cdef readonly Py_ssize_t unsent
    cdef readonly long long sent

    cpdef int put(self, object frame) except -1
    cdef bint send_now(self, object frame, Socket socket) except -1
    cdef int own_all(self) except -1
    cpdef int clear(self) except -1
    cpdef int flush(self, Socket socket) except -1
    cdef int glue(self, list pieces) except -1
    cdef int advance(self, list pieces, Py_ssize_t sent) except -1
