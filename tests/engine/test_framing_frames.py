"""FrameBuffer: everything up to a sentinel is a frame."""

from __future__ import annotations

import pytest

from fastcore._framing import SENTINEL, FrameBuffer
from fastcore.errors import FrameTooLarge

SELF_OVERLAPPING = [b"aab aab", b"aa", b"aaaaaaaaaaaaaaaa", b"abcdefgh" * 8, b"ababababab" + b"c"]
ALL_LENGTHS = [bytes(range(1, size + 1)) for size in range(1, 256)]
FRAMES = [b"", b"one", SENTINEL[:-1], b"\0" * 100, SENTINEL[1:], b"x"]


def encoded(frames: list[bytes], sentinel: bytes = SENTINEL) -> bytes:
    return b"".join(frame + sentinel for frame in frames)


def test_the_sentinel_of_the_protocol_has_no_prefix_that_is_also_a_suffix():
    assert len(SENTINEL) == 32
    assert not any(SENTINEL.startswith(SENTINEL[start:]) for start in range(1, 32))


def test_every_cut_gives_the_same_frames():
    data = encoded(FRAMES)
    for first in range(len(data)):
        buffer = FrameBuffer()
        buffer.feed(data[:first])
        frames = list(buffer)
        buffer.feed(data[first:])
        assert frames + list(buffer) == FRAMES


def test_a_byte_at_a_time_gives_the_same_frames():
    buffer = FrameBuffer()
    frames = []
    for byte in encoded(FRAMES):
        buffer.feed(bytes([byte]))
        frames += buffer
    assert frames == FRAMES


def test_what_follows_the_last_sentinel_waits():
    buffer = FrameBuffer()
    buffer.feed(encoded([b"one"]) + b"tw")
    assert list(buffer) == [b"one"]
    assert len(buffer) == 2
    buffer.feed(b"o" + SENTINEL)
    assert buffer.next_frame() == b"two"
    assert len(buffer) == 0


