"""One request of a server's connection, from its arrival to its last answer."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final

from fastcore._futures import set_value
from fastcore._header import call_fields
from fastcore.server.figures import OpStats

__all__ = ["Request", "being_handled", "being_served"]


class Request:
    """What is known of a request while it is handled.

    Parameters
    ----------
    op : object
        What was called; None where that isn't known.
    call : int or None
        Its number, if it has one.
    reply, closes : object
        Whether it wants an answer, and whether the connection ends with that; as the peer said it.
    """

    __slots__ = (
        "begun",
        "call",
        "closes",
        "figures",
        "given_up",
        "is_future",
        "is_over",
        "left",
        "op",
        "reply",
        "task",
        "waiting",
        "weight",
    )

    def __init__(self, op: Any, call: int | None, reply: Any, closes: Any) -> None:
        self.op = op
        self.call = call
        self.reply = reply
        self.closes = closes
        self.weight = 1
        self.given_up = self.is_over = False
        #: Whether its handler gave a Future, as Tornado's coroutines do when their first step is over.
        self.is_future = False
        self.task: asyncio.Task[None] | None = None
        #: How many parts may still be sent; None where nobody counts.
        self.left: int | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.begun = 0
        self.figures: OpStats | None = None

    def fields(self, flags: int = 0) -> bytes | None:
        """Say whose the answer is, in its header."""
        return None if self.call is None else call_fields(self.call, flags)

    def go_on(self) -> None:
        """Let it look again whether parts may be sent."""
        if self.waiting is not None:
            set_value(self.waiting, None)


#: The one whose handler waits for something, for that and all that it has started.
being_handled: Final[ContextVar[Request | None]] = ContextVar("fastcore.being_handled", default=None)

#: What stands for the connection whose request has led here.
being_served: Final[ContextVar[object]] = ContextVar("fastcore.being_served", default=None)
