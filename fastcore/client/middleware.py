"""Middleware of a caller: context managers around each call, until its last answer."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from contextvars import copy_context

from fastcore.client.calls import RemoteCall
from fastcore.logs import shown
from fastcore.middleware import CallDetails, Middleware

__all__ = ["start_within"]


def start_within(
    middleware: Sequence[Middleware], details: CallDetails, start: Callable[[CallDetails], RemoteCall]
) -> RemoteCall:
    """Start a call within middleware.

    Parameters
    ----------
    middleware : sequence of callable
        The first is the outermost.
    details : CallDetails
        What they are given, and may change.
    start : callable
        Starts it.

    Raises
    ------
    TypeError
        If one of them gives something else than a plain context manager.
    """
    # What is entered is left in the same one; and the caller's own goes on as it was.
    context = copy_context()
    stack = ExitStack()
    try:
        context.run(_enter, stack, middleware, details)
        call = start(details)
    except BaseException:
        if context.run(stack.__exit__, *sys.exc_info()):
            raise RuntimeError("middleware of a caller kept an error, so there is no call") from None
        raise
    call.add_done_callback(functools.partial(_leave, stack), context=context)
    return call


def _enter(stack: ExitStack, middleware: Sequence[Middleware], details: CallDetails) -> None:
    for each in middleware:
        manager = each(details)
        if not isinstance(manager, AbstractContextManager):
            # A call is begun at once, so there is no waiting before it.
            raise TypeError(f"middleware of a caller gives a plain context manager, not {shown(manager)}")
        stack.enter_context(manager)


def _leave(stack: ExitStack, call: RemoteCall) -> None:
    error = asyncio.CancelledError() if call.cancelled() else call.exception()
    stack.__exit__(type(error) if error is not None else None, error, None)
