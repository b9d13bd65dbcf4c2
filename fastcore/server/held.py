"""Requests that came, and are too many for now."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

from fastcore._channel import Channel
from fastcore._header import CallHeader
from fastcore.transport.event_loop import Timer

__all__ = ["PATIENCE", "HeldRequest", "HeldRequests"]

#: Bytes that are held before no more is received, in `max_waiting`: at first, and when for so many
#: seconds no request of the connection has ended. What would end one, that it is given up or may send
#: more, can stand behind them. In the end further requests are refused.
_MAX_HELD: Final = (1, 64)
PATIENCE: Final = (0.2, 10.0)
#: What a request counts at least: it is a dict and some more by now, however few bytes it had.
_MIN_SIZE: Final = 512

#: What came, and the bytes of it.
HeldRequest = tuple[Any, CallHeader | None, int]


class HeldRequests:
    """The requests of one connection that are to be begun later, in the order in which they came.

    Parameters
    ----------
    channel : Channel
        Where they come from.
    hear_more : callable
        Called when more of them may be held, as nothing has ended meanwhile.
    """

    __slots__ = ("_channel", "_hear_more", "_requests", "_stalled", "_timer", "size")

    def __init__(self, channel: Channel, hear_more: Callable[[], None]) -> None:
        self._channel = channel
        self._hear_more = hear_more
        # By number, as each may be given up: to go through all that wait for every one that is would
        # keep everybody else waiting. (Not a dict, which looks for its first where that was once.)
        self._requests: OrderedDict[object, HeldRequest] = OrderedDict()
        self.size = 0
        #: How often nothing had ended when patience was over, and what tells when it is.
        self._stalled = 0
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[HeldRequest]:
        return iter(self._requests.values())

    @property
    def last(self) -> HeldRequest:
        """The one that came last."""
        return next(reversed(self._requests.values()))

    def keep(self, message: Any, header: CallHeader | None) -> None:
        """Hold a request, which the channel has given last."""
        size = max(self._channel.last_size, _MIN_SIZE)
        # What has no number can't be given up, nor can the second of a number that is taken.
        number = None if header is None else header.call
        key: object = object() if number is None or number in self._requests else number
        self._requests[key] = message, header, size
        self.size += size

    def first(self) -> HeldRequest:
        """Give the one that came first, which is held no longer."""
        _, held = self._requests.popitem(last=False)
        self.size -= held[2]
        return held

    def of_call(self, call: int) -> HeldRequest | None:
        """Give the one of that number, which is held no longer."""
        held = self._requests.pop(call, None)
        if held is not None:
            self.size -= held[2]
        return held

    @property
    def is_full(self) -> bool:
        """Whether no further one may be held, however long that lasts."""
        return self._stalled == len(_MAX_HELD) and self._holds(_MAX_HELD[-1])

    def _holds(self, most: int) -> bool:
        return self.size >= most * self._channel.limits.max_waiting

    def may_grow(self, something_runs: bool) -> bool:
        """Whether to be given what comes behind them; if not, look again when patience is over."""
        if self._stalled == len(_MAX_HELD) or not self._holds(_MAX_HELD[self._stalled]):
            return True
        if something_runs and self._timer is None:
            loop = self._channel.loop
            self._timer = Timer(loop, loop.time() + PATIENCE[self._stalled], self._stall)
        return False

    def _stall(self) -> None:
        self._timer = None
        self._stalled += 1
        self._hear_more()

    def something_ended(self) -> None:
        """Be patient anew."""
        self._stalled = 0
        self.wait_no_more()

    def wait_no_more(self) -> None:
        """Call nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def clear(self) -> None:
        """Hold nothing."""
        self._requests.clear()
        self.size = 0
