"""The connections whose messages wait for their turn; see the module."""


cdef int queue(object channel, object loop) except -1
