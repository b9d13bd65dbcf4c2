"""Whatever can run Python code in the middle of ours, doing so all the time.

>>> came = []
>>> with collecting(lambda: came.append("in the middle of something"), times=2):
...     things = [[] for _ in range(100)]
>>> came
['in the middle of something', 'in the middle of something']
"""

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import threading
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

import psutil

import fastcore
from helpers.support import until

#: How many times somebody comes in between, at most.
TIMES = 3_000


class Somebody:
    """Comes in between, so many times; in his own thread, and not in the middle of his own doing."""

    def __init__(self, does: Callable[[random.Random], object], seed: int, times: int = TIMES) -> None:
        self.does = does
        self.times = times
        self.random = random.Random(seed)
        self.thread = threading.get_ident()
        self.is_at_it = False
        self.errors: list[Exception] = []

    def __call__(self) -> None:
        if self.is_at_it or self.times == 0 or self.thread != threading.get_ident():
            return
        self.times -= 1
        self.is_at_it = True
        try:
            self.does(self.random)
        except Exception as error:
            self.errors.append(error)
        finally:
            self.is_at_it = False


class _Gremlin:
    """Garbage that only the collector finds, that does something when found, and is there again."""

    def __init__(self, act: Callable[[], object], times: int) -> None:
        self.itself = self
        self.act = act
        self.times = times

    def __del__(self) -> None:
        if self.times:
            _Gremlin(self.act, self.times - 1)
            self.act()


@contextmanager
def collecting(act: Callable[[], object], times: int = 2**30) -> Iterator[None]:
    """Have the collector run at each allocation that may start it, and do something each time."""
    threshold = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1, 0, 0)
    try:
        _Gremlin(act, times)  # young: what is old is looked through only when a quarter of all is new
        yield
    finally:
        gc.set_threshold(*threshold)
        for each in gc.get_objects():
            if type(each) is _Gremlin:
                each.times = 0
        gc.collect()


@contextmanager
def signalled(act: Callable[[], object], seconds: float = 0.000_3) -> Iterator[None]:
    """Have a signal handler do something, that often."""
    before = signal.signal(signal.SIGALRM, lambda *_: act())
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


#: A line of ours, by its file and number; and those that have led there, where each way counts.
Place = tuple[str | int, ...]

#: Before which lines somebody has come in, or that are another's, by what he does there.
_tried: defaultdict[object, set[Place]] = defaultdict(set)
#: ``make torture``: a line is another one for each way that leads to it.
_EACH_WAY = int(os.environ.get("FASTCORE_SEEDS", "2")) >= 100


class AtLine:
    """Has somebody come in before one line of ours, where nobody has come in yet.

    A collector, a signal handler or a log handler can't be had at a chosen line, so a trace function stands
    for them.

    Parameters
    ----------
    tried : set
        Where somebody has come in; the new one is added.
    *among : str
        In which files: those whose path in the package begins like one of them; in all of them without any.
    each_way : bool
        Whether a line is another one for each way that leads to it.
    share : tuple of int
        Which part of the lines, of how many.

    Attributes
    ----------
    where : str or None
        Which line that was; None if there was none.

    Examples
    --------
    >>> from fastcore.addressing import parse_address
    >>> tried = set()
    >>> for _ in range(2):
    ...     at = AtLine(tried)
    ...     with at.comes_in(lambda: print("in between")):
    ...         address = parse_address("127.0.0.1:8786")
    in between
    in between
    >>> len(tried), os.path.basename(at.where).split(":")[0]
    (2, 'addressing.py')
    """

    def __init__(
        self, tried: set[Place], *among: str, each_way: bool = False, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.where: str | None = None
        self._tried = tried
        self._ours = tuple(os.path.join(os.path.dirname(fastcore.__file__), each) for each in among or [""])
        self._each_way = each_way
        self._share, self._shares = share

    @contextmanager
    def comes_in(self, act: Callable[[], object]) -> Iterator[None]:
        """Have somebody do something, once, at such a line of this block, in this thread."""

        def called(frame: FrameType, event: str, argument: object) -> Any:
            return at_line if frame.f_code.co_filename.startswith(self._ours) else None

        def at_line(frame: FrameType, event: str, argument: object) -> Any:
            if event != "line" or (place := self._place(frame)) in self._tried:
                return at_line
            self._tried.add(place)
            if self._is_ours_to_try(frame):
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                act()
            return at_line

        before = sys.gettrace()
        sys.settrace(called)
        try:
            yield
        finally:
            sys.settrace(before)

    def _is_ours_to_try(self, frame: FrameType) -> bool:
        """Whether a line is of this share: the same wherever its function stands."""
        line = f"{frame.f_code.co_qualname} {frame.f_lineno - frame.f_code.co_firstlineno}"
        return zlib.crc32(line.encode()) % self._shares == self._share

    def _place(self, frame: FrameType) -> Place:
        place: list[str | int] = [frame.f_code.co_filename, frame.f_lineno]
        if self._each_way:
            led: FrameType | None = frame.f_back
            while led is not None:
                if led.f_code.co_filename.startswith(self._ours):
                    place += led.f_code.co_filename, led.f_lineno
                led = led.f_back
        return tuple(place)


async def at_each_line(
    does: str, ways: Iterable[str], conversation: Callable[[AtLine], Awaitable[object]], *among: str
) -> None:
    """Have a conversation over and over, and somebody come in once before lines of ours that run in it.

    The lines are shared out among what somebody may do, so that each is tried once; of the next conversation
    only those that are its own. ``make torture`` tries each line of each conversation in all ways, once for
    each way that leads there.

    Parameters
    ----------
    does : str
        What somebody does.
    ways : iterable of str
        All that somebody may do.
    conversation : coroutine function
        Is given who comes in. Nothing may be left of it: no task, no descriptor, no error of which only the
        loop or the log has heard.
    *among : str
        In which files, as `AtLine` has it.
    """
    ways = tuple(ways)
    tried: set[Place] = set() if _EACH_WAY else _tried[does, ways]
    share = (0, 1) if _EACH_WAY else (ways.index(does), len(ways))
    loop = asyncio.get_running_loop()
    # Once with nobody: what a loop keeps from its first connection or thread on isn't left over.
    await conversation(AtLine(set(), *among, share=(-1, 1)))
    before = _what_there_is()
    came_in = True
    with _Complaints() as complaints:
        loop.set_exception_handler(lambda _, context: complaints.heard.append(context))
        while came_in:
            at = AtLine(tried, *among, each_way=_EACH_WAY, share=share)
            try:
                async with asyncio.timeout(20):
                    await conversation(at)
                    await until(lambda: _what_there_is() <= before)
                assert not complaints.heard, complaints.heard
            except BaseException as error:
                error.add_note(f"where somebody did {does!r} before {at.where}")
                raise
            came_in = at.where is not None


def _what_there_is() -> tuple[int, int]:
    return len(asyncio.all_tasks()), psutil.Process().num_fds()


class _Complaints(logging.Handler):
    """Hears what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[object] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self)
