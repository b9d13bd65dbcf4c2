cpdef object encode(object message, object compression=*)
cdef Py_ssize_t size_of(list pieces) except -1
