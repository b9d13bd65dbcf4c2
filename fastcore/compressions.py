"""The compressions that a message can have, as far as they are installed here."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from fastcore.engine_errors import FrameTooLarge
from fastcore.logs import shown

__all__ = ["Compression", "check_compression", "compressions"]


class Compression(NamedTuple):
    """A compression that messages can have.

    ``decompress`` takes the bytes and the most bytes that may come out.
    """

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes | memoryview, int], bytes]


def _zlib_decompress(data: bytes | memoryview, limit: int) -> bytes:
    engine = zlib.decompressobj()
    result = engine.decompress(data, limit + 1)
    _check(len(result), limit)
    if not engine.eof:
        raise ValueError("the compressed payload is cut off")
    return result


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise FrameTooLarge("decompressed payload", size, limit, "max_decompressed_size")


def _find() -> Iterator[tuple[str, Compression]]:
    yield "zlib", Compression(zlib.compress, _zlib_decompress)
    try:
        import lz4.block
    except ImportError:
        pass
    else:

        def lz4_decompress(data: bytes | memoryview, limit: int) -> bytes:
            # The block begins with the size of what comes out.
            _check(int.from_bytes(data[:4], "little"), limit)
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
            _check(size, limit)
            return cast(bytes, snappy.decompress(bytes(data)))

        yield "snappy", Compression(snappy.compress, snappy_decompress)


#: The compressions that can be sent and understood here, by their name on the wire.
compressions: dict[str, Compression] = dict(_find())


def check_compression(name: str | None) -> None:
    """Raise the error for a compression that isn't there; None is none.

    Examples
    --------
    >>> check_compression('zip')  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: no compression 'zip' here: there are zlib...
    """
    if name is None or (isinstance(name, str) and name in compressions):
        return
    if not isinstance(name, str):
        raise TypeError(
            f"compression is a name or None, not {shown(name)}: there are {', '.join(compressions)}"
        )
    lacking = {"lz4", "snappy"} - compressions.keys()
    hint = f"; pip install 'fastcore-rpc[{name}]'" if name in lacking else ""
    raise ValueError(f"no compression {shown(name)} here: there are {', '.join(compressions)}{hint}")
