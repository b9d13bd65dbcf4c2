"""Messages and their bytes, for the compiled way of messages."""

cimport cython


cdef enum:
    # A payload up to here can't cost much more than another of its size.
    NO_SURVEY = 2_048
    # Which values a peer reads: extension types too, none of them, or nobody knows.
    VALUES = 0
    PLAIN = 1
    ASK = 2


@cython.final
cdef class Dialect:
    cdef public int speaks


cpdef object encode(object message, object compression=*, bytes fields=*, int dialect=*)
cpdef object decode(bytes header, object payload, Py_ssize_t max_decompressed_size=*, Py_ssize_t max_depth=*,
                    Py_ssize_t max_values=*, bint writable_values=*, object ext_hook=*)
cdef object unpack_with_care(object payload, Py_ssize_t max_depth, Py_ssize_t max_values, object ext_hook,
                             object object_pairs_hook=*, bint tuples=*)
cdef Py_ssize_t size_of(list pieces) except -1
