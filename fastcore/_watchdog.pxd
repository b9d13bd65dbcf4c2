cdef class Stillness:
    cdef readonly object limit
    cdef object figures
    cdef double since

    cdef int forget(self) except -1
    cdef bint is_too_long(self, object figures, double now) except -1


cdef class Watchdog:
    cdef object loop
    cdef object figures
    cdef object on_limit
    cdef object timer
    cdef double period
    cdef Stillness reading
    cdef Stillness writing
    cdef Stillness idling
    # Whether it has an eye on the time.
    cdef readonly bint is_awake

    cpdef int wake(self) except -1
    cpdef int doze(self) except -1
    cpdef int stop(self) except -1
    cdef int strike(self, str keyword, str what, Stillness stillness) except -1
