"""Small frames through the Python API, as bytes objects, from feeding to the last one."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from bench.streams import (
    by_asyncio,
    by_finding,
    by_iterating,
    by_next_frame,
    by_slicing,
    by_splitting,
    by_tornado,
)
from fastcore._framing import SENTINEL, MessageBuffer

COUNT = 1000
SIZES = {"64 bytes": 64, "1 KiB": 1024}

sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@sizes
@pytest.mark.parametrize(
    "way",
    [by_iterating, by_next_frame, by_splitting, by_finding, by_slicing, by_asyncio, by_tornado],
    ids=lambda way: way.__name__,
)
def test_split(benchmark, size: int, way: Callable):
    benchmark.group = f"split {COUNT:,} frames of {size:,} bytes"
    data = b"".join(os.urandom(size) + SENTINEL for _ in range(COUNT))
    assert benchmark(by_slicing(size) if way is by_slicing else way, data) == COUNT


@sizes
def test_messages(benchmark, size: int):
    benchmark.group = f"split {COUNT:,} frames of {size:,} bytes"
    data = b"".join(bytes(4) + os.urandom(size - 4) + SENTINEL for _ in range(COUNT))

    def run() -> int:
        buffer = MessageBuffer(len)
        buffer.feed(data)
        next_message = buffer.next_message
        count = 0
        while next_message() is not None:
            count += 1
        return count

    assert benchmark(run) == COUNT


def test_one_small_message_at_a_time(benchmark):
    benchmark.group = "one message of 50 bytes: prepare, commit, next_message"
    data = bytes(4) + os.urandom(50) + SENTINEL
    size = len(data)
    buffer = MessageBuffer(len)

    def run() -> object:
        buffer.prepare()[:size] = data
        buffer.commit(size)
        return buffer.next_message()

    assert benchmark(run) == (b"", data[4:54])
