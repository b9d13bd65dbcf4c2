"""Time limits of a connection, watched without a cost to its messages.

Nothing is noted while messages flow. Where one is left unfinished, or the peer reads
too slowly, a timer begins to look at counters that are kept anyway, a few times within
the shortest limit, and sees what hasn't moved since when. So a limit strikes up to a
quarter late, and never early. When nothing is left to wait for the timer goes, because
a loop that has one needs longer for each of its turns.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastcore.errors import LimitReached

if TYPE_CHECKING:
    from fastcore.limits import Limits
    from fastcore.transport.tornado import Channel

__all__ = ["Watchdog"]

#: Looks within the shortest limit.
_LOOKS = 4


class _Stillness:
    """How long something hasn't moved while it should have."""

    __slots__ = ("_figures", "_since", "limit")

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._since = 0.0
        self.forget()

    def forget(self) -> None:
        """Count from the next figures on."""
        self._figures: object = None

    def is_too_long(self, figures: object, now: float) -> bool:
        """Say so, given the figures that should move; None where nothing should."""
        if self.limit is None:
            return False
        if figures is None or figures != self._figures:
            self._figures = figures
            self._since = now
            return False
        return now - self._since >= self.limit


class Watchdog:
    """Watches one channel.

    Parameters
    ----------
    channel : Channel
        Its ``on_limit`` is called with the error when a limit is reached.
    limits : Limits
        Those that are seconds count.
    """

    def __init__(self, channel: Channel, limits: Limits) -> None:
        self._channel = channel
        self._reading = _Stillness(limits.message_timeout)
        self._writing = _Stillness(limits.write_timeout)
        self._idling = _Stillness(limits.idle_timeout)
        watched = [each.limit for each in (self._reading, self._writing, self._idling) if each.limit]
        self._period = min(watched, default=0.0) / _LOOKS
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch a connection that is open now; for idleness that means always."""
        if self._idling.limit is not None:
            self.wake()

    def wake(self) -> None:
        """Look until there is nothing to wait for."""
        if self._timer is None and self._period:
            self._look()

    def rest(self) -> None:
        """Look no more if there is nothing to wait for."""
        if not self._waits():
            self.stop()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._channel.watched = False
        # The same message may wait to be finished again, after a time in which nobody wanted it.
        for stillness in (self._reading, self._writing, self._idling):
            stillness.forget()

    def _begun(self) -> int | None:
        """Give a figure that stays while a message isn't finished; None if none has begun."""
        # One has begun where bytes are left and somebody waits for the rest.
        channel = self._channel
        return channel.messages_in if channel.unread and channel.is_read else None

    def _waits(self) -> bool:
        return self._begun() is not None or self._channel.full or self._idling.limit is not None

    def _look(self) -> None:
        channel = self._channel
        now = channel.loop.time()
        traffic = (channel.bytes_in, channel.bytes_out)
        idle = channel.is_idle is None or channel.is_idle()
        channel.watched = self._waits()
        self._timer = channel.loop.call_later(self._period, self._look) if channel.watched else None
        if self._reading.is_too_long(self._begun(), now):
            self._strike("message_timeout", "a message was begun and not finished", self._reading)
        elif self._writing.is_too_long(channel.bytes_out if channel.full else None, now):
            self._strike("write_timeout", "the peer read nothing of what waits for it", self._writing)
        elif self._idling.is_too_long(traffic if idle else None, now):
            self._strike("idle_timeout", "nothing was sent either way", self._idling)

    def _strike(self, keyword: str, what: str, stillness: _Stillness) -> None:
        self.stop()
        error = LimitReached(keyword, f"{what} within {stillness.limit:g} s")
        (self._channel.on_limit or self._channel.close)(error)
