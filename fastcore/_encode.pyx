"""Messages to bytes: MessagePack, and what stands around it on the wire.

A small message is one piece of bytes. A binary value of IN_PLACE bytes or more is never
copied: it is sent from the caller's own memory, between what was packed before it and
what was packed after it:

    header, packed up to the value  |  the value  |  packed after it, sentinel

Costs: each container on the way to such a value is looked through once for each container
around it, and packed item by item; whatever else a message holds is packed by msgpack at
once. The way back is in ``protocol.py``.
"""

from cpython.bytearray cimport PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.memoryview cimport PyMemoryView_Check

import msgpack

from fastcore._framing cimport frame
from fastcore._header cimport length_header

from fastcore._framing import SENTINEL
from fastcore.compressions import compressions

Piece = bytes | memoryview

#: From this many bytes on, a value isn't copied. It is no less than what leaves at once,
#: so that the value may change as soon as its writer is told to go on.
IN_PLACE = 64 * 1024

cdef enum:
    _IN_PLACE = 65_536
    # A payload from this many bytes on says its length: reading one more header then
    # costs less than searching the payload.
    _TELL_LENGTH = 8_192
    # A payload below this many bytes isn't worth compressing.
    _COMPRESS = 1_000
    # A Packer never gives its memory back, so it goes after a payload of more bytes.
    _FORGET = 1_048_576
    # Parts that are packed one by one are put together, at the latest, when there are so many.
    _MANY = 1_000
    # msgpack refuses to pack deeper than this, so nothing is looked for below it.
    _MAX_DEPTH = 1024

cdef object ExtType = msgpack.ExtType
cdef Py_ssize_t _MAX_BIN = 0xffff_ffff
cdef bytes _SENTINEL = SENTINEL

# Making a Packer costs more than packing a small message, so one is kept for all.
cdef object _pack = msgpack.Packer(use_bin_type=True).pack
cdef bint _packing = False
# Another one, as `_pack` may be at work when these are called.
_heads = msgpack.Packer()
cdef object _pack_map_header = _heads.pack_map_header
cdef object _pack_array_header = _heads.pack_array_header


cpdef object encode(object message, object compression=None):
    r"""Turn a message into the bytes that stand for it on the wire.

    Parameters
    ----------
    message : object
        Anything that MessagePack can express. A tuple arrives as a list.
    compression : str, optional
        A key of :data:`fastcore.compressions.compressions`. Used where it makes the
        payload smaller.

    Returns
    -------
    bytes, or list of bytes and memoryview
        One frame; a large one in pieces, to be sent one after the other. Binary values
        of 64 KiB and more are the caller's own, or views of them: they must not change
        until they are sent.

    Raises
    ------
    TypeError, ValueError, OverflowError
        If MessagePack can't express the message.

    Examples
    --------
    >>> encode(b'pong')
    b'\x00\x00\x00\x00\xc4\x04pong7d629535c4f3a6963f566af7d3e3a2d2'
    >>> [len(piece) for piece in encode({'op': 'put', 'data': bytes(IN_PLACE), 'n': 1})]
    [35, 65536, 35]
    """
    cdef bytes payload
    cdef Py_ssize_t size
    if compression is not None:
        return _compressed(pack(message), compression)
    if _find_in_place(message, _MAX_DEPTH) == FOUND:
        return _in_pieces(message)
    payload = pack(message)
    size = PyBytes_GET_SIZE(payload)
    if size < _TELL_LENGTH:
        whole = frame(payload)
        if whole is not None:
            return whole
    if size < _IN_PLACE:
        return b"".join((length_header(size), payload, _SENTINEL))
    return [length_header(size), payload, _SENTINEL]


cdef bytes pack(object message):
    global _pack, _packing
    cdef bytes payload
    if _packing:
        # What is being packed has methods of its own, and those led here or to another thread.
        return msgpack.packb(message, use_bin_type=True)
    _packing = True
    try:
        payload = _pack(message)
    finally:
        _packing = False
    if PyBytes_GET_SIZE(payload) > _FORGET:
        _pack = msgpack.Packer(use_bin_type=True).pack
    return payload


