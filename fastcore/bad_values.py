"""Which value of a message can't be sent, and why: looked for once packing it has failed.

Nothing of this costs a message that can be packed. The walk looks at each value once, and
writes the way to the one that it finds only then.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final

from msgpack import ExtType

from fastcore.engine_errors import BadValue
from fastcore.limits import MAX_DEPTH
from fastcore.logs import shown
from fastcore.values.kinds import Kind
from fastcore.values.registry import kind_of

__all__ = ["find_bad_value"]

#: Of a long way, so many steps at its beginning and at its end are told.
_FIRST_STEPS: Final = 8
_LAST_STEPS: Final = 4
_LARGEST_SIZE: Final = 2**32 - 1


class _Step(str):
    """A step that is told as it is, where neither a key nor a place leads on."""

    __slots__ = ()


#: From a set to one that it holds; from a value to what its type's ``pack`` has made of it.
_INSIDE: Final = _Step("{...}")


def find_bad_value(message: object, pack: Callable[[Any], object], error: Exception) -> BadValue:
    """Find the first value for which a message can't be packed.

    Parameters
    ----------
    message : object
        It, as it was to be sent.
    pack : callable
        Packs a value that holds no others, or raises.
    error : Exception
        How packing the message has failed: told where nothing wrong is found any more.

    Returns
    -------
    BadValue

    Examples
    --------
    >>> import msgpack
    >>> print(find_bad_value({'rows': [1, 2**64]}, msgpack.packb, OverflowError()))
    a message can't be sent: message['rows'][1] is an int of 65 bits: messages hold -2**63 to 2**64 - 1
    """
    try:
        found = _walk(message, pack)
    except Exception as failed:
        # What gives a value's items, or packs it, may run anything.
        error = failed
    else:
        if found is not None:
            return found
    return BadValue("", f"can't be packed: {type(error).__name__}: {shown(error, 200, str)}")


def _walk(message: object, pack: Callable[[Any], object]) -> BadValue | None:
    # Not by recursion: the way may be longer than Python's own stack. A container's step is the
    # key or the place that it has in the one before it.
    way: list[tuple[object, object, Iterator[tuple[object, object]]]]
    way = [(None, None, iter([(None, message)]))]
    around: set[int] = set()
    while way:
        for step, value in way[-1][2]:
            if _is_simple(value):
                continue
            try:
                inside = _items_of(value)
            except Exception:
                # Its type's own word for what it holds; it is asked once more, and told of, below.
                inside = None
            if inside is None:
                problem = _problem(value, pack)
            elif id(value) in around:
                problem = "holds itself"
            elif len(way) > MAX_DEPTH:
                problem = f"is nested deeper than {MAX_DEPTH:,} levels"
            else:
                problem = _problem_of_keys(value, pack)
            if problem is not None:
                return BadValue(_path([*[each[0] for each in way], step][2:]), problem)
            if inside is not None:
                around.add(id(value))
                way.append((step, value, inside))
                break
        else:
            around.discard(id(way.pop()[1]))
    return None


def _is_simple(value: object) -> bool:
    """Whether a value can be packed, as nearly all can; False where that isn't certain."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_utf8(value)  # type: ignore[attr-defined, arg-type]
    if kind is int:
        return -(2**63) <= value < 2**64  # type: ignore[operator]
    if kind is bytes or kind is bytearray:
        return len(value) <= _LARGEST_SIZE  # type: ignore[arg-type]
    if kind is list or kind is dict:
        return not value
    return kind is float or kind is bool or value is None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _items_of(value: object) -> Iterator[tuple[object, object]] | None:
    """Give the steps to what a value holds, and that; None where it holds none."""
    kind = kind_of(type(value))
    if kind is not None:
        return None if kind.content is None and not isinstance(value, set | frozenset) else _held(value, kind)
    if isinstance(value, dict):
        return iter(value.items())
    if isinstance(value, list | tuple) and not isinstance(value, ExtType):
        return enumerate(value)
    return None


def _held(value: Any, kind: Kind) -> Iterator[tuple[object, object]]:
    """Give what travels in the place of a value that MessagePack itself has no form for."""
    if kind.content is None:
        return ((_INSIDE, item) for item in value)
    # After the name.
    content = kind.content(value)[1]
    if is_dataclass(value) and isinstance(content, dict) and kind.held is not None:
        return ((_Step(f".{name}"), item) for name, item in content.items())
    if kind.held is not None:
        return enumerate(content)
    return iter([(_INSIDE, content)])


def _problem_of_keys(value: object, pack: Callable[[Any], object]) -> str | None:
    if isinstance(value, dict) and kind_of(type(value)) is None:
        for key in value:
            if _is_simple(key):
                continue
            if (
                isinstance(key, tuple | list | dict)
                and not isinstance(key, ExtType)
                and not kind_of(type(key))
            ):
                arrives = "dict" if isinstance(key, dict) else "list"
                problem: str | None = f"would arrive as a {arrives}, and so can be no key"
            else:
                problem = _problem(key, pack)
            if problem is not None:
                return f"has the key {shown(key, 50)}, which {problem}"
    return None


def _problem(value: Any, pack: Callable[[Any], object]) -> str | None:
    """Say why a value can't be packed; None where it can."""
    kind = kind_of(type(value))
    is_memory = isinstance(value, bytes | bytearray | memoryview)
    if is_memory or (kind is not None and kind.in_place is not None):
        size = memoryview(value).nbytes if is_memory else value.nbytes
        if size > _LARGEST_SIZE:
            return (
                f"has {size:,} bytes, and messages hold up to {_LARGEST_SIZE:,} in one value: "
                "send it in parts"
            )
        if isinstance(value, memoryview) and not value.c_contiguous:
            return "is a memoryview whose bytes don't lie side by side: send bytes(view)"
        if is_memory:
            return None
    try:
        pack(value)
    except UnicodeEncodeError as error:
        return f"is a str that UTF-8 can't express: {error.object[error.start]!r} at {error.start:,}"
    except Exception as error:
        if isinstance(value, int):
            return f"is an int of {value.bit_length():,} bits: messages hold -2**63 to 2**64 - 1"
        of = type(value)
        name = of.__qualname__ if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"
        if kind is None and not isinstance(value, dict | list | tuple):
            return f"is of type {name}, which messages don't hold: {_remedy(value)}"
        why = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        return f"is of type {name}, and can't be sent: {why}{shown(error, 200, str)}"
    return None


def _remedy(value: object) -> str:
    """Say what to do about a value of a type that messages don't hold."""
    if isinstance(value, Awaitable):
        return "await it, and send what that gives"
    if isinstance(value, AsyncIterable):
        return "send what `async for` gives of it"
    if isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType):
        return "no code is sent, but a name can be"
    send = "what it consists of"
    if isinstance(value, Mapping):
        send = "dict(value)"
    elif isinstance(value, Iterable):
        send = "list(value)"
    return f"send {send}, or have both sides call register_type({type(value).__name__}, ...)"


def _path(steps: list[object]) -> str:
    told = [_told(step) for step in steps[:_FIRST_STEPS]]
    if len(steps) > _FIRST_STEPS + _LAST_STEPS:
        told.append(f"...{len(steps) - _FIRST_STEPS - _LAST_STEPS:,} more...")
    told += [_told(step) for step in steps[_FIRST_STEPS:][-_LAST_STEPS:]]
    return "".join(told)


def _told(step: object) -> str:
    return shown(step, 50, str) if isinstance(step, _Step) else f"[{shown(step, 50)}]"
