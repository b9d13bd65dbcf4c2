"""Which types travel as extensions, and as which: those of Python, of numpy, and a program's own."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, overload

from msgpack import ExtType

from fastcore.engine_errors import BadMessage
from fastcore.logs import shown
from fastcore.values.kinds import Code, Inner, Kind, Memory

__all__ = ["kind_of", "kind_of_ext", "known_exts", "register_type", "to_ext", "to_plain"]

T = TypeVar("T")

#: How each type travels, as far as it was needed yet.
_kinds: dict[type, Kind] = {}
#: The kinds by the numbers of their extension types, those that a program's values have needed yet.
known_exts: dict[int, Kind] = {}
#: The types that this program has registered, by the name that they have on the wire.
_registered: dict[str, type] = {}
_readers: dict[str, Callable[[Any], Any]] = {}
#: Whether the kinds of Python's library, and those of numpy, are among them.
_knows_standard = _knows_numpy = False


def _learn() -> bool:
    """Load what could be lacking; False if nothing was.

    A program that sends only what MessagePack has never needs any of it. numpy is never imported
    here: who uses arrays has imported it, and a stranger shall not be able to.
    """
    global _knows_standard, _knows_numpy
    if not _knows_standard:
        # And what those import, being compiled: here it is seen by who reads imports to freeze a program.
        import datetime  # noqa: F401
        import decimal  # noqa: F401
        import pathlib  # noqa: F401
        import struct  # noqa: F401
        import uuid  # noqa: F401

        from fastcore import _paths, _standard  # noqa: F401

        _add(_standard.KINDS)
        _knows_standard = True
    elif not _knows_numpy and "numpy" in sys.modules:
        from fastcore import _arrays

        _add(_arrays.KINDS)
        _knows_numpy = True
    else:
        return False
    return True


def _add(kinds: dict[type, Kind]) -> None:
    # A program's own word on a type counts.
    _kinds.update({of: kind for of, kind in kinds.items() if of not in _kinds})
    known_exts.update({kind.code: kind for kind in kinds.values()})


def kind_of(of: type) -> Kind | None:
    """Give the way in which the values of a type travel, if there is one beside MessagePack's own."""
    kind = _kinds.get(of)
    while kind is None and not _knows_numpy and _learn():
        kind = _kinds.get(of)
    return kind


def to_ext(value: Any, inner: Inner) -> ExtType:
    """Give what MessagePack is to pack in the place of a value.

    Raises
    ------
    TypeError
        If its type isn't known.
    ValueError
        If it is one of those that can't be sent.
    """
    kind = kind_of(type(value))
    if kind is None:
        raise _unknown(value)
    return ExtType(kind.code, kind.to_body(value, inner))


def to_plain(value: Any) -> Any:
    """Give what MessagePack itself has in the place of a value, for a peer that reads nothing else."""
    kind = kind_of(type(value))
    if kind is None:
        raise _unknown(value)
    return kind.plain(value)


def kind_of_ext(code: int) -> Kind | None:
    """Give the kind of an extension type's values, if there is one: that in ``known_exts``, or one more."""
    kind = known_exts.get(code)
    while kind is None and not _knows_numpy and _learn():
        kind = known_exts.get(code)
    return kind


def _unknown(value: object) -> TypeError:
    name = type(value).__name__
    return TypeError(
        f"a {name} can't be sent: MessagePack has no form for it; send what it consists of, "
        f"or have both sides call fastcore.register_type({name}, ...)"
    )


# ---- a program's own types


@overload
def register_type(
    cls: type[T],
    *,
    name: str | None = None,
    pack: Callable[[T], Any] | None = None,
    unpack: Callable[[Any], T] | None = None,
) -> type[T]: ...


@overload
def register_type(
    cls: None = None,
    *,
    name: str | None = None,
    pack: Callable[[Any], Any] | None = None,
    unpack: Callable[[Any], Any] | None = None,
) -> Callable[[type[T]], type[T]]: ...


