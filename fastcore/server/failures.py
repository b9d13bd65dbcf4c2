"""What handlers raise: what the log says of it, and what their callers are told."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

from fastcore.errors import BadValue
from fastcore.logs import get_logger, shown
from fastcore.remote_errors import Detail, error_reply
from fastcore.server.request import Request

__all__ = ["is_of_the_call", "tell_of_failure", "tell_of_unsendable"]

logger = get_logger("fastcore.server")

#: The modules in whose frames handlers are called.
_CALLS_HANDLERS: Final = frozenset(
    {
        "fastcore.server.connection",
        "fastcore.server.middleware",
        "fastcore.server.parts",
        "fastcore.server.slow_steps",
    }
)


def tell_of_failure(error: BaseException, request: Request, peer: str, detail: Detail) -> dict[str, Any]:
    """Log what a handler raised, and give the reply that says so."""
    try:
        # One peer's faults hold back nobody else's, nor those of another kind.
        about = (request.op, type(error).__name__, peer.rpartition(":")[0])
        logger.warning("%r, called from %s, raised", request.op, peer, exc_info=error, extra={"about": about})
        # A traceback that nobody gets to see isn't written.
        return error_reply(error, detail if request.reply else "type", _from_handler_on(error))
    except KeyboardInterrupt:
        raise
    except BaseException:
        # Its class has methods of its own for what every error has.
        logger.warning("%r, called from %s, raised what can't be told", request.op, peer)
        return error_reply(RuntimeError("the handler raised an error that can't be told"), "message")


def tell_of_unsendable(error: BadValue, request: Request, peer: str, detail: Detail) -> dict[str, Any]:
    """Log that an answer can't be sent, and give the reply that says so."""
    error = error.of(f"the answer of {shown(request.op)}", "answer")
    about = (request.op, peer.rpartition(":")[0])
    logger.warning("called from %s: %s", peer, error, extra={"about": about})
    # By a type that all peers know; and where it was found out is nowhere in the handler.
    return error_reply(TypeError(str(error)), "type" if detail == "type" else "message")


def _from_handler_on(error: BaseException) -> TracebackType | None:
    """Give an error's traceback without what called the handler; all of it where that is where it failed."""
    traceback = error.__traceback__
    while traceback is not None and _is_ours(traceback):
        traceback = traceback.tb_next
    return traceback


def _is_ours(traceback: TracebackType) -> bool:
    return traceback.tb_frame.f_globals.get("__name__") in _CALLS_HANDLERS


def is_of_the_call(error: BaseException) -> bool:
    """Whether a handler couldn't be called as it was: none of its own lines has run."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and _is_ours(traceback)
