"""Messages to bytes and back: header, MessagePack, compression, errors that cross the wire.

Knows no socket and no event loop. A message on the wire is

    header_length (4 bytes, little-endian)  header  payload  SENTINEL

where the header is a MessagePack map, left out when it has no keys, and the payload
is one MessagePack value. Two header keys are known: ``compression`` names the
algorithm of a compressed payload, and ``length`` says how many bytes the payload has,
so that a payload may hold any bytes, the sentinel too, and needn't be searched.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgpack

from fastcore._framing import SENTINEL, frame
from fastcore._values import LARGE, PayloadSink, has_large, is_deeper
from fastcore.errors import BadMessage, FrameTooLarge, TooDeep
from fastcore.limits import MAX_DEPTH

if TYPE_CHECKING:
    from fastcore._framing import Sink

__all__ = ["Piece", "bad_payload", "compressions", "decode", "encode", "read_header"]

#: What a message consists of on its way out.
Piece: TypeAlias = bytes | memoryview

_HEADER_LENGTH = struct.Struct("<I")
_BIN32 = struct.Struct(">BI")
_MAX_BIN = 2**32 - 1

#: A payload from this many bytes on says its length: reading one more header then
#: costs less than searching the payload.
_TELL_LENGTH = 8 * 1024
#: A payload below this many bytes isn't worth compressing.
_COMPRESS = 1_000


class Compression(NamedTuple):
    """A compression that messages can have.

    ``decompress`` takes the bytes and the most bytes that may come out.
    """

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes | memoryview, int], bytes]


def _zlib_decompress(data: bytes | memoryview, limit: int) -> bytes:
    engine = zlib.decompressobj()
    result = engine.decompress(data, limit + 1)
    _check_decompressed(len(result), limit)
    if not engine.eof:
        raise ValueError("the compressed payload is cut off")
    return result


def _check_decompressed(size: int, limit: int) -> None:
    if size > limit:
        raise FrameTooLarge("decompressed payload", size, limit, "max_decompressed_size")


def _find_compressions() -> Iterator[tuple[str, Compression]]:
    yield "zlib", Compression(zlib.compress, _zlib_decompress)
    try:
        import lz4.block
    except ImportError:
        pass
    else:

        def lz4_decompress(data: bytes | memoryview, limit: int) -> bytes:
            # The block begins with the size of what comes out.
            _check_decompressed(int.from_bytes(data[:4], "little"), limit)
            result: bytes = lz4.block.decompress(data)
            return result

        yield "lz4", Compression(lz4.block.compress, lz4_decompress)
    try:
        import snappy
    except ImportError:
        pass
    else:

        def snappy_decompress(data: bytes | memoryview, limit: int) -> bytes:
            # The block begins with the size of what comes out, seven bits a byte.
            size = 0
            for position, byte in enumerate(bytes(data[:5])):
                size |= (byte & 0x7F) << 7 * position
                if byte < 0x80:
                    break
            _check_decompressed(size, limit)
            result: bytes = snappy.decompress(bytes(data))
            return result

        yield "snappy", Compression(snappy.compress, snappy_decompress)


#: The compressions that can be sent and understood here, by their name on the wire.
compressions: dict[str, Compression] = dict(_find_compressions())


class _Packers(threading.local):
    """A reused Packer for each thread: making one costs more than packing a small message."""

    def __init__(self) -> None:
        self.whole = msgpack.Packer(use_bin_type=True)
        self.parts = msgpack.Packer(use_bin_type=True, autoreset=False)


_packers = _Packers()
unpack = msgpack.unpackb


def encode(message: object, compression: str | None = None) -> bytes | list[Piece]:
    r"""Turn a message into the bytes that stand for it on the wire.

    Parameters
    ----------
    message : object
        Anything that MessagePack can express. A tuple arrives as a list.
    compression : str, optional
        A key of :data:`compressions`. Used where it makes the payload smaller.

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
    if compression is None:
        if has_large(message):
            return _encode_large(message)
        payload: bytes = _packers.whole.pack(message)
        if len(payload) < _TELL_LENGTH and (whole := frame(payload)) is not None:
            return whole
        header: dict[str, object] = {}
    else:
        payload, header = _compress(_packers.whole.pack(message), compression)
    header["length"] = len(payload)
    return [_pack_header(header), payload, SENTINEL]


def _compress(payload: bytes, compression: str) -> tuple[bytes, dict[str, object]]:
    if len(payload) >= _COMPRESS:
        compressed = compressions[compression].compress(payload)
        if len(compressed) < len(payload):
            return compressed, {"compression": compression}
    return payload, {}


def _pack_header(header: dict[str, object]) -> bytes:
    packed: bytes = _packers.whole.pack(header)
    return _HEADER_LENGTH.pack(len(packed)) + packed


def _encode_large(message: object) -> list[Piece]:
    packer = _packers.parts
    packer.reset()
    pieces: list[Piece] = []
    try:
        _pack_around(message, packer, pieces)
        pieces.append(packer.bytes())
    finally:
        packer.reset()
    length = sum(map(len, pieces))
    return [_pack_header({"length": length}), *pieces, SENTINEL]


def _pack_around(value: object, packer: msgpack.Packer, pieces: list[Piece]) -> None:
    """Pack a value into the packer, but put large binary values into pieces as they are."""
    if not has_large(value):
        packer.pack(value)
    elif isinstance(value, dict):
        packer.pack_map_header(len(value))
        for key, item in value.items():
            packer.pack(key)
            _pack_around(item, packer, pieces)
    elif isinstance(value, list | tuple):
        packer.pack_array_header(len(value))
        for item in value:
            _pack_around(item, packer, pieces)
    else:
        view = memoryview(value).cast("B")  # type: ignore[arg-type]
        if len(view) > _MAX_BIN:
            raise ValueError(
                f"a binary value of {len(view):,} bytes can't be sent: MessagePack holds up to "
                f"{_MAX_BIN:,} bytes in one value; send it in parts"
            )
        pieces.append(packer.bytes() + _BIN32.pack(0xC6, len(view)))
        packer.reset()
        pieces.append(view)


def read_header(header: bytes) -> int | Sink | None:
    """Tell the framing engine how long a payload is, if its header says so.

    Parameters
    ----------
    header : bytes
        The header of a message, without its length.

    Returns
    -------
    int, Sink or None
        The payload's length in bytes; or, for a long one, the sink that receives it;
        None if the payload ends at the first sentinel.

    Raises
    ------
    BadMessage
        If the bytes are no header.

    Examples
    --------
    >>> import msgpack
    >>> read_header(msgpack.packb({'length': 1000}))
    1000
    """
    fields = _unpack_header(header)
    length = fields.get("length")
    if length is None:
        return None
    if type(length) is not int or not 0 <= length < 2**63:
        raise BadMessage(f"the header's length is {length!r}, not a number of bytes")
    if length >= LARGE and "compression" not in fields:
        return PayloadSink(length)
    return length


def _unpack_header(header: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(header)
    except Exception as error:
        raise BadMessage(f"the header of a message can't be decoded: {error!r}") from error
    if not isinstance(fields, dict):
        raise BadMessage(f"the header of a message is a {type(fields).__name__}, not a map")
    return fields


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
        algorithm = _unpack_header(header).get("compression") if header else None
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
