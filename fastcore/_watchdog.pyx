"""Time limits of a connection, watched without a cost to its messages.

Nothing is noted while messages flow. Where one is left unfinished, or the peer reads
too slowly, a timer begins to look at counters that are kept anyway, a few times within
the shortest limit, and sees what hasn't moved since when. So a limit strikes up to a
quarter late, and never early. When nothing is left to wait for the timer goes, because
a loop that has one needs longer for each of its turns.

Time in which the loop stood still, because a handler blocked it, isn't the peer's: what it
sent meanwhile lies in the kernel. However long it was, it counts as little more than the time
between two looks, so that the bytes are received before the limit is reached.
"""

cimport cython

from contextvars import Context

from fastcore.errors import LimitReached

cdef enum:
    # Looks within the shortest limit.
    LOOKS = 4

# The most that counts between two looks, in parts of the time that should lie there.
cdef double LATE = 1.25

# In the order in which the figures are given: the keyword, and what is wrong when they don't move.
cdef tuple KINDS = (
    ("message_timeout", "a message was begun and not finished"),
    ("write_timeout", "the peer read nothing of what waits for it"),
    ("idle_timeout", "nothing was sent either way"),
    ("handshake_timeout", "there was no TLS handshake"),
    ("peer_timeout", "the peer's machine acknowledged nothing of what was sent"),
)


@cython.final
cdef class Stillness:
    """How long something hasn't moved while it should have."""

    def __init__(self, str keyword, str what, limit):
        self.keyword = keyword
        self.what = what
        self.limit = limit

    cdef int forget(self) except -1:
        """Count from the next figures on."""
        self.figures = None
        return 0

    cdef bint is_too_long(self, object figures, double passed) except -1:
        """Say so, given the figures that should move, None where nothing should, and the seconds passed."""
        if figures is None or figures != self.figures:
            self.figures = figures
            self.seconds = 0
            return False
        self.seconds += passed
        return self.seconds >= self.limit


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
        Gives figures that should move: while a message isn't finished, while the peer
        has something to read, while nobody works for the peer, while it shakes hands, while
        something isn't acknowledged. None where nothing should; the last ones can be left out.
    on_limit : callable
        Called with the error when a limit is reached.
    """

    def __init__(self, loop, limits, figures, on_limit):
        self.loop = loop
        self.figures = figures
        self.on_limit = on_limit
        self.kinds = [Stillness(keyword, what, getattr(limits, keyword)) for keyword, what in KINDS]
        self.is_never_done = limits.idle_timeout is not None
        watched = [(<Stillness> kind).limit for kind in self.kinds if (<Stillness> kind).limit]
        self.period = min(watched, default=0.0) / LOOKS

    cpdef int wake(self) except -1:
        """Look until there is nothing to wait for."""
        if self.timer is None and self.period:
            self.looked_at = self.loop.time()
            self.is_awake = True
            # In the next turn: whoever comes in the middle of something, such as a signal handler, may
            # come in the middle of what the loop does to its timers.
            self.look_by(self.loop.call_soon(self.check))
        return 0

    cdef int look_by(self, object timer) except -1:
        """Keep what will call `check`, unless who came in between has ended that, or looks by himself."""
        if self.is_awake and self.timer is None:
            self.timer = timer
        else:
            timer.cancel()
        return 0

    cpdef int doze(self) except -1:
        """Look no more if there is nothing to wait for."""
        if not self.is_never_done and not self.is_needed(self.figures()):
            self.stop()
        return 0

    cdef bint is_needed(self, tuple figures) except -1:
        cdef object figure
        for figure, kind in zip(figures, self.kinds):
            if figure is not None and (<Stillness> kind).limit is not None and kind is not self.kinds[IDLE]:
                return True
        return False

    cpdef int stop(self) except -1:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.is_awake = False
        # The same message may wait to be finished again, after a time in which nobody wanted it.
        for kind in self.kinds:
            (<Stillness> kind).forget()
        return 0

    def check(self):
        """See what hasn't moved since the last time."""
        cdef double now = self.loop.time()
        cdef double passed = min(now - self.looked_at, self.period * LATE)
        cdef tuple figures
        cdef Stillness kind
        self.timer = None
        figures = self.figures()
        if not self.is_awake or self.timer is not None:
            # Who came in between has ended that, or looks by himself.
            return
        self.looked_at = now
        self.is_awake = self.is_never_done or self.is_needed(figures)
        if self.is_awake:
            # Not in the context of the request that was the first to be watched: it would be kept for good.
            self.look_by(self.loop.call_later(self.period, self.check, context=Context()))
        for figure, kind in zip(figures, self.kinds):
            if kind.limit is not None and kind.is_too_long(figure, passed):
                self.stop()
                self.on_limit(LimitReached(kind.keyword, f"{kind.what} within {kind.limit:g} s"))
                return