@pytest.mark.parametrize("sentinel", SELF_OVERLAPPING + ALL_LENGTHS[::9], ids=lambda s: f"{len(s)} bytes")
def test_the_first_of_overlapping_sentinels_counts(sentinel: bytes):
    data = sentinel[:-1] + sentinel * 3 + b"-" + sentinel + sentinel[: len(sentinel) // 2] + sentinel
    expected = data.split(sentinel)
    buffer = FrameBuffer(sentinel)
    buffer.feed(data)
    assert list(buffer) == expected[:-1]
    assert len(buffer) == len(expected[-1])


@pytest.mark.parametrize("sentinel", ALL_LENGTHS, ids=len)
def test_any_length_of_sentinel_is_found_at_any_place(sentinel: bytes):
    for before in range(0, 2 * len(sentinel) + 70, 7):
        buffer = FrameBuffer(sentinel)
        buffer.feed(b"\xff" * before + sentinel)
        assert buffer.next_frame() == b"\xff" * before


@pytest.mark.parametrize("sentinel", [SENTINEL, b"\r\n", b"aab", b"aab aab", b"a" * 32], ids=repr)
@pytest.mark.parametrize("filler", [b"-", b"a", b"aab aa-"])
def test_a_sentinel_is_found_at_any_place_of_a_longer_frame(sentinel: bytes, filler: bytes):
    for size in range(300):
        data = (filler * 300)[:size] + b"." + sentinel
        buffer = FrameBuffer(sentinel)
        buffer.feed(data)
        assert list(buffer) == data.split(sentinel)[:-1]


def test_a_view_is_the_frame_in_place_and_read_only():
    buffer = FrameBuffer()
    buffer.feed(encoded([b"one", b""]))
    view = buffer.next_view()
    assert view == b"one"
    assert view.readonly
    assert (view.format, view.itemsize, view.contiguous) == ("B", 1, True)
    assert buffer.next_view() == b""
    assert buffer.next_view() is None


def test_memory_that_is_lent_takes_any_number_of_the_bytes():
    buffer = FrameBuffer()
    for part in (b"", b"on", b"", b"e" + SENTINEL + b"t", b"wo" + SENTINEL):
        memory = buffer.prepare(1)
        assert not memory.readonly
        assert len(memory) >= 1
        while part:
            size = min(len(memory), len(part))
            memory[:size] = part[:size]
            buffer.commit(size)
            part = part[size:]
            memory = buffer.prepare()
        buffer.commit(0)
    assert list(buffer) == [b"one", b"two"]


@pytest.mark.parametrize("hint", [-1, 0, 1, 100, 10_000_000])
def test_lent_memory_is_never_empty_whatever_is_asked_for(hint: int):
    buffer = FrameBuffer()
    buffer.feed(b"x" * 1000)
    assert len(buffer.prepare(hint)) > 0


def test_any_bytes_like_object_can_be_fed():
    buffer = FrameBuffer(b"-")
    for data in (b"a-", bytearray(b"b-"), memoryview(b"c-"), memoryview(b"d-d-")[::1]):
        buffer.feed(data)
    assert list(buffer) == [b"a", b"b", b"c", b"d", b"d"]


def test_bytes_that_do_not_lie_in_one_piece_are_refused():
    buffer = FrameBuffer(b"-")
    with pytest.raises(BufferError):
        buffer.feed(memoryview(b"a-b-")[::2])
    with pytest.raises(TypeError):
        buffer.feed("a-")
    buffer.feed(b"a-")
    assert list(buffer) == [b"a"]


def test_clearing_drops_what_is_held():
    buffer = FrameBuffer()
    buffer.feed(b"one" + SENTINEL[:10])
    buffer.clear()
    assert len(buffer) == 0
    buffer.feed(SENTINEL[10:] + SENTINEL)
    assert buffer.next_frame() == SENTINEL[10:]


class TestLimit:
    def test_a_frame_at_the_limit_comes(self):
        buffer = FrameBuffer(max_frame_size=1000)
        buffer.feed(encoded([b"x" * 1000]))
        assert buffer.next_frame() == b"x" * 1000

    def test_the_frames_before_one_over_the_limit_come_first(self):
        buffer = FrameBuffer(max_frame_size=1000)
        buffer.feed(encoded([b"one", b"x" * 1001, b"two"]))
        assert buffer.next_frame() == b"one"
        with pytest.raises(FrameTooLarge):
            buffer.next_frame()

    def test_the_error_says_size_limit_and_how_to_raise_it(self):
        buffer = FrameBuffer(max_frame_size=1000)
        buffer.feed(encoded([b"x" * 1500]))
        with pytest.raises(
            FrameTooLarge, match=r"frame of 1,500 bytes .* limit of 1,000 bytes.*max_frame_size="
        ):
            buffer.next_frame()

    def test_nobody_waits_for_the_sentinel_of_a_frame_over_the_limit(self):
        buffer = FrameBuffer(max_frame_size=1000)
        buffer.feed(b"x" * (1000 + len(SENTINEL) - 1))
        assert buffer.next_frame() is None
        buffer.feed(b"x")
        with pytest.raises(FrameTooLarge):
            buffer.next_frame()

    def test_where_the_bytes_are_cut_makes_no_difference(self):
        for size in (999, 1000, 1001):
            data = encoded([b"x" * size])
            for place in range(0, len(data), 3):
                buffer = FrameBuffer(max_frame_size=1000)
                try:
                    buffer.feed(data[:place])
                    frame = buffer.next_frame()
                    buffer.feed(data[place:])
                    frame = frame or buffer.next_frame()
                except FrameTooLarge:
                    frame = None
                assert (frame is not None) == (size <= 1000)

    def test_after_the_failure_every_use_raises_it_and_no_bytes_are_left(self):
        buffer = FrameBuffer(max_frame_size=10)
        buffer.feed(encoded([b"x" * 11, b"stale"]))
        with pytest.raises(FrameTooLarge):
            buffer.next_frame()
        uses = [
            lambda: buffer.feed(b"x"),
            lambda: buffer.prepare(),
            lambda: buffer.commit(0),
            lambda: buffer.next_frame(),
            lambda: buffer.next_view(),
            lambda: next(buffer),
            lambda: list(buffer),
        ]
        for use in uses:
            with pytest.raises(FrameTooLarge) as caught:
                use()
            assert caught.value is buffer.failure
        assert len(buffer) == 0
        buffer.clear()
        assert buffer.failure is not None

    def test_raising_the_failure_again_and_again_does_not_grow_its_traceback(self):
        buffer = FrameBuffer(max_frame_size=1)
        buffer.feed(b"x" * 100)
        for _ in range(10):
            with pytest.raises(FrameTooLarge) as caught:
                buffer.next_frame()
        assert len(caught.traceback) <= 4


@pytest.mark.parametrize("sentinel", [b"", b"x" * 256])
def test_a_sentinel_of_another_length_is_refused(sentinel: bytes):
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        FrameBuffer(sentinel)


@pytest.mark.parametrize("sentinel", ["text", bytearray(b"x"), None])
def test_a_sentinel_that_is_not_bytes_is_refused(sentinel: object):
    with pytest.raises(TypeError, match="a sentinel is bytes"):
        FrameBuffer(sentinel)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_byte_is_refused(limit: int):
    with pytest.raises(ValueError, match="max_frame_size"):
        FrameBuffer(max_frame_size=limit)
