"""Finding the sentinel, beside the C library's searches and the speed of memory.

The rows named C go over the buffer without Python, by ``engine_scan.c.in``; the others are
what a Python program sees. ``next_view`` is the search and one view for each frame.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.streams import by_asyncio, by_finding, by_splitting, by_tornado
from fastcore._framing import SENTINEL, FrameBuffer

ROOT = Path(__file__).parents[1]
SIZE = 8 * 1024 * 1024


def fill(pattern: bytes) -> bytes:
    return pattern * (SIZE // len(pattern))


CONTENTS = {
    # Without the byte that memchr is to look for in vain.
    "random": os.urandom(SIZE).replace(b"\xff", b"\xfe"),
    "hex digits": os.urandom(SIZE // 2).hex().encode(),
    "near-sentinels": fill(SENTINEL[:-1] + b"x"),
    "beginnings": fill(SENTINEL[:4] + b"-" * 25),
}
FRAME_SIZES = [64, 64 * 1024]

contents = pytest.mark.parametrize("content", CONTENTS)
frame_sizes = pytest.mark.parametrize("frame_size", FRAME_SIZES)


def framed(content: str, frame_size: int) -> bytes:
    data = CONTENTS[content]
    return b"".join(data[start : start + frame_size] + SENTINEL for start in range(0, SIZE, frame_size))


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("bench") / "engine_scan.so"
    command = [compiler, "-O3", "-shared", "-fPIC", "-I", str(ROOT / "fastcore"), "-o", str(library)]
    subprocess.run([*command, "-x", "c", str(ROOT / "bench" / "engine_scan.c.in")], check=True)
    functions = ctypes.CDLL(str(library))
    functions.use_sentinel(SENTINEL, ctypes.c_size_t(len(SENTINEL)))
    return functions


def name_group(benchmark, content: str, frame_size: int, size: int) -> None:
    benchmark.group = f"scan {content}, frames of {frame_size:,} bytes"
    benchmark.extra_info["bytes"] = size


@contents
@frame_sizes
@pytest.mark.parametrize("way", ["scanner", "memmem", "memchr", "memcpy"])
def test_c(benchmark, in_c: ctypes.CDLL, content: str, frame_size: int, way: str):
    data = framed(content, frame_size)
    name_group(benchmark, content, frame_size, len(data))
    function = getattr(in_c, f"with_{way}")
    function.restype = ctypes.c_size_t
    target = ctypes.create_string_buffer(len(data))
    count = benchmark(function, data, ctypes.c_size_t(len(data)), target)
    if way in ("scanner", "memmem"):
        assert count == data.count(SENTINEL)


@contents
@frame_sizes
def test_next_view(benchmark, content: str, frame_size: int):
    data = framed(content, frame_size)
    name_group(benchmark, content, frame_size, len(data))

    def fed() -> tuple[tuple[FrameBuffer], dict[str, object]]:
        buffer = FrameBuffer()
        buffer.feed(data)
        return (buffer,), {}

    def drain(buffer: FrameBuffer) -> int:
        count = 0
        next_view = buffer.next_view
        while next_view() is not None:
            count += 1
        return count

    assert benchmark.pedantic(drain, setup=fed, rounds=20) == data.count(SENTINEL)


@contents
@pytest.mark.parametrize(
    "way", [by_splitting, by_finding, by_asyncio, by_tornado], ids=lambda way: way.__name__
)
def test_python(benchmark, content: str, way: Callable[[bytes], int]):
    data = framed(content, 64 * 1024)
    name_group(benchmark, content, 64 * 1024, len(data))
    assert benchmark(way, data) == data.count(SENTINEL)
