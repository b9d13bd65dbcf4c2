"""How others cut a stream into frames: the rivals of the engine's benchmarks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

from tornado.iostream import BaseIOStream, StreamClosedError

from fastcore._framing import SENTINEL, FrameBuffer


def by_iterating(data: bytes) -> int:
    buffer = FrameBuffer()
    buffer.feed(data)
    return sum(1 for _ in buffer)


def by_next_frame(data: bytes) -> int:
    buffer = FrameBuffer()
    buffer.feed(data)
    next_frame = buffer.next_frame
    count = 0
    while next_frame() is not None:
        count += 1
    return count


def by_splitting(data: bytes) -> int:
    return len(data.split(SENTINEL)) - 1


def by_finding(data: bytes) -> int:
    received = bytearray(data)
    head = count = 0
    while (found := received.find(SENTINEL, head)) >= 0:
        bytes(received[head:found])
        head = found + len(SENTINEL)
        count += 1
    return count


def by_slicing(size: int) -> Callable[[bytes], int]:
    """Not a rival but the floor: every frame's place is known."""

    def run(data: bytes) -> int:
        count = 0
        for head in range(0, len(data), size + len(SENTINEL)):
            data[head : head + size]
            count += 1
        return count

    return run


def by_asyncio(data: bytes) -> int:
    async def run() -> int:
        reader = asyncio.StreamReader(limit=len(data))
        reader.feed_data(data)
        reader.feed_eof()
        count = 0
        while True:
            try:
                await reader.readuntil(SENTINEL)
            except asyncio.IncompleteReadError:
                return count
            count += 1

    return asyncio.run(run())


class MemoryStream(BaseIOStream):
    """A Tornado stream whose other end is a bytes object."""

    def __init__(self, data: bytes) -> None:
        super().__init__(max_buffer_size=2 * len(data), read_chunk_size=64 * 1024)
        self.pieces = self.cut(memoryview(data))
        self.pipe = os.pipe()

    def cut(self, data: memoryview) -> Iterator[memoryview]:
        for start in range(0, len(data), self.read_chunk_size):
            yield data[start : start + self.read_chunk_size]

    def fileno(self) -> int:
        return self.pipe[0]

    def close_fd(self) -> None:
        for end in self.pipe:
            os.close(end)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        piece = next(self.pieces, None)
        if piece is None:
            self.close()
            return 0
        buf[: len(piece)] = piece
        return len(piece)


def by_tornado(data: bytes) -> int:
    async def run() -> int:
        stream = MemoryStream(data)
        count = 0
        while True:
            try:
                await stream.read_until(SENTINEL)
            except StreamClosedError:
                return count
            count += 1

    return asyncio.run(run())
