cdef enum:
    # The most pieces that one system call takes.
    MAX_PIECES = 512


cdef class Outbox:
    # Of bytes and memoryviews, the first one first.
    cdef list pieces
    # In bytes: what waits, and what has been sent, ever.
    cdef readonly Py_ssize_t unsent
    cdef readonly long long sent

    cpdef int put(self, object frame) except -1
    cdef bint put_rest(self, object frame, Py_ssize_t sent) except -1
    cpdef int clear(self) except -1
    cpdef int flush(self, object send, object sendmsg) except -1
    cdef int glue(self) except -1
    cdef int advance(self, Py_ssize_t sent) except -1
