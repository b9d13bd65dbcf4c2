"""Headers and what they say, for the compiled way of messages."""

cimport cython


cdef enum:
    # What a header says of `part`, `error`.
    PART = 1
    ERROR = 2
    # Parts that may be on their way at first.
    WINDOW = 32


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


cpdef CallHeader call_header(bytes header)
cdef CallHeader read_call_header(bytes header, bint *is_compressed)
cdef CallHeader whose(bytes header)
cdef object compression_of(bytes header)
cpdef bytes call_fields(object number, int flags=*, long long window=*, long long grant=*, object cancel=*)
cpdef bytes length_header(unsigned long long length, bytes fields=*)
cdef bytes whole_header(dict keys)
