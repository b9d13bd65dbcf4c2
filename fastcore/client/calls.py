"""One remote call: the Future of its answer, or the answers themselves as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from fastcore._futures import set_error, set_result_now, set_value
from fastcore._iterating import Values
from fastcore._parts import Parts
from fastcore.errors import BadValue, RemoteError
from fastcore.limits import check_seconds
from fastcore.logs import shown
from fastcore.remote_errors import is_error_reply, remote_exception
from fastcore.transport.event_loop import check_thread_of, in_thread_of

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    #: What a call answers, as far as somebody has declared it; what comes is what it is.
    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = [
    "RemoteCall",
    "StaysHere",
    "WhereCallsAre",
    "check_arguments",
    "no_stream",
    "too_late",
    "value_of_call",
]


class StaysHere:
    """What has connections: neither copied nor sent to another process, to which they don't belong."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} stays where it was made, as its connections do: hand on the address, and make another "
            "one of that there"
        )


class WhereCallsAre(Protocol):
    """Where a call is under way: on a connection, or waiting for one."""

    @property
    def bytes_in(self) -> int:
        """Bytes that have come there, ever."""
        ...

    def give_up(self, call: RemoteCall, /) -> None:
        """Forget the call: nobody waits for it any more."""

    def grant(self, call: RemoteCall, parts: int, /) -> None:
        """Let so many more parts come."""


class _Iterator(Values):
    """Iterates over the answers of one call; dropped before their end, it ends the call."""

    __slots__ = ("_call",)

    def __init__(self, call: RemoteCall, parts: Parts) -> None:
        super().__init__(parts)
        self._call = call

    def __del__(self) -> None:
        call = self._call
        # They refer to each other.
        call.parts = None
        if not call.done():
            loop = call.get_loop()
            if in_thread_of(loop):
                call.cancel()
            else:
                # Whichever thread the collector runs in.
                loop.call_soon_threadsafe(call.cancel)


class RemoteCall(asyncio.Future[T]):
    """The Future of one remote call, and the call itself while it is under way.

    Await it for the answer; where the handler gives many, that is a list of them.
    ``async for value in call`` gives each as it comes; a loop that is left early ends the
    handler. To cancel it tells the server that nobody waits.

    It has no constructor of its own: that would cost as much as all else that it does.
    Whoever makes one begins it.
    """

    __slots__ = ("header", "number", "op", "parts", "where")
    #: Its number on its connection.
    number: int
    #: Where it is under way; None when that is over.
    where: WhereCallsAre | None
    op: object
    # None for as long as there is no sign of more than one answer.
    parts: Parts | None
    #: What the header of its request says beside what every call's does.
    header: dict[str, Any] | None

    def begin(self, op: object, where: WhereCallsAre | None, header: dict[str, Any] | None = None) -> None:
        """Do what a constructor would."""
        self.op = op
        self.where = where
        self.parts = None
        self.header = header

    # ---- its answers

    def answer(self, value: Any) -> None:
        """End the call with its answer; who waits for it is resumed at once.

        Only for what comes by way of the loop's callbacks, in which no task is running.
        """
        self.where = None
        # Held, here and below: an iterator that somebody drops takes them along.
        parts = self.parts
        if parts is not None:
            self._end_parts(parts, value)
        else:
            set_result_now(self, value)

    def sent(self) -> None:
        """End a call that wants no answer; also from within a task, which can't wake another one."""
        self.where = None
        parts = self.parts
        if parts is not None:
            self._end_parts(parts, None)
        else:
            set_value(self, None)

    def answer_error(self, reply: Any, peer: str) -> None:
        """End the call with the exception that an error reply tells of."""
        if is_error_reply(reply):
            self.fail(remote_exception(reply, peer, self.op))
        else:
            self.fail(RemoteError("unknown", f"{peer} answered {self.op!r} by an error: {shown(reply)}"))

    def fail(self, error: BaseException) -> None:
        """End the call because there will be no answer, or none that can be read."""
        self.where = None
        if not self.done():
            set_error(self, error)
            self._wake()

    def _wake(self) -> None:
        """Have the one who iterates look again; without one, nobody needs the parts any more."""
        parts = self.parts
        if parts is not None:
            parts.wake()
            if not parts.is_iterated:
                self.parts = None

    def begin_parts(self) -> Parts:
        """Make a place for the first of many answers."""
        parts = self.parts = Parts(self)
        return parts

    def _end_parts(self, parts: Parts, last: Any) -> None:
        if self.done():
            return
        if not parts.is_iterated:
            set_value(self, [*parts.values])
            self.parts = None
            return
        if last is not None:
            # A server that knows no parts gives a list of them.
            if not isinstance(last, list):
                self.fail(no_stream(self.op))
                return
            parts.values.extend(last)
        set_value(self, None)
        parts.wake()

    def __aiter__(self) -> _Iterator:
        """Iterate over the answers as they come."""
        self._check_thread()
        parts = self.parts or self.begin_parts()
        if parts.is_iterated:
            raise RuntimeError(f"the answers of {self.op!r} are being read already")
        parts.is_iterated = True
        if self.done() and not self.cancelled() and self.exception() is None and not parts.values:
            # It was over before anybody asked for one by one.
            result: Any = self.result()
            if result is not None and not isinstance(result, list):
                raise no_stream(self.op)
            parts.values.extend(result or ())
        return _Iterator(self, parts)

    # ---- given up

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the call up. A server that numbers its answers hears of it.

        Raises
        ------
        RuntimeError
            In another thread than its loop's.
        """
        self._check_thread()
        if not super().cancel(msg):
            return False
        self._leave()
        return True

    def _check_thread(self) -> None:
        check_thread_of(self.get_loop(), "a call")

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
        self._wake()


def no_stream(op: object) -> TypeError:
    """Make the error for who iterates over one answer."""
    return TypeError(f"{op!r} gave one answer and no stream of them: await it")


def too_late(op: object, peer: str, seconds: float) -> TimeoutError:
    """Make the error for a call that took longer than it may."""
    return TimeoutError(f"no answer to {op!r} from {peer} within {seconds:g} s")


def check_arguments(
    op: str, positional: Sequence[object], message: Mapping[str, object], timeout: object
) -> None:
    """Raise the error for arguments that no call can have."""
    if positional:
        raise TypeError(
            f"{op}() takes its arguments by keyword, as the handler names them: {op}(x=...), "
            f"not {op}({shown(positional[0], 50)}...)"
        )
    if "op" in message:
        raise TypeError(f"{op}() takes no keyword 'op': what is called has that name in the request")
    if timeout is not None:
        check_seconds("timeout", timeout)


def value_of_call(error: BadValue, op: object, peer: str) -> BadValue:
    """Name the call in the error of a request that can't be sent."""
    # A caller knows the first step of the way by its keyword.
    keyword, _, way = error.path.removeprefix("['").partition("']")
    what = f"the call of {shown(op)} to {peer}"
    return BadValue(way, error.problem, what, keyword) if keyword else error.of(what, "message")
