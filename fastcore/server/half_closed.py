"""Whether a client that says no more is there still.

One that has shut its side of the connection and waits for its answers looks like one that has gone, as
long as nothing is sent to it. The machine of one that has gone answers bytes with a reset. So it is told
now and then what is nobody's answer: the connection ends then, or when that is told the next time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from fastcore._channel import Channel
from fastcore.errors import ConnectionLost
from fastcore.transport.event_loop import Timer

__all__ = ["Questions"]

#: Seconds until the first question, and the most between two. Each comes after twice as long.
_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 10.0


class Questions:
    """Asks the client of one connection, which numbers its calls, until the connection ends.

    Parameters
    ----------
    channel : Channel
        Its messages.
    """

    __slots__ = ("_channel", "_pause", "_timer")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pause = _FIRST_PAUSE
        self._ask_later()

    def _ask_later(self) -> None:
        loop = self._channel.loop
        self._timer = Timer(loop, loop.time() + self._pause, self._ask)

    def _ask(self) -> None:
        channel = self._channel
        # One that is full has bytes on their way.
        if not channel.is_full:
            with suppress(ConnectionLost):
                channel.send(None)
        if channel.is_open:
            self._pause = min(2 * self._pause, _MAX_PAUSE)
            self._ask_later()

    def stop(self) -> None:
        """Ask no more."""
        self._timer.cancel()
