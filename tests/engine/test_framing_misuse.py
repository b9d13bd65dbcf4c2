"""What would corrupt a buffer raises, and changes nothing."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import threading
from collections.abc import Callable

import pytest

from fastcore._framing import SENTINEL, FrameBuffer, MessageBuffer
from fastcore.errors import BufferMisuse

USES: dict[str, Callable[[FrameBuffer], object]] = {
    "feed": lambda buffer: buffer.feed(b"x"),
    "prepare": lambda buffer: buffer.prepare(),
    "next_frame": lambda buffer: buffer.next_frame(),
    "next_view": lambda buffer: buffer.next_view(),
    "next": lambda buffer: next(buffer),
    "clear": lambda buffer: buffer.clear(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_while_memory_is_lent_only_commit_is_possible(use: Callable[[FrameBuffer], object]):
    buffer = FrameBuffer(b"-")
    memory = buffer.prepare()
    memory[:4] = b"one-"
    with pytest.raises(BufferMisuse, match="lent; commit"):
        use(buffer)
    buffer.commit(4)
    assert list(buffer) == [b"one"]


def test_committing_without_preparing_is_refused():
    buffer = FrameBuffer()
    with pytest.raises(BufferMisuse, match="nothing is lent"):
        buffer.commit(0)
    buffer.prepare()
    buffer.commit(0)
    with pytest.raises(BufferMisuse, match="nothing is lent"):
        buffer.commit(0)


def test_committing_more_than_was_lent_is_refused_and_may_be_corrected():
    buffer = FrameBuffer(b"-")
    memory = buffer.prepare()
    memory[:2] = b"a-"
    for size in (len(memory) + 1, -1, 2**40):
        with pytest.raises(BufferMisuse, match="were lent"):
            buffer.commit(size)
    buffer.commit(2)
    assert list(buffer) == [b"a"]


def test_lent_memory_can_not_be_written_to_after_the_commit():
    buffer = FrameBuffer(b"-")
    memory = buffer.prepare()
    memory[:2] = b"a-"
    buffer.commit(2)
    with pytest.raises(ValueError, match="released"):
        memory[0] = 0
    assert list(buffer) == [b"a"]


def test_a_part_of_lent_memory_kept_too_long_does_no_harm_to_other_memory():
    buffer = FrameBuffer(b"-")
    memory = buffer.prepare()
    kept = memory[:10]
    memory[:2] = b"a-"
    buffer.commit(2)
    assert list(buffer) == [b"a"]
    for _ in range(5):
        buffer.feed(b"b" * 300_000 + b"-")
        kept[:] = b"scribbling"
        assert list(buffer) == [b"b" * 300_000]


def test_lent_memory_that_somebody_exports_further_survives_the_commit():
    buffer = FrameBuffer(b"-")
    memory = buffer.prepare()
    exported = (memory, memoryview(memory))
    memory[:2] = b"a-"
    buffer.commit(2)
    buffer.feed(b"b" * 1_000_000 + b"-")
    assert list(buffer) == [b"a", b"b" * 1_000_000]
    del exported


def test_a_received_frame_can_not_be_written_to():
    buffer = FrameBuffer(b"-")
    buffer.feed(b"one-")
    view = buffer.next_view()
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 0
    with pytest.raises(TypeError, match="not writable"):
        (ctypes.c_char * 3).from_buffer(view.obj)


def test_a_buffer_fed_with_its_own_frame_reads_it_again():
    buffer = FrameBuffer(b"-")
    buffer.feed(b"x" * 100_000 + b"-" + b"y" * 20_000)
    view = buffer.next_view()
    for _ in range(20):
        buffer.feed(view)
    assert len(buffer) == 20_000 + 20 * 100_000
    buffer.feed(b"-")
    assert buffer.next_frame() == b"y" * 20_000 + b"x" * 2_000_000


def test_two_threads_at_once_are_refused_and_nothing_is_lost():
    buffer = FrameBuffer()
    payload = bytes(64 * 1024 * 1024)
    buffer.feed(payload)
    searching = threading.Event()
    refused = []

    def other() -> None:
        searching.wait()
        while not done.is_set():
            try:
                buffer.feed(b"")
            except BufferMisuse as error:
                refused.append(error)

    done = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    searching.set()
    try:
        # The search of so many bytes lets other threads run.
        for _ in range(50):
            buffer.clear()
            buffer.feed(payload)
            assert buffer.next_frame() is None
            if refused:
                break
    except BufferMisuse as error:
        refused.append(error)
    finally:
        done.set()
        thread.join(30)
    assert refused
    assert "one thread" in str(refused[0])
    buffer.clear()
    buffer.feed(b"after" + SENTINEL)
    assert buffer.next_frame() == b"after"


@pytest.mark.parametrize("make", [FrameBuffer, lambda: MessageBuffer(len)], ids=["frames", "messages"])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_buffer_can_not_be_copied(make: Callable[[], object], way: Callable[[object], object]):
    with pytest.raises(TypeError):
        way(make())


@pytest.mark.parametrize("kind", [FrameBuffer, MessageBuffer])
def test_a_buffer_can_not_be_made_the_base_of_another_class(kind: type):
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Derived", (kind,), {})


def test_a_buffer_and_its_owner_are_collected_together():
    class Owner:
        def __init__(self) -> None:
            self.buffer = MessageBuffer(self.read_header)

        def read_header(self, header: bytes) -> None:
            raise AssertionError

    gc.collect()
    for _ in range(100):
        Owner().buffer.feed(b"x" * 1000)
    assert gc.collect() >= 100


def test_a_finalizer_that_uses_the_buffer_at_any_moment_corrupts_nothing():
    class Meddler:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            try:
                buffer.feed(b"meddled-" * 10_000)
            except BufferMisuse as error:
                refused.append(error)

    buffer = FrameBuffer(b"-")
    frames = []
    refused: list[BufferMisuse] = []
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(100):
            Meddler()
            memory = buffer.prepare()
            data = b"%d-" % number
            memory[: len(data)] = data
            buffer.commit(len(data))
            while (view := buffer.next_view()) is not None:
                frames.append(view)
    finally:
        gc.set_threshold(*thresholds)
    received = [bytes(frame) for frame in frames]
    assert [frame for frame in received if frame != b"meddled"] == [b"%d" % number for number in range(100)]
    assert refused
