"""Errors that cross the wire: an exception becomes a reply, and the reply an exception.

The reply is a map of plain values; nothing in it is ever unpickled:

    {'status': 'uncaught-error',
     'exception': {'type': 'ZeroDivisionError', 'module': 'builtins',
                   'message': 'division by zero', 'args': [...]},
     'traceback': 'Traceback (most recent call last): ...'}

A builtin exception is raised as its own type at the caller, one that the caller has
registered too, and any other as RemoteError. What a peer calls arguments reaches only
constructors that can do nothing with them but keep them, or that got what they are made for:
some builtin ones trust their arguments with memory.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from traceback import format_tb
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from fastcore.errors import (
    BadFrame,
    BadMessage,
    BadValue,
    FastcoreError,
    FrameTooLarge,
    LimitReached,
    RemoteError,
    TooDeep,
    TooManyValues,
)
from fastcore.logs import escaped, shown
from fastcore.tracebacks import traceback_of

__all__ = ["Detail", "error_reply", "is_error_reply", "register_error", "remote_exception"]

STATUS: Final = "uncaught-error"

#: Longest traceback and message that a reply carries, in characters.
_MAX_TEXT = 20_000
#: Most arguments of an exception that are taken as such.
_MAX_ARGS = 100
#: Most places in the program that it names, of each exception in a chain.
_MAX_PLACES = 30
#: Of a type's name, which a peer may have made up.
_MAX_NAME = 200
#: What is told instead of a message that might hold secrets.
_WITHHELD = "the server's log says more"
_PLAIN = (str, bytes, int, float, bool, type(None))

#: How much an error reply tells.
Detail: TypeAlias = Literal["traceback", "message", "type"]

E = TypeVar("E", bound=type[Exception])

#: The types that arrive as themselves, by module and name.
_types: dict[tuple[str, str], type[Exception]] = {}


def _key(error_type: type[BaseException]) -> tuple[str, str]:
    return error_type.__module__, error_type.__name__


#: The builtin ones, by name. No Future can hold a StopIteration: it would end the coroutine
#: that waits. A group holds exceptions, which no message can express.
_builtins: dict[str, type[Exception]] = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type)
    and issubclass(value, Exception)
    and not issubclass(value, StopIteration | StopAsyncIteration | BaseExceptionGroup)
}
_ours: dict[str, type[Exception]] = {
    error.__name__: error
    for error in (BadFrame, BadMessage, BadValue, FrameTooLarge, LimitReached, TooDeep, TooManyValues)
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

    Raises
    ------
    TypeError
        If it isn't one: a peer must neither end this program nor cancel a task of it.

    Examples
    --------
    >>> from fastcore import register_error
    >>> @register_error
    ... class OutOfStock(Exception):
    ...     pass
    """
    if not (isinstance(error_type, type) and issubclass(error_type, Exception)):
        raise TypeError(
            f"an error that arrives as itself is a subclass of Exception, not {shown(error_type)}"
        )
    if issubclass(error_type, StopIteration):
        raise TypeError(f"no Future can hold a StopIteration, so {shown(error_type)} can't arrive as itself")
    _types[_key(error_type)] = error_type
    return error_type


def error_reply(
    error: BaseException, detail: Detail = "traceback", first: TracebackType | None = None
) -> dict[str, Any]:
    """Describe an exception for the caller at the other side.

    Parameters
    ----------
    error : BaseException
        What a handler raised.
    detail : str
        How much is told: ``'traceback'`` is all, with the names of files and lines of this
        program; ``'message'`` is type and message; ``'type'`` is the type alone.
    first : traceback, optional
        From where on the traceback is told; the whole, if None.

    Returns
    -------
    dict

    Examples
    --------
    >>> error_reply(KeyError('x'))['exception']
    {'type': 'KeyError', 'module': 'builtins', 'message': "'x'", 'args': ['x']}
    """
    name, module = type(error).__name__[:_MAX_NAME], type(error).__module__
    described: dict[str, Any] = {"type": name, "module": module}
    described |= {"message": _WITHHELD, "args": [_WITHHELD]}
    if detail != "type":
        described["message"] = _text(error, str)
        args = _args(error)
        described["args"] = args if _are_short(args) else [described["message"]]
    text = _traceback(error, first) if detail == "traceback" else ""
    return {"status": STATUS, "exception": described, "traceback": _sendable(text[-_MAX_TEXT:])}


def _args(error: BaseException) -> list[Any]:
    """Give an exception's arguments as far as they can be sent, whatever its author made of them."""
    try:
        # Those that it was made with: a subclass may call something else so.
        args = vars(BaseException)["args"].__get__(error)
        return [arg if _is_plain(arg) else _text(arg, repr) for arg in args]
    except Exception:
        return []


def _traceback(error: BaseException, first: TracebackType | None) -> str:
    # The places next to the error; what has recursed for long takes long to be told.
    try:
        return traceback_of(error, _MAX_PLACES, first)
    except KeyboardInterrupt:
        raise
    except BaseException:
        # One of those in its chain can't be described.
        return "".join(format_tb(error.__traceback__, limit=-_MAX_PLACES))


def is_error_reply(reply: object) -> bool:
    """Whether a reply tells of an exception."""
    return type(reply) is dict and reply.get("status") == STATUS and "exception" in reply


