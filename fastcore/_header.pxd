"""Headers, for the compiled way of messages."""

cpdef bytes length_header(unsigned long long length)
cpdef Py_ssize_t length_of(bytes header)
