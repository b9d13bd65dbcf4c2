"""What a kind of value is: its number, and the way to its bytes and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, TypeAlias

__all__ = ["Code", "Inner", "Kind", "Memory"]

#: The body of an extension. A bytearray has been received for this value alone.
Memory: TypeAlias = bytes | bytearray | memoryview


class Code(IntEnum):
    """The numbers of the extension types; what they stand for is fixed in ``docs/values.md``."""

    DATETIME = 100
    DATE = 101
    TIME = 102
    TIMEDELTA = 103
    DECIMAL = 104
    UUID = 105
    COMPLEX = 106
    PATH = 107
    ARRAY = 108
    SCALAR = 109
    # The body of each from here on is one MessagePack value: ``_values.pyx`` looks into it.
    SET = 110
    FROZENSET = 111
    REGISTERED = 112
    TUPLE = 113


class Inner(Protocol):
    """Packs and unpacks what is inside of a value."""

    def pack(self, content: Any, tuples: bool = False) -> bytes:
        """Give the MessagePack of what is inside; with ``tuples`` one remains a tuple."""
        ...

    def unpack(self, body: Memory, tuples: bool = False) -> Any:
        """Read it; with ``tuples`` all that is a list there was a tuple."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How the values of a type travel.

    Parameters
    ----------
    code : Code
        The number of the extension type.
    name : str
        For people.
    to_body : callable
        Gives the bytes of a value. It raises ValueError for one that can't be sent.
    from_body : callable
        Gives the value of bytes that a stranger may have made: it takes no more time or
        memory than they deserve, and raises ValueError for those that are none.
    plain : callable
        Gives what a peer gets that knows no extension types.
    in_place : callable, optional
        Gives the bytes in two pieces, of which the second is the value's own memory. It is
        asked for where the value's ``nbytes`` are many.
    content : callable, optional
        Gives what MessagePack is the body of, for a kind whose values may hold large ones.
    held : callable, optional
        Gives the values that one holds, to look for large ones among them.
    """

    code: Code
    name: str
    to_body: Callable[[Any, Inner], bytes]
    from_body: Callable[[Memory, Inner], Any]
    plain: Callable[[Any], Any]
    in_place: Callable[[Any], tuple[bytes, memoryview]] | None = None
    content: Callable[[Any], list[Any]] | None = None
    held: Callable[[Any], list[Any]] | None = None
