"""Whatever can run Python code in the middle of ours, doing so all the time.

>>> came = []
>>> with collecting(lambda: came.append("in the middle of something"), times=2):
...     things = [[] for _ in range(100)]
>>> came
['in the middle of something', 'in the middle of something']
"""

import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import fastcore

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


class AtLine:
    """Has somebody come in before one line of ours: the so many-th that runs.

    Parameters
    ----------
    line : int
        Counted from the start of the block, over all Python files of the package.
    act : callable
        What is done then, once.

    Attributes
    ----------
    where : str or None
        Which line that was; None if there were not so many.

    Examples
    --------
    >>> from fastcore.addressing import parse_address
    >>> with AtLine(3, lambda: print("in between")) as at:
    ...     address = parse_address("127.0.0.1:8786")
    in between
    >>> address, at.where.split(":")[0]
    (('127.0.0.1', 8786), 'addressing.py')
    """

    _ours = os.path.dirname(fastcore.__file__) + os.sep

    def __init__(self, line: int, act: Callable[[], object]) -> None:
        self.where: str | None = None
        self._left = line
        self._act = act

    def __enter__(self) -> "AtLine":
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._at_line if frame.f_code.co_filename.startswith(self._ours) else None

    def _at_line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self._left -= 1
            if self._left == -1:
                self.where = f"{frame.f_code.co_filename.removeprefix(self._ours)}:{frame.f_lineno}"
                sys.settrace(None)
                try:
                    self._act()
                finally:
                    sys.settrace(self._called)
        return self._at_line
