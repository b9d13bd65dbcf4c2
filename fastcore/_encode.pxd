cpdef object encode(object message, object compression=*)
