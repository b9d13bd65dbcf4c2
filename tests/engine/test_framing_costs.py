"""Hostile input is linear: counted, in a build that counts (`make test-debug`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

from fastcore._buffer import work_done
from fastcore._framing import SENTINEL, FrameBuffer, MessageBuffer
from helpers.differential import CollectingSink

pytestmark = pytest.mark.skipif(work_done() is None, reason="only a debug build counts")

MB = 1024 * 1024
# Times that a byte may be looked at, and moved, on average and whatever the input is.
EXAMINED = 4
MOVED = 4

LONG_SENTINEL = bytes(range(1, 256))
SENTINELS = [SENTINEL, b"\r\n\r\n", b"\n", b"ab", b"aab aab", b"a" * 32, b"ab" * 16, LONG_SENTINEL]


def run(buffer: FrameBuffer, chunks: Iterable[bytes], take: Callable[[], object]) -> tuple[float, float]:
    """What was examined and moved for each byte fed."""
    examined, moved = work_done()
    size = 0
    for chunk in chunks:
        buffer.feed(chunk)
        size += len(chunk)
        while take() is not None:
            pass
    examined_now, moved_now = work_done()
    return (examined_now - examined) / size, (moved_now - moved) / size


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def hostile(sentinel: bytes) -> dict[str, bytes]:
    near = sentinel[:-1] + bytes([sentinel[-1] ^ 1])
    beginning = sentinel[:4].ljust(len(sentinel) - 3, b"?")
    return {
        "one byte": sentinel[:1] * MB,
        "prefixes": (sentinel[:-1] or b"?") * (MB // len(sentinel)),
        "one byte wrong at the end": near * (MB // len(sentinel)),
        "first four bytes again and again": beginning * (MB // len(beginning)),
        "sentinels alone": sentinel * (MB // len(sentinel)),
    }


@pytest.mark.slow_under_valgrind
@pytest.mark.parametrize("piece", [1, 7, 64 * 1024])
@pytest.mark.parametrize("sentinel", SENTINELS, ids=lambda s: f"{s[:8]!r}x{len(s)}")
@pytest.mark.parametrize("what", hostile(b"ab"))
def test_each_byte_is_looked_at_a_bounded_number_of_times(what: str, sentinel: bytes, piece: int):
    data = hostile(sentinel)[what]
    if piece == 1:
        data = data[: 100 * 1024]
    buffer = FrameBuffer(sentinel)
    # A short sentinel is compared at each place, one longer than a stride at each stride.
    bound = len(sentinel) + 1 if 2 <= len(sentinel) < 8 else EXAMINED + len(sentinel) // 64
    examined, moved = run(buffer, in_pieces(data, piece), buffer.next_frame)
    assert examined <= bound
    assert moved <= MOVED


def test_the_usual_search_looks_at_one_byte_in_seven():
    buffer = FrameBuffer()
    examined, _ = run(buffer, in_pieces(b"x" * 10 * MB, 64 * 1024), buffer.next_frame)
    assert examined <= 4 / 29 + 0.01


@pytest.mark.slow_under_valgrind
def test_ten_million_frames_of_one_byte_are_linear():
    buffer = FrameBuffer(b"\n")
    examined, moved = run(buffer, [b"x\n" * 1_000_000] * 10, buffer.next_frame)
    assert examined <= 1
    assert moved <= 1


@pytest.mark.slow_under_valgrind
def test_one_byte_received_at_a_time_is_moved_a_bounded_number_of_times():
    buffer = FrameBuffer()
    examined, moved = work_done()
    size = 100_000
    for _ in range(size):
        buffer.prepare()[0] = ord("x")
        buffer.commit(1)
        assert buffer.next_frame() is None
    examined_now, moved_now = work_done()
    assert examined_now - examined <= EXAMINED * size
    assert moved_now - moved <= MOVED * size


def test_nested_claims_that_are_not_true_are_linear():
    nested = b"\6\0\0\0s50000" + SENTINEL
    errors = []

    def read_header(header: bytes) -> CollectingSink:
        return CollectingSink(int(header[1:]), step=4096)

    buffer = MessageBuffer(read_header)

    def take() -> object:
        try:
            return buffer.next_message()
        except ValueError as error:
            errors.append(error)
            return error

    data = nested * (MB // len(nested))
    examined, moved = run(buffer, in_pieces(data, 1000), take)
    assert len(errors) > 20_000
    assert examined <= EXAMINED
    assert moved <= MOVED


def test_a_payload_of_known_length_is_not_searched():
    buffer = MessageBuffer(lambda header: 10 * MB)
    data = b"\1\0\0\0h" + b"x" * 10 * MB + SENTINEL
    examined, _ = run(buffer, in_pieces(data, 64 * 1024), buffer.next_message)
    assert examined * len(data) < 100


def test_a_view_that_is_kept_costs_at_most_one_move():
    buffer = FrameBuffer()
    buffer.feed(b"kept" + SENTINEL)
    view = buffer.next_view()
    _, moved = run(buffer, in_pieces(b"x" * 10 * MB, 1000), buffer.next_frame)
    assert moved <= 1
    assert view == b"kept"
