cpdef object encode(object message, object compression=*)
cpdef Py_ssize_t length_of(bytes header)
