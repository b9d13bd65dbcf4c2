cdef enum:
    # The place of its figures among the others.
    IDLE = 2


cdef class Stillness:
    cdef readonly str keyword
    cdef readonly str what
    cdef readonly object limit
    cdef object figures
    cdef double seconds

    cdef int forget(self) except -1
    cdef bint is_too_long(self, object figures, double passed) except -1


cdef class Watchdog:
    cdef object loop
    cdef object figures
    cdef object on_limit
    cdef object timer
    cdef double period
    cdef double looked_at
    # One for each of KINDS.
    cdef list kinds
    # Whether there is a limit even where nobody owes anything.
    cdef bint is_never_done
    # Whether it has an eye on the time.
    cdef readonly bint is_awake

    cpdef int wake(self) except -1
    cdef int look_by(self, object timer) except -1
    cpdef int doze(self) except -1
    cpdef int stop(self) except -1
    cdef bint is_needed(self, tuple figures) except -1
