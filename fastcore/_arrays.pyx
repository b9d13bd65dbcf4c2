"""Arrays and scalars of numpy. Imported only where the program itself has imported numpy.

A body is

    size of the head (2 bytes, big-endian)  head  zeros up to a multiple of 16  the array's own memory

where the head is the MessagePack of [dtype, shape, order]. A large array is sent from where it
lies, and received where it stays: the memory of the body becomes that of the array.
"""

import re
from functools import lru_cache

import msgpack
import numpy

from fastcore.logs import shown
from fastcore.values.kinds import Code, Kind

__all__ = ["KINDS"]

#: The memory of an array begins at a multiple of so many bytes, as no element needs more.
_ALIGNMENT = 16
#: The elements that a peer gets as nested lists; more of them would take it minutes, and gigabytes.
_MAX_AS_LIST = 100_000
#: Structures within each other in a dtype, and the fields of one.
_MAX_NESTING = 8
_MAX_FIELDS = 1_000
_MAX_DIMENSIONS = 64
#: Bytes of a head that is worth keeping.
_MAX_KEPT_HEAD = 100
_DTYPE = re.compile(r"[<>|][biufcSUVmM][1-9]\d{0,8}(?:\[\d{0,9}[A-Za-z]{1,2}\])?")


# ---- what its elements are


def _describe(dtype):
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
    names = dtype.names or ()
    fields = dtype.fields
    if any(len(fields[name]) > 2 for name in names):
        raise ValueError("the fields of its dtype have titles, which don't travel")
    parts = [_describe(fields[name][0]) for name in names]
    return [[*names], parts, [fields[name][1] for name in names], dtype.itemsize]


cdef object _dtype(object described, int depth):
    """Make the dtype that a head describes, which a stranger may have made."""
    cdef list parts
    if type(described) is str and _DTYPE.fullmatch(described):
        return numpy.dtype(described)
    if depth < _MAX_NESTING and type(described) is list:
        parts = described
        if len(parts) == 2:
            return numpy.dtype((_dtype(parts[0], depth + 1), _shape(parts[1])))
        if len(parts) == 4:
            return _structure(parts[0], parts[1], parts[2], parts[3], depth)
    raise ValueError(f"{shown(described)} describes no dtype")


cdef object _structure(object names, object formats, object offsets, object itemsize, int depth):
    if not type(names) is type(formats) is type(offsets) is list or len(names) > _MAX_FIELDS:
        raise ValueError("the fields of its dtype aren't lists, or too many")
    if not len(names) == len(formats) == len(offsets):
        raise ValueError("the fields of its dtype aren't as many as their names")
    if not _are(str, names) or not _are(int, offsets) or type(itemsize) is not int:
        raise ValueError("the fields of its dtype have no names, or no places")
    cdef list parts = [_dtype(part, depth + 1) for part in <list> formats]
    return numpy.dtype({"names": names, "formats": parts, "offsets": offsets, "itemsize": itemsize})


cdef tuple _shape(object described):
    if type(described) is not list or len(described) > _MAX_DIMENSIONS or not _are(int, described):
        raise ValueError(f"{shown(described)} is no shape")
    for length in <list> described:
        if length < 0:
            raise ValueError(f"{shown(described)} is no shape")
    return tuple(described)


cdef bint _are(object kind, list values):
    """Whether all values are of one type."""
    for value in values:
        if type(value) is not kind:
            return False
    return True


# ---- arrays


