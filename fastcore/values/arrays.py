"""Arrays and scalars of numpy. Imported only where the program itself has imported numpy.

A body is

    size of the head (2 bytes, big-endian)  head  zeros up to a multiple of 16  the array's own memory

where the head is the MessagePack of [dtype, shape, order]. A large array is sent from where it
lies, and received where it stays: the memory of the body becomes that of the array.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod
from typing import Any, Final

import msgpack
import numpy

from fastcore.logs import shown
from fastcore.values.kinds import Code, Inner, Kind, Memory

__all__ = ["KINDS"]

#: The memory of an array begins at a multiple of so many bytes, as no element needs more.
_ALIGNMENT: Final = 16
#: The elements that a peer gets as nested lists; more of them would take it minutes, and gigabytes.
_MAX_AS_LIST: Final = 100_000
#: Structures within each other in a dtype, and the fields of one.
_MAX_NESTING: Final = 8
_MAX_FIELDS: Final = 1_000
_MAX_DIMENSIONS: Final = 64
#: Bytes of a head that is worth keeping.
_MAX_KEPT_HEAD: Final = 100
_DTYPE: Final = re.compile(r"[<>|][biufcSUVmM][1-9]\d{0,8}(?:\[\d{0,9}[A-Za-z]{1,2}\])?")


# ---- what its elements are


def _describe(dtype: numpy.dtype[Any]) -> Any:
    """Give the head's form of a dtype: its text, or the fields of a structure."""
    if dtype.names is None and dtype.subdtype is None:
        text = dtype.str
        if dtype.hasobject or not _DTYPE.fullmatch(text) or numpy.dtype(text) != dtype:
            raise ValueError(
                f"its dtype is {dtype}, whose elements aren't plain memory; convert it with astype()"
            )
        return text
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_describe(base), list(shape)]
    names: tuple[str, ...] = dtype.names or ()
    fields: Any = dtype.fields
    if any(len(fields[name]) > 2 for name in names):
        raise ValueError("the fields of its dtype have titles, which don't travel")
    parts = [_describe(fields[name][0]) for name in names]
    return [[*names], parts, [fields[name][1] for name in names], dtype.itemsize]


def _dtype(described: Any, depth: int = 0) -> Any:
    """Make the dtype that a head describes, which a stranger may have made."""
    if isinstance(described, str) and _DTYPE.fullmatch(described):
        return numpy.dtype(described)
    if depth < _MAX_NESTING and isinstance(described, list) and len(described) == 2:
        return numpy.dtype((_dtype(described[0], depth + 1), _shape(described[1])))
    if depth < _MAX_NESTING and isinstance(described, list) and len(described) == 4:
        names, formats, offsets, itemsize = described
        if not all(isinstance(given, list) and len(given) <= _MAX_FIELDS for given in described[:3]):
            raise ValueError("the fields of its dtype aren't lists, or too many")
        if not all(isinstance(name, str) for name in names) or not all(
            type(size) is int for size in (*offsets, itemsize)
        ):
            raise ValueError("the fields of its dtype have no names, or no places")
        parts = [_dtype(part, depth + 1) for part in formats]
        return numpy.dtype({"names": names, "formats": parts, "offsets": offsets, "itemsize": itemsize})
    raise ValueError(f"{shown(described)} describes no dtype")


def _shape(described: Any) -> tuple[int, ...]:
    if not isinstance(described, list) or len(described) > _MAX_DIMENSIONS:
        raise ValueError(f"{shown(described)} is no shape")
    if not all(type(length) is int and length >= 0 for length in described):
        raise ValueError(f"{shown(described)} is no shape")
    return tuple(described)


# ---- arrays


