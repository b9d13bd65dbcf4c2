"""What a buffer holds, what it gives back, and who keeps memory alive."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path

import pytest

from fastcore._framing import SENTINEL, FrameBuffer, MessageBuffer
from helpers.differential import CollectingSink
from helpers.support import Program

MB = 1024 * 1024
# What a receive of unknown size gets, and what a peer may cost beyond what it has sent.
STEP = 128 * 1024


def receive(buffer: FrameBuffer | MessageBuffer, data: bytes) -> None:
    while data:
        memory = buffer.prepare()
        size = min(len(memory), len(data))
        memory[:size] = data[:size]
        buffer.commit(size)
        data = data[size:]


class TestIdle:
    def test_a_new_buffer_holds_nothing(self):
        assert FrameBuffer().__sizeof__() < 1024
        assert MessageBuffer(len).__sizeof__() < 1024

    def test_nor_does_one_whose_frames_were_taken(self):
        buffer = FrameBuffer()
        receive(buffer, b"x" * MB + SENTINEL)
        assert len(buffer.next_frame()) == MB
        assert buffer.__sizeof__() < 1024

    def test_a_few_bytes_of_an_unfinished_frame_cost_a_few_bytes(self):
        buffer = FrameBuffer()
        receive(buffer, b"x" * 50)
        assert buffer.next_frame() is None
        assert buffer.__sizeof__() < 1024
        receive(buffer, b"x" * 50)
        assert buffer.next_frame() is None
        assert buffer.__sizeof__() < 1024

    def test_what_begins_behind_a_giant_does_not_keep_its_memory(self):
        buffer = FrameBuffer()
        receive(buffer, b"x" * 64 * MB + SENTINEL + b"next")
        assert len(buffer.next_view()) == 64 * MB
        assert buffer.next_frame() is None
        assert buffer.__sizeof__() < 1024
        buffer.feed(SENTINEL)
        assert buffer.next_frame() == b"next"

    def test_giving_lent_memory_back_unused_leaves_nothing(self):
        buffer = FrameBuffer()
        buffer.prepare(10 * MB)
        assert buffer.__sizeof__() >= 10 * MB
        buffer.commit(0)
        assert buffer.__sizeof__() < 1024


class TestGrowing:
    @pytest.mark.parametrize("header", [b"", b"n%d" % (20 * MB)])
    def test_a_buffer_holds_at_most_twice_what_has_arrived(self, header: bytes):
        buffer = MessageBuffer(lambda header: int(header[1:]))
        data = len(header).to_bytes(4, "little") + header + b"x" * 20 * MB + SENTINEL
        for start in range(0, len(data), 100_000):
            receive(buffer, data[start : start + 100_000])
            assert buffer.__sizeof__() <= 2 * len(buffer) + 2 * MB + STEP
            taken = buffer.next_message()
        assert len(taken[1]) == 20 * MB

    def test_a_claimed_length_reserves_nothing(self):
        buffer = MessageBuffer(lambda header: 1 << 29)
        buffer.feed(b"\1\0\0\0h" + b"x" * 100)
        assert buffer.next_message() is None
        assert buffer.__sizeof__() < 1024
        assert len(buffer.prepare()) <= STEP
        assert buffer.__sizeof__() <= 1024 + STEP

    def test_a_claimed_header_length_reserves_nothing(self):
        buffer = MessageBuffer(len, max_header_size=1 << 30)
        buffer.feed((1 << 29).to_bytes(4, "little"))
        assert buffer.next_message() is None
        assert len(buffer.prepare()) <= STEP

    def test_a_frame_of_known_length_needs_little_more_than_itself(self):
        buffer = MessageBuffer(lambda header: 40 * MB)
        buffer.feed(b"\1\0\0\0h")
        assert buffer.next_message() is None
        receive(buffer, b"x" * 40 * MB)
        assert buffer.__sizeof__() <= 40 * MB + 2 * MB + 2 * STEP

    def test_room_that_cannot_be_had_is_an_error_and_loses_nothing(self):
        buffer = FrameBuffer()
        buffer.feed(b"kept")
        with pytest.raises(MemoryError):
            buffer.prepare(1 << 59)
        buffer.feed(SENTINEL)
        assert buffer.next_frame() == b"kept"


class TestViews:
    def test_a_view_outlives_its_buffer(self):
        buffer = FrameBuffer()
        receive(buffer, b"x" * 10_000 + SENTINEL)
        view = buffer.next_view()
        del buffer
        gc.collect()
        assert view == b"x" * 10_000

    def test_nothing_moves_under_a_view(self):
        buffer = FrameBuffer()
        views = []
        for number in range(200):
            frame = bytes([number]) * (number * 997)
            receive(buffer, frame + SENTINEL + b"rest")
            views.append((buffer.next_view(), frame))
            assert buffer.next_view() is None
            receive(buffer, SENTINEL)
            assert buffer.next_frame() == b"rest"
        assert all(view == frame for view, frame in views)

    def test_nothing_moves_under_a_view_when_the_buffer_fails_or_is_cleared(self):
        buffer = FrameBuffer(max_frame_size=100)
        buffer.feed(b"kept" + SENTINEL + b"x")
        view = buffer.next_view()
        buffer.clear()
        buffer.feed(b"kept too" + SENTINEL + b"x" * 1000)
        other = buffer.next_view()
        with pytest.raises(ValueError, match="frame"):
            buffer.next_view()
        assert (view, other) == (b"kept", b"kept too")

    def test_memory_used_again_is_not_that_of_a_view(self):
        first, second = FrameBuffer(), FrameBuffer()
        receive(first, b"a" * 100 + SENTINEL)
        view = first.next_view()
        receive(second, b"b" * 100 + SENTINEL)
        assert second.next_frame() == b"b" * 100
        assert view == b"a" * 100

    def test_views_of_views_count(self):
        buffer = FrameBuffer()
        receive(buffer, b"x" * 1000 + SENTINEL)
        part = buffer.next_view()[100:200]
        for _ in range(10):
            receive(buffer, b"y" * 1_000_000 + SENTINEL)
            assert buffer.next_frame() == b"y" * 1_000_000
        assert part == b"x" * 100


def test_a_sink_is_let_go_with_its_message():
    class Sink(CollectingSink):
        pass

    sinks = []

    def read_header(header: bytes) -> Sink:
        sink = Sink(3)
        sinks.append(weakref.ref(sink))
        return sink

    buffer = MessageBuffer(read_header)
    for data in (b"abc" + SENTINEL, b"abcd" + SENTINEL, b"a"):
        buffer.feed(b"\1\0\0\0h" + data)
        try:
            message = buffer.next_message()
        except ValueError:
            message = None
        assert message is None or message[1].received == b"abc"
    del message
    buffer.clear()
    gc.collect()
    assert [sink() for sink in sinks] == [None] * len(sinks)


PROGRAMS = Path(__file__).parent / "programs"


@pytest.mark.parametrize("program", ["giant", "million"])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif("PYTHONMALLOC" in os.environ, reason="another allocator: a sanitizer's, or valgrind's")
def test_the_memory_of_a_process_stays_flat(program: str):
    with Program(str(PROGRAMS / f"memory_{program}.py")) as running:
        assert running.line(seconds=120) == "flat"
