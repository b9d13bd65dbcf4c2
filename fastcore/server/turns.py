"""The loop's time, shared out among what could take all of it: generators, and handlers that fail."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from time import perf_counter_ns
from typing import Final

from fastcore._channel import Channel
from fastcore._futures import set_value

__all__ = ["TURN_BUDGET", "Turn", "Turns"]

#: Nanoseconds of a turn of the loop for a server's generators and errors, all together.
TURN_BUDGET: Final = 500_000


class Turns:
    """What is left of a turn of the loop, and who waits for the next.

    One of those that wait goes on in each turn, and connections take theirs one after the other:
    so neither many of them nor many of one client keep others waiting.

    Attributes
    ----------
    left : int
        Nanoseconds that may still be taken before the loop looks at its sockets.
    number : int
        Which turn it is, as far as they are counted.
    """

    __slots__ = ("_counted_by", "_waiting", "left", "number")

    def __init__(self) -> None:
        self.left = TURN_BUDGET
        self.number = 0
        self._waiting: OrderedDict[Channel, deque[asyncio.Future[None]]] = OrderedDict()
        # The loop that has been asked to call when its next turn begins.
        self._counted_by: asyncio.AbstractEventLoop | None = None

    def count(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notice when this turn of the loop is over."""
        if self._counted_by is not loop:
            self._counted_by = loop
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._counted_by = None
        self.number += 1
        self.left = TURN_BUDGET
        while self._waiting:
            channel, waiting = self._waiting.popitem(last=False)
            future = waiting.popleft()
            if waiting:
                self._waiting[channel] = waiting
            if not future.done():
                # By one step: who comes in between may have it cancelled.
                set_value(future, None)
                self.count(loop)
                break

    def spend(self, begun: int, loop: asyncio.AbstractEventLoop) -> None:
        """Count the nanoseconds since then as taken."""
        self.left -= perf_counter_ns() - begun
        self.count(loop)

    async def wait(self, channel: Channel) -> None:
        """Wait for a turn in which there is time left."""
        future: asyncio.Future[None] = channel.loop.create_future()
        self._waiting.setdefault(channel, deque()).append(future)
        self.count(channel.loop)
        await future


class Turn:
    """The share that one generator has of the turns.

    Parameters
    ----------
    turns : Turns
        The server's.
    channel : Channel
        Whose generator it is.
    """

    __slots__ = ("_begun", "_channel", "_number", "_turns")

    def __init__(self, turns: Turns, channel: Channel) -> None:
        self._turns = turns
        self._channel = channel
        self._begun = self._number = 0

    async def begin(self) -> int:
        """Wait until there is time; give when that was."""
        turns = self._turns
        while turns.left <= 0:
            await turns.wait(self._channel)
        turns.count(self._channel.loop)
        self._number = turns.number
        self._begun = perf_counter_ns()
        return self._begun

    def end(self) -> None:
        """Count the time that it took, unless the loop has had its turn meanwhile."""
        if self._number == self._turns.number:
            self._turns.spend(self._begun, self._channel.loop)