def _in_pieces(array: numpy.ndarray[Any, Any]) -> tuple[bytes, memoryview]:
    """Give what stands before an array's memory in the body, and that: its own, if it lies in one piece."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    before = _head(array.dtype, array.shape, order)
    flat = (array.T if order == "F" else _in_one_piece(array)).reshape(-1)
    # Not every dtype can be viewed as memory, but bytes can.
    memory: Any = flat.view(numpy.ndarray).view(numpy.uint8)
    return before, memoryview(memory)


# A program has few dtypes, and many scalars.
@lru_cache(256)
def _head(dtype: numpy.dtype[Any], shape: tuple[int, ...], order: str) -> bytes:
    if not dtype.itemsize:
        raise ValueError("its elements have no bytes")
    head: Any = msgpack.packb([_describe(dtype), list(shape), order])
    if len(head) > 0xFFFF:
        raise ValueError("its dtype has too many fields")
    before: bytes = len(head).to_bytes(2, "big") + head
    return before + bytes(-len(before) % _ALIGNMENT)


def _in_one_piece(array: numpy.ndarray[Any, Any]) -> Any:
    if array.flags.c_contiguous:
        return array
    # Between the fields of a structure may be bytes that nobody writes: those of some other
    # object that was here before are nobody's business.
    copied = numpy.zeros(array.shape, array.dtype)
    copied[...] = array
    return copied


def _pack(array: numpy.ndarray[Any, Any], inner: Inner) -> bytes:
    return b"".join(_in_pieces(array))


def _read_head(head: bytes) -> tuple[Any, tuple[int, ...], Any]:
    """Give dtype, shape and order."""
    # Nothing in a head is a map, whose keys a stranger could choose to be slow.
    described = msgpack.unpackb(head, max_map_len=0)
    if not isinstance(described, list) or len(described) != 3 or described[2] not in ("C", "F"):
        raise ValueError("its head isn't a dtype, a shape and an order")
    return _dtype(described[0]), _shape(described[1]), described[2]


#: Kept for the next, where it has few bytes: those of scalars are mostly the same.
_read_short_head = lru_cache(256)(_read_head)


def _unpack(body: Memory, inner: Inner) -> numpy.ndarray[Any, Any]:
    size = 2 + int.from_bytes(body[:2], "big")
    start = size + -size % _ALIGNMENT
    if start > len(body):
        raise ValueError("it ends before its head does")
    head = bytes(body[2:size])
    dtype, shape, order = (_read_short_head if size <= _MAX_KEPT_HEAD else _read_head)(head)
    # Else a few bytes would become as many elements, or point at memory, as they like.
    if dtype.hasobject or not dtype.itemsize or prod(shape) * dtype.itemsize != len(body) - start:
        raise ValueError(f"{len(body) - start:,} bytes aren't an array of {shape} {dtype}")
    if not isinstance(body, bytearray):
        # That memory is somebody else's; an array is its receiver's, to write to.
        body = bytearray(memoryview(body)[start:])
        start = 0
    return numpy.ndarray(shape, dtype, body, start, order=order)


def _plain(array: numpy.ndarray[Any, Any]) -> Any:
    if array.size > _MAX_AS_LIST:
        raise ValueError(
            f"it has {array.size:,} elements, and the peer knows no arrays; send array.tobytes()"
        )
    return (array.astype(str) if array.dtype.kind in "mM" else array).tolist()


# ---- scalars


def _pack_scalar(scalar: numpy.generic, inner: Inner) -> bytes:
    if scalar.dtype.itemsize:
        body: bytes = scalar.tobytes()
        return _head(scalar.dtype, (), "C") + body
    # An empty text: as an array, it has room for one character.
    return _pack(numpy.asarray(scalar), inner)


def _unpack_scalar(body: Memory, inner: Inner) -> Any:
    array = _unpack(body, inner)
    if array.shape:
        raise ValueError(f"it has the shape {array.shape}")
    return array[()]


def _plain_scalar(scalar: numpy.generic) -> Any:
    return _plain(numpy.asarray(scalar))


_ARRAY: Final = Kind(Code.ARRAY, "numpy array", _pack, _unpack, _plain, _in_pieces)
_SCALAR: Final = Kind(Code.SCALAR, "numpy scalar", _pack_scalar, _unpack_scalar, _plain_scalar)


def _scalars(above: type[Any]) -> list[type[Any]]:
    below: list[type[Any]] = above.__subclasses__()
    return [above, *(each for kind in below for each in _scalars(kind))]


#: How each type travels. A file in memory arrives as memory.
KINDS: Final[dict[type, Kind]] = {
    numpy.ndarray: _ARRAY,
    numpy.memmap: _ARRAY,
    **{
        scalar: _SCALAR
        for scalar in _scalars(numpy.generic)
        if scalar.__module__ == "numpy" and scalar is not numpy.object_
    },
}
