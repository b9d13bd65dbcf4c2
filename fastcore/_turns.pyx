"""Which of a loop's connections have their turn, where messages are here that nobody was given yet.

They are served round robin, and not all of them in one turn of the loop: between a few, it looks
at its sockets. A message can't be divided, so of those whose messages take long there is one in a
turn, and after it some time for all others. So whoever says little waits for few of those that say
much, however many there are.
"""

from cpython.time cimport monotonic

from collections import deque
from contextvars import Context
from weakref import WeakValueDictionary, ref

# Seconds of a turn of the loop for all that wait and take little each.
cdef double A_ROUND = 0.000_4

# Of the time that one took: for so much of it again, no other that takes long follows.
cdef double A_REST = 0.125

# For the loop's callbacks: each copy is one that holds nothing, of whoever was served last.
cdef object NOWHERE = Context()

# By the number that the loop has as an object.
cdef object turns_by_loop = WeakValueDictionary()


cdef class Turns:
    """The turns of one event loop, for all its channels."""

    cdef RunQueue queue(self):
        """Those that wait; made when the first one does."""
        cdef RunQueue queue = None if self.waiting is None else self.waiting()
        if queue is None:
            queue = RunQueue()
            queue.turns = self
            queue.brief = deque()
            queue.long = deque()
            self.waiting = ref(queue)
        return queue

    cdef int wait(self, object channel, bint takes_long) except -1:
        """Have a channel's `hand_out` called when it is its turn."""
        cdef RunQueue queue = self.queue()
        (queue.long if takes_long else queue.brief).append(channel)
        return queue.call()

    cdef int took_long(self, object channel, double seconds) except -1:
        """Have all others wait until this turn is over, and those that take long for some time more."""
        cdef RunQueue queue = self.queue()
        self.is_over = True
        queue.last = <void *> channel
        queue.rests_until = monotonic() + A_REST * seconds
        return queue.call()

    cdef bint is_crowded(self) except -1:
        """Whether somebody waits, or took long just now."""
        return self.waiting is not None and self.waiting() is not None


cdef class RunQueue:
    """Those that wait, as long as there are any.

    The loop holds it, by what it will call, and nobody else: so a loop that ends lets go of all
    that waited in it.
    """

    cdef int call(self) except -1:
        if not self.is_called:
            self.turns.loop.call_soon(self.serve, context=NOWHERE.copy())
            self.is_called = True
        return 0

    def serve(self):
        """Let those hand out whose turn it is, each at most once, and the others later."""
        cdef double now = monotonic()
        cdef double ends = now + A_ROUND
        # Who is served may run the loop in here.
        self.is_called = False
        self.turns.is_over = False
        try:
            for _ in range(len(self.brief)):
                if now > ends or not self.brief:
                    break
                self.brief.popleft().hand_out()
                now = monotonic()
            if not self.turns.is_over and self.long and (
                now >= self.rests_until or self.last == <void *> self.long[0]
            ):
                self.long.popleft().hand_out()
        finally:
            if self.brief or self.long:
                self.call()


cdef Turns turns_of(object loop):
    """Give what shares the turns of a loop among its channels."""
    cdef Turns turns = turns_by_loop.get(id(loop))
    if turns is None or turns.loop is not loop:
        turns = Turns()
        turns.loop = loop
        turns_by_loop[id(loop)] = turns
    return turns