def _in_pieces(array):
    """Give what stands before an array's memory in the body, and that: its own, if it lies in one piece."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    before = _head(array.dtype, array.shape, order)
    flat = (array.T if order == "F" else _in_one_piece(array)).reshape(-1)
    # Not every dtype can be viewed as memory, but bytes can.
    memory = flat.view(numpy.ndarray).view(numpy.uint8)
    return before, memoryview(memory)


cdef bytes _head(object dtype, tuple shape, str order):
    # Dtypes that differ in these may have the same hash, and to compare two takes numpy long.
    unit = dtype.str if dtype.kind in "mM" else None
    return _kept_head(shape, order, dtype.itemsize, unit, dtype)


# A program has few dtypes, and many scalars.
@lru_cache(256)
def _kept_head(shape, order, itemsize, unit, dtype):
    if not itemsize:
        raise ValueError("its elements have no bytes")
    head = msgpack.packb([_describe(dtype), list(shape), order])
    if len(head) > 0xFFFF:
        raise ValueError("its dtype has too many fields")
    before = len(head).to_bytes(2, "big") + head
    return before + bytes(-len(before) % _ALIGNMENT)


def _in_one_piece(array):
    if array.flags.c_contiguous:
        return array
    # Between the fields of a structure may be bytes that nobody writes: those of some other
    # object that was here before are nobody's business.
    copied = numpy.zeros(array.shape, array.dtype)
    copied[...] = array
    return copied


def _pack(array, inner):
    return b"".join(_in_pieces(array))


def _read_head(head):
    """Give dtype, shape and order."""
    # Nothing in a head is a map, whose keys a stranger could choose to be slow.
    described = msgpack.unpackb(head, max_map_len=0)
    if not isinstance(described, list) or len(described) != 3 or described[2] not in ("C", "F"):
        raise ValueError("its head isn't a dtype, a shape and an order")
    return _dtype(described[0], 0), _shape(described[1]), described[2]


#: Kept for the next, where it has few bytes: those of scalars are mostly the same.
_read_short_head = lru_cache(256)(_read_head)


def _unpack(body, inner):
    cdef Py_ssize_t length = len(body)
    cdef Py_ssize_t size = 2 + (body[0] << 8 | body[1]) if length > 1 else 2
    cdef Py_ssize_t start = size + (_ALIGNMENT - size % _ALIGNMENT) % _ALIGNMENT
    if start > length:
        raise ValueError("it ends before its head does")
    head = bytes(body[2:size])
    dtype, shape, order = (_read_short_head if size <= _MAX_KEPT_HEAD else _read_head)(head)
    # Else a few bytes would become as many elements, or point at memory, as they like.
    bytes_of_all = dtype.itemsize
    for each in <tuple> shape:
        bytes_of_all *= each
    if dtype.hasobject or not dtype.itemsize or bytes_of_all != length - start:
        raise ValueError(f"{length - start:,} bytes aren't an array of {shape} {dtype}")
    if type(body) is not bytearray:
        # That memory is somebody else's; an array is its receiver's, to write to.
        body = bytearray(body)
    return numpy.ndarray(shape, dtype, body, start, order=order)


def _plain(array):
    if array.size > _MAX_AS_LIST:
        raise ValueError(
            f"it has {array.size:,} elements, and the peer knows no arrays; send array.tobytes()"
        )
    return (array.astype(str) if array.dtype.kind in "mM" else array).tolist()


# ---- scalars


def _pack_scalar(scalar, inner):
    if scalar.dtype.itemsize:
        body = scalar.tobytes()
        return _head(scalar.dtype, (), "C") + body
    # An empty text: as an array, it has room for one character.
    return _pack(numpy.asarray(scalar), inner)


def _unpack_scalar(body, inner):
    array = _unpack(body, inner)
    if array.shape:
        raise ValueError(f"it has the shape {array.shape}")
    return array[()]


def _plain_scalar(scalar):
    return _plain(numpy.asarray(scalar))


_ARRAY = Kind(Code.ARRAY, "numpy array", _pack, _unpack, _plain, _in_pieces)
_SCALAR = Kind(Code.SCALAR, "numpy scalar", _pack_scalar, _unpack_scalar, _plain_scalar)


def _scalars(above):
    below = above.__subclasses__()
    return [above, *(each for kind in below for each in _scalars(kind))]


#: How each type travels. A file in memory arrives as memory.
KINDS = {
    numpy.ndarray: _ARRAY,
    numpy.memmap: _ARRAY,
    **{
        scalar: _SCALAR
        for scalar in _scalars(numpy.generic)
        if scalar.__module__ == "numpy" and scalar is not numpy.object_
    },
}
