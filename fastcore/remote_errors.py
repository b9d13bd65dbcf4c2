"""Errors that cross the wire: an exception becomes a reply, and the reply an exception.

The reply is a map of plain values; nothing in it is ever unpickled:

    {'status': 'uncaught-error',
     'exception': {'type': 'ZeroDivisionError', 'message': 'division by zero', 'args': [...]},
     'traceback': 'Traceback (most recent call last): ...'}

A builtin exception is raised as its own type at the caller, one that the caller has
registered too, and any other as RemoteError.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, TypeVar

from fastcore.errors import BadFrame, BadMessage, FrameTooLarge, LimitReached, RemoteError, TooDeep

__all__ = ["Detail", "error_reply", "is_error_reply", "register_error", "remote_exception"]

STATUS: Final = "uncaught-error"

#: Longest traceback and message that a reply carries, in characters.
_MAX_TEXT = 20_000
#: What is told instead of a message that might hold secrets.
_KEPT = "the server's log says more"
_PLAIN = (str, bytes, int, float, bool, type(None))

#: How much an error reply tells.
Detail: TypeAlias = Literal["traceback", "message", "type"]

E = TypeVar("E", bound=type[Exception])

#: The types that arrive as themselves, by name.
_types: dict[str, type[Exception]] = {
    error.__name__: error for error in (BadFrame, BadMessage, FrameTooLarge, LimitReached, TooDeep)
}
_types |= {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type)
    and issubclass(value, Exception)
    # No Future can hold a StopIteration: it would end the coroutine that waits.
    and not issubclass(value, StopIteration | StopAsyncIteration)
}


def register_error(error_type: E) -> E:
    """Let an exception type of yours arrive as itself. Serves as a decorator.

    Parameters
    ----------
    error_type : type
        A subclass of Exception that can be made from its ``args``.

    Returns
    -------
    type
        The same.

    Examples
    --------
    >>> from fastcore import register_error
    >>> @register_error
    ... class OutOfStock(Exception):
    ...     pass
    """
    _types[error_type.__name__] = error_type
    return error_type


def error_reply(error: BaseException, detail: Detail = "traceback") -> dict[str, Any]:
    """Describe an exception for the caller at the other side.

    Parameters
    ----------
    error : BaseException
        What a handler raised.
    detail : str
        How much is told: ``'traceback'`` is all, with the names of files and lines of this
        program; ``'message'`` is type and message; ``'type'`` is the type alone.

    Returns
    -------
    dict

    Examples
    --------
    >>> error_reply(KeyError('x'))['exception']
    {'type': 'KeyError', 'message': "'x'", 'args': ['x']}
    """
    described = {"type": type(error).__name__, "message": _KEPT, "args": [_KEPT]}
    if detail != "type":
        described["message"] = _text(error, str)
        described["args"] = [arg if _is_plain(arg) else _text(arg, repr) for arg in error.args]
    text = "".join(traceback.format_exception(error)) if detail == "traceback" else ""
    return {"status": STATUS, "exception": described, "traceback": _sendable(text[-_MAX_TEXT:])}


def is_error_reply(reply: object) -> bool:
    """Whether a reply tells of an exception."""
    return type(reply) is dict and reply.get("status") == STATUS and "exception" in reply


def remote_exception(reply: dict[str, Any], peer: str, op: object) -> Exception:
    """Make the exception that an error reply tells of.

    Parameters
    ----------
    reply : dict
        What :func:`is_error_reply` is true for.
    peer : str
        Who sent it.
    op : object
        What was called.

    Returns
    -------
    Exception
        With a note that names peer and op and holds the remote traceback.
    """
    described = reply["exception"]
    if isinstance(described, dict):
        error = _rebuild(described)
    elif isinstance(described, str):
        error = RemoteError("unknown", described)
    elif not isinstance(described, bytes):
        error = RemoteError("unknown", f"the peer described its error by {described!r:.100}")
    else:
        # Releases 1.10 to 1.13 of distributed sent a pickle here.
        error = RemoteError("unknown", "the peer described its error by a pickle, which isn't read")
    remote = reply.get("traceback")
    note = f"raised by op {op!r} at {peer}"
    if isinstance(remote, str) and remote:
        note += f"; its traceback there:\n{remote}"
    error.add_note(note)
    return error


def _rebuild(described: dict[str, Any]) -> Exception:
    name = str(described.get("type"))
    message = str(described.get("message"))
    args = described.get("args")
    args = tuple(args) if isinstance(args, list) else (message,)
    known = _types.get(name)
    if known is not None:
        try:
            return known(*args)
        except Exception:  # its constructor takes something else: tell it all the same
            pass
    return RemoteError(name, message, args)


def _text(value: object, convert: Callable[[object], str]) -> str:
    """Give the text of any object, however its author wrote its ``__str__`` or ``__repr__``."""
    try:
        return _sendable(convert(value)[:_MAX_TEXT])
    except Exception:
        return f"(a {type(value).__name__} whose text can't be had: its __{convert.__name__}__ failed)"


def _sendable(text: str) -> str:
    r"""Write what UTF-8 can't express, lone surrogates, as ``\udc80``."""
    return text.encode(errors="backslashreplace").decode()


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT and value == _sendable(value)
    if isinstance(value, bytes):
        return len(value) <= _MAX_TEXT
    # MessagePack holds integers of up to 64 bits.
    return isinstance(value, _PLAIN) and not (isinstance(value, int) and abs(value) >= 2**63)
