"""What asyncio's Futures are made to do here."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["given_up", "set_result_now", "unobserved"]


def set_result_now(future: asyncio.Future[Any], result: object) -> None:
    """Set a Future's result and resume the one who waits for it at once.

    A Future's own way is to resume them in the next turn of the loop: one more look at
    every socket, for each answer. Where more is about to run in this turn, that look
    serves many, and what they send leaves together. Only for the loop's callbacks: there,
    no task is running that could be interrupted.
    """
    callbacks = future._callbacks
    if not callbacks or len(callbacks) > 1 or _is_busy(future.get_loop()):
        future.set_result(result)
        return
    ((callback, context),) = callbacks
    future.remove_done_callback(callback)
    future.set_result(result)
    try:
        context.run(callback, future)
    except Exception as error:
        future.get_loop().call_exception_handler(
            {"message": f"exception in callback {callback!r}", "exception": error, "future": future}
        )


def _is_busy(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether more is to run in this turn, as far as the loop lets one see it."""
    return bool(getattr(loop, "_ready", None))


def given_up(future: asyncio.Future[Any]) -> bool:
    """Whether nobody waits for a Future any more.

    ``gen.with_timeout`` doesn't cancel what it waited for. The one trace that it leaves
    is the callback that will log the error, should there be one.
    """
    if future.done():
        return True
    callbacks = future._callbacks or ()
    return any(
        getattr(callback, "__qualname__", "") == "with_timeout.<locals>.error_callback"
        for callback, _ in callbacks
    )


def unobserved(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """Keep the loop from logging an error that nobody looked at."""
    if not future.cancelled():
        future.exception()
    return future