def register_type(
    cls: type[Any] | None = None,
    *,
    name: str | None = None,
    pack: Callable[[Any], Any] | None = None,
    unpack: Callable[[Any], Any] | None = None,
) -> Any:
    """Let the values of a type of yours be sent, and arrive as themselves. Serves as a decorator.

    Both sides register it. At one that hasn't, the values arrive as ``msgpack.ExtType``.

    Parameters
    ----------
    cls : type
        A dataclass, a named tuple or an enum, of which no more has to be said; or any other
        type, with ``pack`` and ``unpack``. It holds for this very type, not for its subclasses.
    name : str, optional
        What it is called on the wire, the same at both sides; its qualified name otherwise.
    pack : callable, optional
        Takes a value, and gives what it consists of: anything that can be sent.
    unpack : callable, optional
        Takes that, and gives the value. What it is given a stranger may have made; what it
        raises is the end of that message, and of no other.

    Returns
    -------
    type
        The same.

    Raises
    ------
    TypeError
        If it isn't clear what its values consist of.
    ValueError
        If another type has that name already.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from fastcore import register_type
    >>> @register_type
    ... @dataclass
    ... class Parcel:
    ...     item: str
    ...     count: int = 1

    >>> from fractions import Fraction
    >>> register_type(
    ...     Fraction, pack=lambda f: [f.numerator, f.denominator], unpack=lambda pair: Fraction(*pair)
    ... )
    <class 'fractions.Fraction'>
    """
    if cls is None:
        return lambda given: register_type(given, name=name, pack=pack, unpack=unpack)
    if not isinstance(cls, type):
        raise TypeError(f"register_type takes a type, not {shown(cls)}")
    if (pack is None) != (unpack is None):
        raise TypeError("pack= and unpack= come together: one undoes what the other does")
    held = None
    if pack is None or unpack is None:
        pack, unpack, held = _ways_of(cls)
    name = cls.__qualname__ if name is None else name
    other = _registered.get(name)
    # A cell of a notebook that runs again makes its classes anew.
    if other is not None and other is not cls and _place(other) != _place(cls):
        raise ValueError(f"{name!r} is the name of {other!r} on the wire already; give this one a name=")
    _registered[name] = cls
    _readers[name] = unpack
    plain = _value_of if issubclass(cls, enum.Enum) else pack
    _kinds[cls] = _kind_named(name, pack, plain, held)
    known_exts[Code.REGISTERED] = _READS_REGISTERED
    return cls


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _kind_named(
    name: str,
    pack: Callable[[Any], Any],
    plain: Callable[[Any], Any],
    held: Callable[[Any], list[Any]] | None,
) -> Kind:
    def content(value: Any) -> list[Any]:
        return [name, pack(value)]

    def to_body(value: Any, inner: Inner) -> bytes:
        return inner.pack(content(value), tuples=True)

    return Kind(Code.REGISTERED, name, to_body, _read_registered, plain, content=content, held=held)


def _read_registered(body: Memory, inner: Inner) -> Any:
    described = inner.unpack(body)
    if not isinstance(described, list) or len(described) != 2:
        raise ValueError("its body isn't a name and what it consists of")
    name, content = described
    reader = _readers.get(name) if isinstance(name, str) else None
    if reader is None:
        # A third of the price of its constructor, which looks at the same.
        return ExtType._make((_REGISTERED, bytes(body)))
    try:
        return reader(content)
    except Exception as error:
        raise BadMessage(f"a message holds a {name} that can't be made: {error}") from error


_REGISTERED: Final = int(Code.REGISTERED)
_READS_REGISTERED: Final = Kind(Code.REGISTERED, "registered value", lambda *_: b"", _read_registered, repr)


_Ways: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], list[Any]] | None]


def _ways_of(cls: type[Any]) -> _Ways:
    """Give the ways of a type's values to what they consist of, and back, and to what they hold."""
    if issubclass(cls, enum.Flag):
        return _value_of, lambda value: _flags(cls, value), None
    if issubclass(cls, enum.Enum):
        return _name_of, lambda name: _member(cls, name), None
    if dataclasses.is_dataclass(cls):
        return _ways_of_dataclass(cls)
    fields = getattr(cls, "_fields", None)
    if issubclass(cls, tuple) and isinstance(fields, tuple):
        return list, lambda values: _named_tuple(cls, len(fields), values), list
    raise TypeError(
        f"what does a {cls.__name__} consist of? It is no dataclass, named tuple or enum: "
        "say it with pack= and unpack="
    )


def _value_of(member: enum.Enum) -> Any:
    return member.value


def _name_of(member: enum.Enum) -> str:
    return member.name


def _flags(cls: type[enum.Flag], value: Any) -> enum.Flag:
    if type(value) is not int:
        raise ValueError(f"it is made of int, not of {type(value).__name__}")
    return cls(value)


def _member(cls: type[enum.Enum], name: Any) -> enum.Enum:
    member = cls.__members__.get(name) if isinstance(name, str) else None
    if member is None:
        raise ValueError(f"it has no member {shown(name)}")
    return member


def _named_tuple(cls: type, size: int, values: Any) -> Any:
    if not isinstance(values, list) or len(values) != size:
        raise ValueError(f"it has {size} fields")
    return cls(*values)


def _ways_of_dataclass(cls: Any) -> _Ways:
    fields = dataclasses.fields(cls)
    arguments = {field.name for field in fields if field.init}
    others = {field.name for field in fields if not field.init}
    asked_for = inspect.signature(cls).parameters.values()
    if any(each.name not in arguments and each.default is each.empty for each in asked_for):
        raise TypeError(f"{cls.__name__} is made of more than its fields: say of what with pack= and unpack=")

    def to_content(value: Any) -> dict[str, Any]:
        return {field.name: getattr(value, field.name) for field in fields}

    def from_content(content: Any) -> Any:
        if not isinstance(content, dict):
            raise ValueError(f"its fields are a {type(content).__name__}, not a dict")
        if arguments.issuperset(content):
            return cls(**content)
        if unknown := content.keys() - arguments - others:
            raise ValueError(f"it has no field {shown(min(unknown, key=repr))}")
        made = cls(**{name: content[name] for name in content.keys() & arguments})
        for name in content.keys() & others:
            object.__setattr__(made, name, content[name])
        return made

    def held(value: Any) -> list[Any]:
        return [getattr(value, field.name) for field in fields]

    return to_content, from_content, held
