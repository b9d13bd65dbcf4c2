"""The answers of one call that nobody took yet, and how many more may come.

A class of its own, and compiled, because a stream of small values costs hardly more than the
steps that each of them takes.
"""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident

import asyncio
from collections import deque

from fastcore._iterating cimport Source, waited_for
from fastcore._header cimport WINDOW

from fastcore._futures import set_result_now

cdef enum:
    SMALLEST = 8
    LARGEST = 1_024
    BYTES = 262_144

#: How many parts may be on their way at first, and later at the least and at the most.
FIRST_WINDOW = WINDOW
SMALLEST_WINDOW = SMALLEST
LARGEST_WINDOW = LARGEST
#: Bytes of parts that may be on their way, as far as those that have come tell.
BYTES_IN_WINDOW = BYTES


@cython.final
cdef class Parts(Source):
    """The parts of one call, in the order of coming.

    Parameters
    ----------
    call : RemoteCall
        Whose they are.

    Attributes
    ----------
    values : deque
        Those that nobody took yet.
    is_iterated : bool
        Whether they are taken one by one; otherwise all of them are wanted together.
    """

    cdef object call
    cdef readonly object values
    cdef public bint is_iterated
    cdef object append
    cdef object popleft
    # How many may come before the caller says anything, and how many that was at most.
    cdef Py_ssize_t left
    cdef Py_ssize_t window
    # Parts since the window was reckoned last, and the bytes that had come until then; -1 before all.
    cdef Py_ssize_t since
    cdef long long bytes_before
    # The Future that is waited for.
    cdef object waiting
    # That of its loop, as far as is known.
    cdef unsigned long thread

    def __init__(self, call):
        self.thread = PyThread_get_thread_ident()
        self.call = call
        self.values = deque()
        self.append = self.values.append
        self.popleft = self.values.popleft
        self.left = self.window = WINDOW
        self.bytes_before = -1

    def add(self, value, bint more_are_here):
        """Take one that has come; who waits is resumed at once, or when those that are here came too."""
        if self.bytes_before < 0:
            where = self.call.where
            if where is None:
                # It has been given up by whoever came in between.
                return
            self.bytes_before = where.bytes_in
        self.append(value)
        self.left -= 1
        self.since += 1
        if not self.is_iterated:
            # For a list, all of them are wanted.
            self.let_more_come(0)
        elif self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            if waiting.done():
                pass
            elif more_are_here:
                waiting.set_result(None)
            else:
                set_result_now(waiting, None)

    def take(self):
        """The next one that has come, for who waits in a way of his own."""
        value = self.popleft()
        self.let_more_come(len(self.values))
        return value

    def wake(self):
        """Have the one who waits look again."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    cdef int check_thread(self) except -1:
        loop = self.call.get_loop()
        if loop.is_running():
            try:
                is_here = asyncio.get_running_loop() is loop
            except RuntimeError:
                is_here = False
            if not is_here:
                raise RuntimeError(
                    f"the answers of {self.call.op!r} are read in another thread than that of their loop"
                )
        self.thread = PyThread_get_thread_ident()
        return 0

    cdef int let_more_come(self, Py_ssize_t waiting) except -1:
        """Open the window again when half of it is used up; so many wait to be taken."""
        cdef Py_ssize_t left = self.left + waiting
        cdef Py_ssize_t size
        cdef long long received
        if left > self.window >> 1:
            return 0
        where = self.call.where
        if where is None:
            return 0
        received = where.bytes_in
        size = max(1, (received - self.bytes_before) // max(1, self.since))
        self.window = min(max(BYTES // size, SMALLEST), LARGEST)
        self.bytes_before = received
        self.since = 0
        if self.window > left:
            self.left += self.window - left
            where.grant(self.call, self.window - left)
        return 0

    cdef object next_one(self, bint *is_here):
        if self.thread != PyThread_get_thread_ident():
            self.check_thread()
        if self.values:
            value = self.popleft()
            self.let_more_come(len(self.values))
            return value
        if self.call.done():
            # Raises what ended them, if anything did.
            self.call.result()
            raise StopAsyncIteration
        if self.waiting is not None and not self.waiting.done():
            raise RuntimeError(f"two readers at once: the answers of {self.call.op!r} are being read")
        self.waiting = self.call.get_loop().create_future()
        is_here[0] = False
        return waited_for(self.waiting)
