"""Messages and their bytes, for the compiled way of messages."""

cimport cython


cdef enum:
    # A payload up to here can't cost much more than another of its size.
    NO_SURVEY = 2_048
    # What a header says of `part`, `error`.
    PART = 1
    ERROR = 2
    # Parts that may be on their way at first.
    WINDOW = 32
    # Which values a peer reads: extension types too, none of them, or nobody knows.
    VALUES = 0
    PLAIN = 1
    ASK = 2


@cython.final
cdef class CallHeader:
    # The number; None is the nil of what belongs to no call.
    cdef readonly object call
    cdef readonly bint part
    cdef readonly bint error
    # None where the header doesn't say.
    cdef readonly object window
    cdef readonly object cancel
    cdef readonly object grant
    # The keys that mean nothing to fastcore; None where there are none.
    cdef readonly dict extra


@cython.final
cdef class Dialect:
    cdef public int speaks


cpdef CallHeader call_header(bytes header)
cdef CallHeader read_call_header(bytes header, bint *is_compressed)
cdef CallHeader whose(bytes header)
cpdef bytes call_fields(object number, int flags=*, long long window=*, long long grant=*, object cancel=*)
cpdef object encode(object message, object compression=*, bytes fields=*, int dialect=*)
cpdef object decode(bytes header, object payload, Py_ssize_t max_decompressed_size=*, Py_ssize_t max_depth=*,
                    Py_ssize_t max_values=*, bint writable_values=*, object ext_hook=*)
cdef object unpack_with_care(object payload, Py_ssize_t max_depth, Py_ssize_t max_values, object ext_hook,
                             object object_pairs_hook=*, bint tuples=*)
cdef Py_ssize_t size_of(list pieces) except -1
