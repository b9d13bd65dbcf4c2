"""Messages looked over before they are decoded."""

cdef int look_over(object payload, Py_ssize_t max_depth, Py_ssize_t max_values,
                   bint *has_registered) except -1

cdef bint is_one_value(bytes payload)
