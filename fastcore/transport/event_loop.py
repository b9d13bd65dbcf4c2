"""The event loop: which one it is, and what other threads may ask of it."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, Final

from tornado.ioloop import IOLoop

__all__ = [
    "TEARDOWN_GRACE",
    "Timer",
    "check_thread_of",
    "current_io_loop",
    "current_loop",
    "ignore_io_loop",
    "in_thread_of",
    "is_running",
    "patience",
    "run_in_thread_of",
    "waiting_loop",
]

#: Seconds in which a loop is over, if all that runs in it was cancelled to end it.
TEARDOWN_GRACE: Final = 0.1
#: Seconds to wait for a loop that is busy, or that waits for this very thread.
_LOOP_TIMEOUT = 1.0
#: How often a limit is looked at before it is reached.
_CHECKS_PER_LIMIT = 4


class Timer:
    """Calls something at a time, by a loop that may be in the middle of anything.

    asyncio keeps its timers in a heap. Setting one may wake the collector, or a signal handler may come
    in then, and the heap breaks where that sets another: so a turn of the loop sets it.

    A context is kept by what was to be called in it, also by what was cancelled, until its time has come: so
    it isn't that of whoever sets it.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Whose time it is, and who calls.
    when : float
        The time.
    callback : callable
        What is called, with ``args``.
    """

    __slots__ = ("_args", "_callback", "_handle", "_loop", "_when")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, when: float, callback: Callable[..., object], *args: object
    ) -> None:
        self._loop = loop
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self._handle: asyncio.TimerHandle | None = None
        loop.call_soon(self._set)

    def _set(self) -> None:
        callback = self._callback
        if callback is not None:
            self._handle = self._loop.call_at(self._when, callback, *self._args, context=Context())
            if self._callback is None:
                # By somebody who came in between.
                self._handle.cancel()

    def cancel(self) -> None:
        """Call nothing."""
        self._callback = None
        self._args = ()
        # Not what has it set: asyncio can't run a handle that is cancelled in the middle of that.
        if self._handle is not None:
            self._handle.cancel()


def current_io_loop() -> IOLoop:
    """Give the loop that runs, or that will: Tornado knows it before it is started."""
    # Tornado by itself has asyncio warn that it makes one where there is none.
    return waiting_loop() or IOLoop.current()


def current_loop() -> asyncio.AbstractEventLoop:
    """As `current_io_loop`, without Tornado's part."""
    loop: asyncio.AbstractEventLoop = current_io_loop().asyncio_loop  # type: ignore[attr-defined]
    return loop


def is_running() -> bool:
    """Whether a loop runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Do what ``asyncio.timeout`` does, without counting the time in which the loop stood still.

    What was waited for may have come meanwhile, and lie in the kernel: it gets its turn first.
    """
    async with asyncio.timeout(None) as limit:
        countdown = _Countdown(limit, seconds)
        try:
            yield
        finally:
            countdown.stop()


class _Countdown:
    """Ends a limit when so much time was seen to pass. Once stopped, it holds nothing that holds it."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._part = seconds / _CHECKS_PER_LIMIT
        self._left = seconds
        self._looked_at = self._loop.time()
        self._timer = self._loop.call_later(self._part, self._look, context=Context())

    def _look(self) -> None:
        now = self._loop.time()
        self._left -= min(now - self._looked_at, 1.25 * self._part)
        self._looked_at = now
        if self._left <= 0:
            self._limit.reschedule(now)
        else:
            part = min(self._left, self._part)
            self._timer = self._loop.call_later(part, self._look, context=Context())

    def stop(self) -> None:
        """Count no further."""
        self._timer.cancel()


def waiting_loop() -> IOLoop | None:
    """Give the loop that this thread has made and doesn't run now, if there is one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with warnings.catch_warnings():
            # asyncio makes one where there is none, and from Python 3.12 on warns of that.
            warnings.simplefilter("ignore", DeprecationWarning)
            return IOLoop.current(instance=False)
    return None


def ignore_io_loop(keywords: dict[str, Any]) -> None:
    """Take ``io_loop`` out of the keywords of a caller's caller, with a warning.

    Programs of 2016 name the loop; since then there is one for each thread.
    """
    if keywords.pop("io_loop", None) is not None:
        warnings.warn(
            "io_loop= is ignored: what is made runs in the loop that is current",
            DeprecationWarning,
            stacklevel=3,
        )


def in_thread_of(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing else can be using what belongs to the loop right now."""
    if not loop.is_running():
        return True
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def check_thread_of(loop: asyncio.AbstractEventLoop, what: str) -> None:
    """Raise if what belongs to the loop is used elsewhere while the loop runs."""
    if not in_thread_of(loop):
        raise RuntimeError(
            f"{what} is used from another thread than its loop's; "
            "have the loop do it: loop.call_soon_threadsafe(...)"
        )


def run_in_thread_of(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Do something where the loop's things may be touched; return when it is done.

    From another thread: at the latest after a second, if the loop is busy for so long.
    """
    if in_thread_of(loop):
        action()
        return
    done = threading.Event()

    def act() -> None:
        try:
            action()
        finally:
            done.set()

    loop.call_soon_threadsafe(act)
    done.wait(_LOOP_TIMEOUT)
