"""Times, numbers, sets and the like: what Python's own library has beside MessagePack's types.

A value of a subclass isn't sent as one of these: it would arrive as less than it was.
"""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cache
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from struct import Struct, error
from uuid import UUID

from fastcore._paths import pack_path, unpack_path
from fastcore._values import are_chosen, is_decimal
from fastcore.values.kinds import Code, Kind

__all__ = ["KINDS"]

#: A Decimal's exponent is within the limits of Python's usual context: one that is far beyond
#: them costs nothing to send, and all memory to whoever makes an int of it.
_MAX_EXPONENT = 999_999
#: In fewer bytes there is no room for such a one.
_ROOM_FOR_EXPONENT = len("1E999999")
#: Of so few bytes there are few numbers, and a message can hold many: each is made once, and so is its hash,
#: which takes the longer the larger an exponent is.
_TINY = 2
_TINY_WITH_EXPONENT = 4
#: In a set of so many, it doesn't matter how badly they are chosen.
_FEW = 32
#: MessagePack of no items.
_NO_ITEMS = b"\x90"

_DATE = Struct("!HBB")
_TIME = Struct("!BBBIB")
_DATETIME = Struct("!HBBBBBIB")
_OFFSET = Struct("!q")
_TIMEDELTA = Struct("!iII")
_COMPLEX = Struct("!dd")
_MICROSECOND = timedelta(microseconds=1)


def _fields(layout, body):
    try:
        return layout.unpack(body)
    except error:
        raise ValueError(f"it has {len(body)} bytes, not {layout.size}") from None


# ---- times


def _offset_of(value):
    """Give the offset from UTC in microseconds; nothing for a naive one."""
    if value.tzinfo is None:
        return b""
    offset = value.utcoffset()
    if offset is None:
        raise ValueError(f"its zone, {value.tzinfo!r}, gives no offset from UTC without a date")
    return _OFFSET.pack(offset // _MICROSECOND)


def _zone(body):
    if not len(body):
        return None
    # Its limits are checked by timezone; UTC itself is the one that programs compare with `is`.
    offset = timedelta(microseconds=_fields(_OFFSET, body)[0])
    return timezone(offset) if offset else UTC


def _pack_datetime(value, inner):
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return _DATETIME.pack(value.year, value.month, value.day, *clock) + _offset_of(value)


def _unpack_datetime(body, inner):
    *clock, fold = _fields(_DATETIME, body[: _DATETIME.size])
    return datetime(*clock).replace(tzinfo=_zone(body[_DATETIME.size :]), fold=fold)


def _pack_time(value, inner):
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return _TIME.pack(*clock) + _offset_of(value)


def _unpack_time(body, inner):
    *clock, fold = _fields(_TIME, body[: _TIME.size])
    return time(*clock).replace(tzinfo=_zone(body[_TIME.size :]), fold=fold)


def _pack_date(value, inner):
    return _DATE.pack(value.year, value.month, value.day)


def _unpack_date(body, inner):
    return date(*_fields(_DATE, body))


def _pack_timedelta(value, inner):
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _unpack_timedelta(body, inner):
    return timedelta(*_fields(_TIMEDELTA, body))


# ---- numbers


def _check_exponent(value):
    if value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT:
        raise ValueError(f"its exponent is beyond {_MAX_EXPONENT:,}")


def _pack_decimal(value, inner):
    _check_exponent(value)
    return str(value).encode()


def _unpack_decimal(body, inner):
    body = bytes(body)
    is_tiny = len(body) <= _TINY or (len(body) <= _TINY_WITH_EXPONENT and b"E" in body)
    return _tiny_decimal(body) if is_tiny else _read_decimal(body)


def _read_decimal(body):
    if not is_decimal(body):
        raise ValueError("it isn't a number as str() writes it")
    value = Decimal(str(body, "ascii"))
    if len(body) >= _ROOM_FOR_EXPONENT:
        _check_exponent(value)
    return value


_tiny_decimal = cache(_read_decimal)


def _pack_complex(value, inner):
    return _COMPLEX.pack(value.real, value.imag)


def _unpack_complex(body, inner):
    return complex(*_fields(_COMPLEX, body))


# ---- names


def _unpack_uuid(body, inner):
    return UUID(bytes=bytes(body))


# ---- sets


def _pack_set(value, inner):
    if not value:
        return _NO_ITEMS
    # What can be hashed is no list, so there all lists were tuples.
    return inner.pack([*value])


cdef tuple _items(object body, object inner):
    if body == _NO_ITEMS:
        return ()
    items = inner.unpack(body, tuples=True)
    if type(items) is not tuple:
        raise ValueError(f"its items are a {type(items).__name__}")
    try:
        if len(items) > _FEW and are_chosen([hash(item) for item in <tuple> items]):
            raise ValueError(f"it has {len(items):,} items that were chosen to collide")
    except TypeError as unhashable:
        raise ValueError(str(unhashable)) from None
    return items


def _unpack_set(body, inner):
    return set(_items(body, inner))


def _unpack_frozenset(body, inner):
    return frozenset(_items(body, inner))


_SECONDS = timedelta.total_seconds
_PATH = Kind(Code.PATH, "path", pack_path, unpack_path, str)

#: How each type travels.
KINDS = {
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
