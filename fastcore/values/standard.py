"""Times, numbers, sets and the like: what Python's own library has beside MessagePack's types.

A value of a subclass isn't sent as one of these: it would arrive as less than it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cache
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from struct import Struct, error
from typing import Any, Final
from uuid import UUID

from fastcore._values import are_chosen
from fastcore.values.kinds import Code, Inner, Kind, Memory

__all__ = ["KINDS"]

#: A Decimal's exponent is within the limits of Python's usual context: one that is far beyond
#: them costs nothing to send, and all memory to whoever makes an int of it.
_MAX_EXPONENT: Final = 999_999
_DECIMAL: Final = re.compile(rb"-?(?:\d+(?:\.\d*)?(?:E[+-]?\d{1,9})?|Infinity|s?NaN\d*)")
#: In fewer bytes there is no room for such a one.
_ROOM_FOR_EXPONENT: Final = len("1E999999")
#: Of so few bytes there are few values, and a message can hold many: each that can't change is made once. To
#: make the path of one letter costs Python 3.11 as much as to read a hundred and fifty.
_TINY: Final = 2
#: In a set of so many, it doesn't matter how badly they are chosen.
_FEW: Final = 32

_DATE: Final = Struct("!HBB")
_TIME: Final = Struct("!BBBIB")
_DATETIME: Final = Struct("!HBBBBBIB")
_OFFSET: Final = Struct("!q")
_TIMEDELTA: Final = Struct("!iII")
_COMPLEX: Final = Struct("!dd")
_MICROSECOND: Final = timedelta(microseconds=1)


def _fields(layout: Struct, body: Memory) -> tuple[Any, ...]:
    try:
        return layout.unpack(body)
    except error:
        raise ValueError(f"it has {len(body)} bytes, not {layout.size}") from None


# ---- times


def _offset_of(value: datetime | time) -> bytes:
    """Give the offset from UTC in microseconds; nothing for a naive one."""
    if value.tzinfo is None:
        return b""
    offset = value.utcoffset()
    if offset is None:
        raise ValueError(f"its zone, {value.tzinfo!r}, gives no offset from UTC without a date")
    return _OFFSET.pack(offset // _MICROSECOND)


def _zone(body: Memory) -> timezone | None:
    if not len(body):
        return None
    # Its limits are checked by timezone; UTC itself is the one that programs compare with `is`.
    offset = timedelta(microseconds=_fields(_OFFSET, body)[0])
    return timezone(offset) if offset else UTC


def _pack_datetime(value: datetime, inner: Inner) -> bytes:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return _DATETIME.pack(value.year, value.month, value.day, *clock) + _offset_of(value)


def _unpack_datetime(body: Memory, inner: Inner) -> datetime:
    *clock, fold = _fields(_DATETIME, body[: _DATETIME.size])
    return datetime(*clock).replace(tzinfo=_zone(body[_DATETIME.size :]), fold=fold)


def _pack_time(value: time, inner: Inner) -> bytes:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return _TIME.pack(*clock) + _offset_of(value)


def _unpack_time(body: Memory, inner: Inner) -> time:
    *clock, fold = _fields(_TIME, body[: _TIME.size])
    return time(*clock).replace(tzinfo=_zone(body[_TIME.size :]), fold=fold)


def _pack_date(value: date, inner: Inner) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _unpack_date(body: Memory, inner: Inner) -> date:
    return date(*_fields(_DATE, body))


def _pack_timedelta(value: timedelta, inner: Inner) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _unpack_timedelta(body: Memory, inner: Inner) -> timedelta:
    return timedelta(*_fields(_TIMEDELTA, body))


# ---- numbers


def _check_exponent(value: Decimal) -> None:
    if value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT:
        raise ValueError(f"its exponent is beyond {_MAX_EXPONENT:,}")


def _pack_decimal(value: Decimal, inner: Inner) -> bytes:
    _check_exponent(value)
    return str(value).encode()


def _unpack_decimal(body: Memory, inner: Inner) -> Decimal:
    return _tiny_decimal(bytes(body)) if len(body) <= _TINY else _read_decimal(body)


def _read_decimal(body: Memory) -> Decimal:
    if not _DECIMAL.fullmatch(body):
        raise ValueError("it isn't a number as str() writes it")
    value = Decimal(str(body, "ascii"))
    if len(body) >= _ROOM_FOR_EXPONENT:
        _check_exponent(value)
    return value


_tiny_decimal = cache(_read_decimal)


def _pack_complex(value: complex, inner: Inner) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _unpack_complex(body: Memory, inner: Inner) -> complex:
    return complex(*_fields(_COMPLEX, body))


# ---- names


def _unpack_uuid(body: Memory, inner: Inner) -> UUID:
    return UUID(bytes=bytes(body))


_POSIX, _WINDOWS = b"pw"


def _pack_path(value: PurePath, inner: Inner) -> bytes:
    if isinstance(value, PureWindowsPath):
        return b"w" + str(value).encode("utf-8", "surrogatepass")
    return b"p" + str(value).encode("utf-8", "surrogateescape")


def _unpack_path(body: Memory, inner: Inner) -> PurePath:
    return _tiny_path(bytes(body)) if len(body) <= _TINY else _read_path(body)


def _read_path(body: Memory) -> PurePath:
    flavour = body[0] if body else None
    if flavour == _POSIX:
        return PurePosixPath(str(body[1:], "utf-8", "surrogateescape"))
    if flavour == _WINDOWS:
        return PureWindowsPath(str(body[1:], "utf-8", "surrogatepass"))
    raise ValueError(f"{bytes(body[:1])!r} is no kind of path")


_tiny_path = cache(_read_path)


# ---- sets


def _pack_set(value: set[Any] | frozenset[Any], inner: Inner) -> bytes:
    # What can be hashed is no list, so there all lists were tuples.
    return inner.pack([*value])


def _items(body: Memory, inner: Inner) -> tuple[Any, ...]:
    items = inner.unpack(body, tuples=True)
    if not isinstance(items, tuple):
        raise ValueError(f"its items are a {type(items).__name__}")
    try:
        if len(items) > _FEW and are_chosen([hash(item) for item in items]):
            raise ValueError(f"it has {len(items):,} items that were chosen to collide")
    except TypeError as unhashable:
        raise ValueError(str(unhashable)) from None
    return items


def _unpack_set(body: Memory, inner: Inner) -> set[Any]:
    return set(_items(body, inner))


def _unpack_frozenset(body: Memory, inner: Inner) -> frozenset[Any]:
    return frozenset(_items(body, inner))


_SECONDS: Final[Callable[[timedelta], float]] = timedelta.total_seconds
_PATH = Kind(Code.PATH, "path", _pack_path, _unpack_path, str)

#: How each type travels.
KINDS: Final[dict[type, Kind]] = {
    datetime: Kind(Code.DATETIME, "datetime", _pack_datetime, _unpack_datetime, datetime.isoformat),
    date: Kind(Code.DATE, "date", _pack_date, _unpack_date, date.isoformat),
    time: Kind(Code.TIME, "time", _pack_time, _unpack_time, time.isoformat),
    timedelta: Kind(Code.TIMEDELTA, "timedelta", _pack_timedelta, _unpack_timedelta, _SECONDS),
    Decimal: Kind(Code.DECIMAL, "Decimal", _pack_decimal, _unpack_decimal, str),
    UUID: Kind(Code.UUID, "UUID", lambda value, inner: value.bytes, _unpack_uuid, str),
    complex: Kind(Code.COMPLEX, "complex", _pack_complex, _unpack_complex, lambda z: [z.real, z.imag]),
    PurePosixPath: _PATH,
    PureWindowsPath: _PATH,
    PosixPath: _PATH,
    WindowsPath: _PATH,
    set: Kind(Code.SET, "set", _pack_set, _unpack_set, list),
    frozenset: Kind(Code.FROZENSET, "frozenset", _pack_set, _unpack_frozenset, list),
}
