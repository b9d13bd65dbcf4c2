"""Which value of a message can't be sent, and why: looked for once packing it has failed.

Nothing of this costs a message that can be packed. The walk looks at each value once, and
writes the way to the one that it finds only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from msgpack import ExtType

from fastcore.engine_errors import BadValue
from fastcore.limits import MAX_DEPTH
from fastcore.logs import shown

__all__ = ["find_bad_value"]

#: Of a long way, so many steps at its beginning and at its end are told.
_FIRST: Final = 8
_LAST: Final = 4
_LARGEST_SIZE: Final = 2**32 - 1


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
            inside = _items_of(value)
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
        return value.isascii()  # type: ignore[attr-defined, no-any-return]
    if kind is int:
        return -(2**63) <= value < 2**64  # type: ignore[operator]
    return kind is float or kind is bool or value is None


def _items_of(value: object) -> Iterator[tuple[object, object]] | None:
    if isinstance(value, dict):
        return iter(value.items())
    if isinstance(value, list | tuple) and not isinstance(value, ExtType):
        return enumerate(value)
    return None


def _problem_of_keys(value: object, pack: Callable[[Any], object]) -> str | None:
    if isinstance(value, dict):
        for key in value:
            if _is_simple(key):
                continue
            problem = _problem(key, pack)
            if isinstance(key, tuple) and problem is not None:
                problem = "would arrive as a list, and so can be no key"
            if problem is not None:
                return f"has the key {shown(key, 50)}, which {problem}"
    return None


def _problem(value: Any, pack: Callable[[Any], object]) -> str | None:
    """Say why a value can't be packed; None where it can."""
    if isinstance(value, bytes | bytearray | memoryview):
        size = memoryview(value).nbytes
        if size > _LARGEST_SIZE:
            return (
                f"has {size:,} bytes, and messages hold up to {_LARGEST_SIZE:,} in one value: "
                "send it in parts"
            )
        if isinstance(value, memoryview) and not value.c_contiguous:
            return "is a memoryview whose bytes don't lie side by side: send bytes(view)"
        return None
    try:
        pack(value)
    except UnicodeEncodeError as error:
        return f"is a str that UTF-8 can't express: {error.object[error.start]!r} at {error.start:,}"
    except Exception as error:
        if isinstance(value, int):
            return f"is an int of {value.bit_length():,} bits: messages hold -2**63 to 2**64 - 1"
        kind = type(value)
        name = (
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        )
        why = shown(error, 200, str)
        # MessagePack's own words say no more.
        reason = "" if why.startswith("can not serialize") else f" ({why})"
        return f"is of type {name}, which messages don't hold{reason}"
    return None


def _path(steps: list[object]) -> str:
    told = [f"[{shown(step, 50)}]" for step in steps[:_FIRST]]
    if len(steps) > _FIRST + _LAST:
        told.append(f"...{len(steps) - _FIRST - _LAST:,} more...")
    told += [f"[{shown(step, 50)}]" for step in steps[_FIRST:][-_LAST:]]
    return "".join(told)
