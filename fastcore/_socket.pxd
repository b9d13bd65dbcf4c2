"""The bytes of one connection, in and out; see the module."""

from fastcore._framing cimport MessageBuffer


cdef enum:
    WOULD_BLOCK = -2
    # The most pieces that one system call takes.
    MAX_PIECES = 512


cdef class Socket:
    # The socket, or what stands before it.
    cdef readonly object source
    # Whether it sends several pieces at once.
    cdef bint gathers
    # Asks for the number of the socket, where it may be used directly.
    cdef object fileno
    # Asks for the number of what is under that, where it is one.
    cdef object bare_fileno

    cdef int descriptor(self) except? -1
    cdef Py_ssize_t receive(self, MessageBuffer buffer) except? -1
    cdef Py_ssize_t receive_by_function(self, MessageBuffer buffer) except? -1
    cdef bint is_at_end(self) except -1
    cdef bint has_something(self) except -1
    cdef Py_ssize_t send(self, object frame) except? -1
    cdef bint takes(self, object frame)
