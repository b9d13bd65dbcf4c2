"""What middleware sees of a call, at either end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tornado.iostream import IOStream

from fastcore.logs import shown

__all__ = ["CallDetails", "Middleware", "check_middleware"]


@dataclass(slots=True, eq=False)
class CallDetails:
    """A call, as middleware sees it before it is made, or before its handler is called.

    Attributes
    ----------
    op : str
        What is called.
    keywords : dict
        The handler's keywords; may be changed.
    header : dict
        What the header of the request says beside what fastcore itself puts there: at the
        handler what came, at the caller what is to go. Its keys are strings.
    peer : str
        Who is at the other end.
    stream : tornado.iostream.IOStream or None
        At the handler, the one that it is given.
    """

    op: Any
    keywords: dict[str, Any]
    header: dict[str, Any]
    peer: str
    stream: IOStream | None = None


#: Gives a context manager that is around the whole call.
Middleware = Callable[[CallDetails], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]


def check_middleware(given: object) -> tuple[Middleware, ...]:
    """Give what can be called around each call, or raise the error for what can't.

    Examples
    --------
    >>> check_middleware(print)
    Traceback (most recent call last):
        ...
    TypeError: middleware is a sequence of what can be called, not <built-in function print>
    """
    around = tuple(given) if isinstance(given, Iterable) else ()
    if isinstance(given, Iterable) and all(map(callable, around)):
        return around
    raise TypeError(f"middleware is a sequence of what can be called, not {shown(given)}")
