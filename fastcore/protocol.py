"""Messages to bytes and back: header, MessagePack, compression, errors that cross the wire.

Knows no socket and no event loop. A message on the wire is

    header_length (4 bytes, little-endian)  header  payload  SENTINEL

where the header is a MessagePack map, left out when it has no keys, and the payload
is one MessagePack value. Two header keys are known: ``compression`` names the
algorithm of a compressed payload, and ``length`` says how many bytes the payload has,
so that a payload may hold any bytes, the sentinel too, and needn't be searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from fastcore._encode import Piece, encode
from fastcore._header import read_header, unpack_header
from fastcore._values import PayloadSink, is_deeper
from fastcore.compressions import compressions
from fastcore.engine_errors import BadMessage, FrameTooLarge, TooDeep
from fastcore.limits import MAX_DEPTH

if TYPE_CHECKING:
    from fastcore._framing import Sink

__all__ = ["Piece", "bad_payload", "compressions", "decode", "encode", "read_header"]

unpack = msgpack.unpackb


def decode(
    header: bytes,
    payload: bytes | memoryview | Sink,
    max_decompressed_size: int = 2**40,
    max_depth: int = MAX_DEPTH,
) -> Any:
    r"""Turn the parts of a frame back into the message.

    Parameters
    ----------
    header, payload
        As :meth:`fastcore._framing.MessageBuffer.next_message` gives them.
    max_decompressed_size : int
        Most bytes that a compressed payload may turn into.
    max_depth : int
        Most arrays and maps inside each other.

    Returns
    -------
    object
        The message.

    Raises
    ------
    BadMessage
        If the payload can't be decoded, or was compressed in a way that isn't known here.
    FrameTooLarge
        If it would be larger than ``max_decompressed_size``, or deeper than ``max_depth``.

    Examples
    --------
    >>> decode(b'', b'\xc4\x04pong')
    b'pong'
    """
    try:
        if isinstance(payload, PayloadSink):
            _check_depth(payload.skeleton, max_depth)
            return _decode_skeleton(payload)
        algorithm = unpack_header(header).get("compression") if header else None
        if algorithm is not None:
            payload = _decompress(algorithm, payload, max_decompressed_size)
        _check_depth(payload, max_depth)
        return unpack(payload, strict_map_key=False)
    except (BadMessage, FrameTooLarge):
        raise
    except Exception as error:
        raise bad_payload(error) from error


def _check_depth(payload: Any, limit: int) -> None:
    if is_deeper(payload, limit):
        raise TooDeep(limit)


def bad_payload(error: Exception) -> BadMessage:
    """Make the error for a payload that MessagePack refuses."""
    return BadMessage(f"the payload of a message can't be decoded: {error!r}")


def _decompress(algorithm: object, payload: Any, limit: int) -> bytes:
    try:
        decompress = compressions[algorithm].decompress  # type: ignore[index]
    except (KeyError, TypeError):
        raise BadMessage(
            f"a message is compressed with {algorithm!r}; known here: {', '.join(compressions)}"
        ) from None
    return decompress(payload, limit)


def _decode_skeleton(sink: PayloadSink) -> Any:
    values = iter(sink.values)

    def fill_in(code: int, data: bytes) -> object:
        value = next(values)
        return msgpack.ExtType(code, data) if value is None else value

    return unpack(sink.skeleton, strict_map_key=False, ext_hook=fill_in)
