"""One remote call: the Future of its answer, or the answers themselves as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from fastcore._futures import is_busy, set_result_now, unobserved
from fastcore.remote_errors import remote_exception

__all__ = ["FIRST_WINDOW", "RemoteCall", "WhereCallsAre"]

#: How many parts may be on their way at first, and later at the least and at the most.
FIRST_WINDOW: Final = 32
_SMALLEST_WINDOW: Final = 8
_LARGEST_WINDOW: Final = 1024
#: Bytes of parts that may be on their way, as far as those that have come tell.
_BYTES_IN_WINDOW: Final = 256 * 1024


class WhereCallsAre(Protocol):
    """Where a call is under way: on a connection, or waiting for one."""

    @property
    def bytes_in(self) -> int:
        """Bytes that have come there, ever."""

    def give_up(self, call: RemoteCall, /) -> None:
        """Forget the call: nobody waits for it any more."""

    def grant(self, call: RemoteCall, parts: int, /) -> None:
        """Let so many more parts come."""


class _Parts:
    """The answers of one call that nobody took yet, and how many more may come."""

    __slots__ = ("_bytes_before", "_call", "_left", "_since", "_waiting", "_window", "values")

    def __init__(self, call: RemoteCall, bytes_before: int) -> None:
        self.values: deque[Any] = deque()
        self._call = call
        self._bytes_before = bytes_before
        self._window = self._left = FIRST_WINDOW
        # Parts since the window was reckoned last.
        self._since = 0
        self._waiting: asyncio.Future[None] | None = None

    def add(self, value: Any) -> None:
        """Take one that has come."""
        self.values.append(value)
        self._left -= 1
        self._since += 1
        if self._waiting is not None:
            self.wake()

    def wake(self) -> None:
        """Have the one who waits look again."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            set_result_now(waiting, None)

    def let_more_come(self, where: WhereCallsAre, waiting: int) -> None:
        """Open the window again when half of it is used up; so many wait to be taken."""
        left = self._left + waiting
        if left > self._window >> 1:
            return
        received = where.bytes_in
        size = max(1, (received - self._bytes_before) // max(1, self._since))
        self._window = min(max(_BYTES_IN_WINDOW // size, _SMALLEST_WINDOW), _LARGEST_WINDOW)
        self._bytes_before = received
        self._since = 0
        if self._window > left:
            self._left += self._window - left
            where.grant(self._call, self._window - left)

    async def next(self) -> Any:
        """Give the next one as soon as it is there; raise StopAsyncIteration after the last."""
        call = self._call
        while not self.values:
            if call.done():
                # Raises what ended them, if anything did.
                call.result()
                raise StopAsyncIteration
            self._waiting = call.get_loop().create_future()
            await self._waiting
        value = self.values.popleft()
        if call.where is not None:
            self.let_more_come(call.where, len(self.values))
        return value


class _Iterator:
    """Iterates over the answers of one call; dropped before their end, it ends the call."""

    __slots__ = ("__anext__", "_call")

    def __init__(self, call: RemoteCall, parts: _Parts) -> None:
        self._call = call
        self.__anext__ = parts.next

    def __aiter__(self) -> _Iterator:
        return self

    def __del__(self) -> None:
        self._call.cancel()


class RemoteCall(asyncio.Future[Any]):
    """The Future of one remote call, and the call itself while it is under way.

    Await it for the answer; where the handler gives many, that is a list of them.
    ``async for value in call`` gives each as it comes; a loop that is left early ends the
    handler. To cancel it tells the server that nobody waits.

    It has no constructor of its own: that would cost as much as all else that it does.
    Whoever makes one begins it.
    """

    __slots__ = ("_is_iterated", "number", "op", "parts", "where")
    #: Its number on its connection.
    number: int
    #: Where it is under way; None when that is over.
    where: WhereCallsAre | None
    op: object
    # None for as long as there is no sign of more than one answer.
    parts: _Parts | None
    _is_iterated: bool

    def begin(self, op: object, where: WhereCallsAre | None) -> None:
        """Do what a constructor would."""
        self.op = op
        self.where = where
        self.parts = None

    # ---- its answers

    def answer(self, value: Any) -> None:
        """End the call with its answer."""
        self.where = None
        if self.parts is not None:
            self._end_parts(value)
        elif self.done():
            return
        elif is_busy(self.get_loop()):
            self.set_result(value)
        else:
            set_result_now(self, value)

    def sent(self) -> None:
        """End a call that wants no answer."""
        self.where = None
        if not self.done():
            # Not at once: the request may have been sent by a task, and that is still running.
            self.set_result(None)

    def answer_error(self, reply: Any, peer: str) -> None:
        """End the call with the exception that an error reply tells of."""
        self.fail(remote_exception(reply, peer, self.op))

    def fail(self, error: BaseException) -> None:
        """End the call because there will be no answer, or none that can be read."""
        self.where = None
        if not self.done():
            self.set_exception(error)
            unobserved(self)
            if self.parts is not None:
                self.parts.wake()

    def add_part(self, value: Any) -> None:
        """Take one of many answers."""
        where = self.where
        if where is None:
            return
        parts = self.parts
        if parts is None:
            parts = self.parts = _Parts(self, where.bytes_in)
            self._is_iterated = False
        parts.add(value)
        if not self._is_iterated:
            # For a list, all of them are wanted.
            parts.let_more_come(where, 0)

    def _end_parts(self, last: Any) -> None:
        parts = self.parts
        assert parts is not None
        if self.done():
            return
        if not self._is_iterated:
            self.set_result([*parts.values])
            return
        if last is not None:
            # A server that knows no parts gives a list of them.
            if not isinstance(last, list):
                self.fail(TypeError(f"{self.op!r} gave one answer and no stream of them: await it"))
                return
            parts.values.extend(last)
        self.set_result(None)
        parts.wake()

    def __aiter__(self) -> _Iterator:
        """Iterate over the answers as they come."""
        if self.parts is None:
            self.parts = _Parts(self, 0 if self.where is None else self.where.bytes_in)
        elif self._is_iterated:
            raise RuntimeError(f"the answers of {self.op!r} are being read already")
        self._is_iterated = True
        if self.done() and not self.cancelled() and self.exception() is None and not self.parts.values:
            # It was over before anybody asked for one by one.
            result = self.result()
            self.parts.values.extend(result if isinstance(result, list) else [result])
        return _Iterator(self, self.parts)

    # ---- given up

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the call up. A server that numbers its answers hears of it."""
        if not super().cancel(msg):
            return False
        self._leave()
        return True

    def time_out(self, error: TimeoutError) -> None:
        """Give the call up because it took too long."""
        if not self.done():
            where = self.where
            self.fail(error)
            self.where = where
            self._leave()

    def _leave(self) -> None:
        # One that was never begun, or only just made, is nowhere.
        where: WhereCallsAre | None = getattr(self, "where", None)
        if where is None:
            return
        self.where = None
        where.give_up(self)
        if self.parts is not None:
            self.parts.wake()