def remote_exception(reply: Any, peer: str, op: object) -> Exception:
    """Make the exception that an error reply tells of.

    Parameters
    ----------
    reply : object
        What :func:`is_error_reply` is true for, or what a peer sent in its place.
    peer : str
        Who sent it.
    op : object
        What was called.

    Returns
    -------
    Exception
        With a note that names peer and op and holds the remote traceback.
    """
    if not isinstance(reply, dict):
        reply = {"exception": reply}
    described = reply.get("exception")
    if isinstance(described, dict):
        error = _rebuild(described)
    elif isinstance(described, str):
        error = RemoteError("unknown", _words(described))
    elif not isinstance(described, bytes):
        error = RemoteError("unknown", f"the peer described its error by {shown(described)}")
    else:
        # Releases 1.10 to 1.13 of distributed sent a pickle here.
        error = RemoteError("unknown", "the peer described its error by a pickle, which isn't read")
    if isinstance(error, FastcoreError):
        error.peer = peer
    remote = reply.get("traceback")
    note = f"raised by op {shown(op, 200)} at {peer}"
    if isinstance(remote, str) and remote:
        note += f"; its traceback there:\n{escaped(remote[-_MAX_TEXT:])}"
    error.add_note(note)
    return error


def _rebuild(described: dict[Any, Any]) -> Exception:
    name = _words(described.get("type"))[:_MAX_NAME]
    module = described.get("module")
    message = _words(described.get("message"))
    given = described.get("args")
    args = tuple(given) if isinstance(given, list) and _are_short(given) else (message,)
    known = _types.get((module, name)) if isinstance(module, str) else _registered_by_name(name)
    if known is not None:
        try:
            return known(*args)
        except Exception:  # its constructor takes something else: tell it all the same
            return RemoteError(name, message, args)
    # Peers that tell no module are older than that key, and sent builtin ones by their name.
    ours = _ours.get(name) if module in (None, "fastcore.errors", "fastcore.engine_errors") else None
    builtin = _builtins.get(name) if module in (None, "builtins") else None
    made = _make_ours(ours, args) if ours is not None else None
    if not made and builtin is not None:
        made = _make_builtin(builtin, args, message)
    return made or RemoteError(name, message, args)


def _registered_by_name(name: str) -> type[Exception] | None:
    return next((known for (_, known_name), known in _types.items() if known_name == name), None)


def _make_ours(error_type: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    try:
        # What they say of themselves is words, and whoever prints them has a terminal.
        made = error_type(*[escaped(arg) if isinstance(arg, str) else arg for arg in args])
        str(made)
    except Exception:
        return None
    return made


def _make_builtin(error_type: type[Exception], args: tuple[Any, ...], message: str) -> Exception | None:
    """Make a builtin exception of arguments that a peer sent, if it is safe with them."""
    if issubclass(error_type, UnicodeError) and error_type is not UnicodeError:
        # They read memory at the places that they are told.
        return _make_unicode_error(error_type, args)
    if issubclass(error_type, OSError):
        numbered = 2 <= len(args) <= 3 and type(args[0]) is int and abs(args[0]) < 2**31
        named = all(isinstance(arg, str | None) for arg in args[1:])
        return error_type(*args) if numbered and named else error_type(message)
    if issubclass(error_type, SyntaxError | ImportError):
        # They look into their arguments, and only their text matters here.
        return error_type(message)
    return error_type(*args)


def _make_unicode_error(error_type: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    codec = args[:1] if error_type is not UnicodeTranslateError else ("",)
    rest = args[1:] if error_type is not UnicodeTranslateError else args
    what = bytes if error_type is UnicodeDecodeError else str
    if len(codec) != 1 or len(rest) != 4 or not isinstance(codec[0], str):
        return None
    data, start, end, reason = rest
    if not (isinstance(data, what) and type(start) is type(end) is int and isinstance(reason, str)):
        return None
    return error_type(*args) if 0 <= start < end <= len(data) else None


def _words(value: object) -> str:
    """Give what should be a text, of a peer that may have sent anything."""
    return value[:_MAX_TEXT] if isinstance(value, str) else f"a {type(value).__name__}"


def _text(value: object, convert: Callable[[object], str]) -> str:
    """Give the text of any object, however its author wrote its ``__str__`` or ``__repr__``."""
    try:
        return _sendable(convert(value)[:_MAX_TEXT])
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"(a {type(value).__name__} whose text can't be had: its __{convert.__name__}__ failed)"


def _sendable(text: str) -> str:
    r"""Write what UTF-8 can't express, lone surrogates, as ``\udc80``."""
    return text.encode(errors="backslashreplace").decode()


def _are_short(args: list[Any]) -> bool:
    """Whether arguments are plain values, and all of them together no longer than a message."""
    if len(args) > _MAX_ARGS or not all(map(_is_plain, args)):
        return False
    return sum(len(arg) for arg in args if isinstance(arg, str | bytes)) <= _MAX_TEXT


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT and value == _sendable(value)
    if isinstance(value, bytes):
        return len(value) <= _MAX_TEXT
    # MessagePack holds integers of up to 64 bits.
    return isinstance(value, _PLAIN) and not (isinstance(value, int) and abs(value) >= 2**63)
