"""Coroutines whose steps are timed, to find the one that kept everybody waiting."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from time import perf_counter_ns
from typing import Any

__all__ = ["Timed"]


class Timed:
    """Await a coroutine, and tell of each step of it that takes too long.

    A step is what it does between two awaits that wait. All of that time, its loop
    does nothing else.

    Parameters
    ----------
    coroutine : coroutine
        A native one.
    limit : float
        Nanoseconds that a step may take.
    on_slow : callable
        Called with the nanoseconds that a longer one took.

    Examples
    --------
    >>> import asyncio, time
    >>> async def sleepy():
    ...     time.sleep(0.01)
    ...     await asyncio.sleep(0.05)
    ...     return 'done'
    >>> async def main():
    ...     return await Timed(sleepy(), 1e6, lambda took: print(took // 10**7))
    >>> asyncio.run(main())
    1
    'done'
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], limit: float, on_slow: Callable[[int], None]
    ) -> None:
        self._coroutine = coroutine
        self._limit = limit
        self._on_slow = on_slow

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        step: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        while True:
            begun = perf_counter_ns()
            try:
                waits_for = step(argument)
            except StopIteration as done:
                return done.value
            finally:
                # An error knows this frame by its traceback: the two would hold each other.
                argument = None
                took = perf_counter_ns() - begun
                if took > self._limit:
                    self._on_slow(took)
            try:
                argument = yield waits_for
                step = coroutine.send
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                argument = error
                step = coroutine.throw
            finally:
                waits_for = None
