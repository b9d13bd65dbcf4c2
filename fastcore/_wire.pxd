"""Messages and their bytes, for the compiled way of messages."""

cimport cython


cdef enum:
    # A payload up to here can't cost much more than another of its size.
    NO_SURVEY = 2_048
    # What a header says of `part`, `error`.
    PART = 1
    ERROR = 2


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


cpdef CallHeader call_header(bytes header)
cdef CallHeader read_call_header(bytes header, bint *is_compressed)
cdef CallHeader whose(bytes header)
cpdef bytes call_fields(object number, int flags=*, long long window=*, long long grant=*, object cancel=*)
cpdef object encode(object message, object compression=*, bytes fields=*)
cpdef object decode(bytes header, object payload, Py_ssize_t max_decompressed_size=*, Py_ssize_t max_depth=*,
                    Py_ssize_t max_values=*, bint writable_values=*)
cdef object unpack_with_care(object payload, Py_ssize_t max_depth, Py_ssize_t max_values, object ext_hook,
                             object object_pairs_hook=*)
cdef Py_ssize_t size_of(list pieces) except -1