cdef list _compressed(bytes payload, object compression):
    cdef dict header = {}
    if PyBytes_GET_SIZE(payload) >= _COMPRESS:
        compressed = compressions[compression].compress(payload)
        if len(compressed) < len(payload):
            header["compression"] = compression
            payload = compressed
    header["length"] = len(payload)
    packed = pack(header)
    return [len(packed).to_bytes(4, "little") + packed, payload, _SENTINEL]


# ---- values that are sent from where they lie

cdef enum Search:
    MISSING
    FOUND
    # The message can't be packed; where it holds itself, the search would have no end.
    TOO_DEEP


cdef Search _find_in_place(object value, int depth) except? MISSING:
    """Whether a value is, or holds, one that isn't copied."""
    cdef object item
    cdef Search found
    if isinstance(value, (str, int, float)) or value is None:
        return MISSING
    if isinstance(value, bytes):
        return FOUND if PyBytes_GET_SIZE(value) >= _IN_PLACE else MISSING
    if isinstance(value, bytearray):
        return FOUND if PyByteArray_GET_SIZE(value) >= _IN_PLACE else MISSING
    if PyMemoryView_Check(value):
        return FOUND if value.nbytes >= _IN_PLACE else MISSING
    if depth == 0:
        return TOO_DEEP
    if isinstance(value, dict):
        for item in (<dict> value).values():
            found = _find_in_place(item, depth - 1)
            if found != MISSING:
                return found
    elif isinstance(value, list):
        for item in <list> value:
            found = _find_in_place(item, depth - 1)
            if found != MISSING:
                return found
    elif isinstance(value, tuple) and not isinstance(value, ExtType):
        for item in <tuple> value:
            found = _find_in_place(item, depth - 1)
            if found != MISSING:
                return found
    return MISSING


cdef list _in_pieces(object message):
    cdef list pieces = []
    # What comes after the last piece, in parts.
    cdef list parts = []
    _pack_around(message, parts, pieces, _MAX_DEPTH)
    parts.append(_SENTINEL)
    pieces.append(b"".join(parts))
    pieces[0] = length_header(size_of(pieces) - PyBytes_GET_SIZE(_SENTINEL)) + <bytes> pieces[0]
    return pieces


cdef Py_ssize_t size_of(list pieces) except -1:
    """All bytes of a frame."""
    cdef Py_ssize_t size = 0
    for piece in pieces:
        size += len(piece)
    return size


cdef int _pack_around(object value, list parts, list pieces, int depth) except -1:
    """Pack a value, but put the values in it that aren't copied into pieces as they are."""
    cdef object key, item
    cdef Search found = _find_in_place(value, depth)
    if found == TOO_DEEP:
        raise ValueError("recursion limit exceeded: a message is nested too deep, or holds itself")
    if PyList_GET_SIZE(parts) >= _MANY:
        _end_piece(parts, pieces)
    if found == MISSING:
        parts.append(pack(value))
    elif isinstance(value, dict):
        parts.append(_pack_map_header(len(value)))
        # A kind of dict may have items of its own; msgpack asks for them too.
        for key, item in value.items():
            parts.append(pack(key))
            _pack_around(item, parts, pieces, depth - 1)
    elif isinstance(value, (list, tuple)):
        parts.append(_pack_array_header(len(value)))
        for item in value:
            _pack_around(item, parts, pieces, depth - 1)
    else:
        piece = value if type(value) is bytes else memoryview(value).cast("B")
        parts.append(_bin_head(len(piece)))
        _end_piece(parts, pieces)
        pieces.append(piece)
    return 0


cdef int _end_piece(list parts, list pieces) except -1:
    pieces.append(b"".join(parts))
    parts.clear()
    return 0


cdef bytes _bin_head(Py_ssize_t size):
    """What stands before the bytes of a large value: the token bin 32."""
    cdef unsigned char head[5]
    cdef int i
    if size > _MAX_BIN:
        raise ValueError(
            f"a binary value of {size:,} bytes can't be sent: MessagePack holds up to "
            f"{_MAX_BIN:,} bytes in one value; send it in parts"
        )
    head[0] = 0xc6
    for i in range(4):
        head[4 - i] = size >> 8 * i & 0xff
    return PyBytes_FromStringAndSize(<char *> head, 5)
