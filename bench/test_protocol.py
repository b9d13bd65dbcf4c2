"""Message to bytes and back, beside what plain Tornado programs do: msgpack and a search for the end."""

import os

import msgpack
import pytest

from bench.peers.tornado_classic import SENTINEL
from fastcore._framing import MessageBuffer
from fastcore._header import read_header
from fastcore._wire import decode, encode

MESSAGES = {
    "small": {"op": "add", "x": 1, "y": 2},
    "64 KiB": {"op": "echo", "data": os.urandom(64 * 1024)},
    "1 MiB": {"op": "echo", "data": os.urandom(1024 * 1024)},
}

messages = pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)


def pack_plain(message: object) -> bytes:
    return bytes(4) + msgpack.packb(message) + SENTINEL


def pack_whole(message: object) -> bytes:
    packed = encode(message)
    return packed if isinstance(packed, bytes) else b"".join(packed)


def unpack_plain(data: bytes) -> object:
    frame = data[: data.find(SENTINEL)]
    header = int.from_bytes(frame[:4], "little")
    return msgpack.unpackb(memoryview(frame)[4 + header :], strict_map_key=False)


class Unpacker:
    """As a connection does it: received into the buffer's memory, taken out of it."""

    def __init__(self) -> None:
        self.buffer = MessageBuffer(read_header)

    def __call__(self, data: bytes) -> object:
        rest = memoryview(data)
        while rest:
            lent = self.buffer.prepare(len(rest))
            size = min(len(lent), len(rest))
            lent[:size] = rest[:size]
            self.buffer.commit(size)
            rest = rest[size:]
        parts = self.buffer.next_message()
        assert parts is not None
        return decode(*parts)


@messages
@pytest.mark.parametrize("pack", [encode, pack_plain], ids=["fastcore", "plain"])
def test_pack(benchmark, pack, message):
    benchmark.group = f"pack {len(pack_plain(message)):,} bytes"
    benchmark(pack, message)


@messages
def test_unpack_fastcore(benchmark, message):
    benchmark.group = f"unpack {len(pack_plain(message)):,} bytes"
    assert benchmark(Unpacker(), pack_whole(message)) == message


@messages
def test_unpack_plain(benchmark, message):
    benchmark.group = f"unpack {len(pack_plain(message)):,} bytes"
    assert benchmark(unpack_plain, pack_plain(message)) == message
