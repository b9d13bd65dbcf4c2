"""The connections of an event loop whose messages are here, and wait for their turn.

They are served round robin, and not all of them in one turn of the loop: between a few, it looks
at its sockets. So whoever says little waits for a few of those that say much, however many there are.
"""

cimport cython
from cpython.time cimport monotonic

from collections import deque
from contextvars import Context
from weakref import ref

# Seconds of a turn of the loop for all that waited.
cdef double A_ROUND = 0.000_4

# For the loop's callbacks: each copy is one that holds nothing, of whoever was served last.
cdef object NOWHERE = Context()

# A weak reference to what `queue` has made last.
cdef object newest = None


@cython.final
cdef class RunQueue:
    """Serves them, as long as there are any. It belongs to the loop, which frees it at its end."""

    cdef object loop
    cdef object waiting
    # Whether `serve` will be called.
    cdef bint is_called
    cdef object __weakref__

    cdef int call(self) except -1:
        if not self.is_called:
            self.loop.call_soon(self.serve, context=NOWHERE.copy())
            self.is_called = True
        return 0

    def serve(self):
        """Let those hand out whose turn it is, each at most once, and the others later."""
        cdef double ends = monotonic() + A_ROUND
        # Who is served may run the loop in here.
        self.is_called = False
        try:
            for _ in range(len(self.waiting)):
                self.waiting.popleft().hand_out()
                if monotonic() > ends or not self.waiting:
                    break
        finally:
            if self.waiting:
                self.call()


cdef int queue(object channel, object loop) except -1:
    """Have a channel's `hand_out` called, when it is its turn."""
    global newest
    cdef RunQueue waiting = None if newest is None else newest()
    if waiting is None or waiting.loop is not loop:
        waiting = RunQueue()
        waiting.loop = loop
        waiting.waiting = deque()
        newest = ref(waiting)
    waiting.waiting.append(channel)
    return waiting.call()
