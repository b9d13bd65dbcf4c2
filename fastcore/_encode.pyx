"""Messages to bytes: MessagePack, and what stands around it on the wire.

The way back is in ``protocol.py``.
"""

from cpython.bytes cimport PyBytes_GET_SIZE

import struct

import msgpack

from fastcore._framing cimport frame

from fastcore._framing import SENTINEL
from fastcore._values import has_large
from fastcore.compressions import compressions

Piece = bytes | memoryview

cdef enum:
    # A payload from this many bytes on says its length: reading one more header then
    # costs less than searching the payload.
    TELL_LENGTH = 8 * 1024
    # A payload below this many bytes isn't worth compressing.
    COMPRESS = 1_000

_MAX_BIN = 2**32 - 1


# Making a Packer costs more than packing a small message, so one is kept for all.
cdef object _pack = msgpack.Packer(use_bin_type=True).pack
cdef bint _packing = False


cdef bytes pack(object message):
    global _packing
    if _packing:
        # What is being packed has methods of its own, and those led here or to another thread.
        return msgpack.packb(message, use_bin_type=True)
    _packing = True
    try:
        return _pack(message)
    finally:
        _packing = False


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
        of 256 KiB and more are views of the caller's own memory: they must not change
        until they are sent.

    Raises
    ------
    TypeError, ValueError, OverflowError
        If MessagePack can't express the message.

    Examples
    --------
    >>> encode(b'pong')
    b'\x00\x00\x00\x00\xc4\x04pong7d629535c4f3a6963f566af7d3e3a2d2'
    """
    cdef bytes payload
    cdef dict header = {}
    if compression is None and has_large(message):
        return _encode_large(message)
    payload = pack(message)
    if compression is not None:
        payload = _compress(payload, compression, header)
    elif PyBytes_GET_SIZE(payload) < TELL_LENGTH:
        whole = frame(payload)
        if whole is not None:
            return whole
    header["length"] = len(payload)
    return [_pack_header(header), payload, SENTINEL]


cdef bytes _compress(bytes payload, object compression, dict header):
    if PyBytes_GET_SIZE(payload) >= COMPRESS:
        compressed = compressions[compression].compress(payload)
        if len(compressed) < len(payload):
            header["compression"] = compression
            return compressed
    return payload


cdef bytes _pack_header(dict header):
    packed = pack(header)
    return struct.pack("<I", len(packed)) + packed


cdef list _encode_large(object message):
    packer = msgpack.Packer(use_bin_type=True, autoreset=False)
    pieces = []
    _pack_around(message, packer, pieces)
    pieces.append(packer.bytes())
    return [_pack_header({"length": sum(map(len, pieces))}), *pieces, SENTINEL]


cdef int _pack_around(object value, object packer, list pieces) except -1:
    """Pack a value into the packer, but put large binary values into pieces as they are."""
    if not has_large(value):
        packer.pack(value)
    elif isinstance(value, dict):
        packer.pack_map_header(len(value))
        for key, item in value.items():
            packer.pack(key)
            _pack_around(item, packer, pieces)
    elif isinstance(value, (list, tuple)):
        packer.pack_array_header(len(value))
        for item in value:
            _pack_around(item, packer, pieces)
    else:
        view = memoryview(value).cast("B")
        if len(view) > _MAX_BIN:
            raise ValueError(
                f"a binary value of {len(view):,} bytes can't be sent: MessagePack holds up to "
                f"{_MAX_BIN:,} bytes in one value; send it in parts"
            )
        pieces.append(packer.bytes() + struct.pack(">BI", 0xC6, len(view)))
        packer.reset()
        pieces.append(view)
    return 0
