"""Time limits of a connection, watched without a cost to its messages.

Nothing is noted while messages flow. Where one is left unfinished, or the peer reads
too slowly, a timer begins to look at counters that are kept anyway, a few times within
the shortest limit, and sees what hasn't moved since when. So a limit strikes up to a
quarter late, and never early. When nothing is left to wait for the timer goes, because
a loop that has one needs longer for each of its turns.
"""

cimport cython

from fastcore.errors import LimitReached

cdef enum:
    # Looks within the shortest limit.
    LOOKS = 4


@cython.final
cdef class Stillness:
    """How long something hasn't moved while it should have."""

    def __init__(self, limit):
        self.limit = limit

    cdef int forget(self) except -1:
        """Count from the next figures on."""
        self.figures = None
        return 0

    cdef bint is_too_long(self, object figures, double now) except -1:
        """Say so, given the figures that should move; None where nothing should."""
        if self.limit is None:
            return False
        if figures is None or figures != self.figures:
            self.figures = figures
            self.since = now
            return False
        return now - self.since >= self.limit


@cython.final
cdef class Watchdog:
    """Watches one connection.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Whose clock it is.
    limits : Limits
        Those that are seconds count.
    figures : callable
        Gives three figures that should move: while a message isn't finished, while the peer
        has something to read, while nobody works for the peer. None where nothing should.
    on_limit : callable
        Called with the error when a limit is reached.
    """

    def __init__(self, loop, limits, figures, on_limit):
        self.loop = loop
        self.figures = figures
        self.on_limit = on_limit
        self.reading = Stillness(limits.message_timeout)
        self.writing = Stillness(limits.write_timeout)
        self.idling = Stillness(limits.idle_timeout)
        watched = [
            limit for limit in (limits.message_timeout, limits.write_timeout, limits.idle_timeout) if limit
        ]
        self.period = min(watched, default=0.0) / LOOKS

    cpdef int wake(self) except -1:
        """Look until there is nothing to wait for."""
        if self.timer is None and self.period:
            # In the next turn: whoever comes in the middle of something, such as a signal handler, may
            # come in the middle of what the loop does to its timers.
            self.is_awake = True
            self.timer = self.loop.call_soon(self.check)
        return 0

    cpdef int doze(self) except -1:
        """Look no more if there is nothing to wait for."""
        begun, unsent, _ = self.figures()
        if begun is None and unsent is None and self.idling.limit is None:
            self.stop()
        return 0

    cpdef int stop(self) except -1:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.is_awake = False
        # The same message may wait to be finished again, after a time in which nobody wanted it.
        self.reading.forget()
        self.writing.forget()
        self.idling.forget()
        return 0

    def check(self):
        """See what hasn't moved since the last time."""
        cdef double now = self.loop.time()
        begun, unsent, idle = self.figures()
        self.is_awake = begun is not None or unsent is not None or self.idling.limit is not None
        self.timer = self.loop.call_later(self.period, self.check) if self.is_awake else None
        if self.reading.is_too_long(begun, now):
            self.strike("message_timeout", "a message was begun and not finished", self.reading)
        elif self.writing.is_too_long(unsent, now):
            self.strike("write_timeout", "the peer read nothing of what waits for it", self.writing)
        elif self.idling.is_too_long(idle, now):
            self.strike("idle_timeout", "nothing was sent either way", self.idling)

    cdef int strike(self, str keyword, str what, Stillness stillness) except -1:
        self.stop()
        self.on_limit(LimitReached(keyword, f"{what} within {stillness.limit:g} s"))
        return 0
