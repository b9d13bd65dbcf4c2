"""Whatever can run Python code in the middle of ours, doing so all the time.

>>> came = []
>>> with collecting(lambda: came.append("in the middle of something"), times=2):
...     things = [[] for _ in range(100)]
>>> came
['in the middle of something', 'in the middle of something']
"""

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
