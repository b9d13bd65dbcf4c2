"""Dask's frames to a message and back: what lies side by side stays so, nothing large is copied."""

import tracemalloc

import numpy as np
import pytest
from distributed.protocol.utils import frame_split_size, merge_memoryviews
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcore._framing import MessageBuffer
from fastcore._header import read_header_to_write
from fastcore._wire import decode, encode
from fastcore.dask import frames as module
from fastcore.dask.frames import frames_of, message_of


def sent(message):
    """A message as it arrives."""
    encoded = encode(message)
    buffer = MessageBuffer(read_header_to_write)
    buffer.feed(encoded if isinstance(encoded, bytes) else b"".join(encoded))
    return decode(*buffer.next_message(), writable_values=True)


OBJECT = np.arange(40_000, dtype="f8")
slices = st.tuples(st.integers(0, 40_000), st.integers(0, 40_000)).map(
    lambda ends: OBJECT.data[min(ends) : max(ends)]
)
runs = st.tuples(slices, st.integers(1, 20_000)).map(lambda made: frame_split_size(made[0], made[1] * 8))
frames = st.lists(
    st.binary(max_size=200).map(lambda data: [data])
    | st.binary(max_size=200).map(lambda data: [bytearray(data)])
    | slices.map(lambda made: [made])
    | runs,
    max_size=5,
).map(lambda groups: [frame for group in groups for frame in group])


@settings(max_examples=100, deadline=None)
@given(frames, st.sampled_from([100_000, 0xFFFF_FFFF]))
def test_any_frames_come_back_as_they_were_and_can_be_written_to(given_frames, most):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_MAX_BIN", most)
        patched.setattr(module, "_PART_SIZE", 70_000)
        received = frames_of(sent(message_of(given_frames)))
    assert [bytes(frame) for frame in received] == [bytes(frame) for frame in given_frames]
    assert not any(frame.readonly for frame in received)


def test_the_shards_of_an_array_travel_as_one_value_and_are_merged_without_a_copy():
    shards = frame_split_size(OBJECT.data, 100_000)
    message = message_of([b"head", *shards, b"tail"])
    assert [type(item) for item in message] == [bytes, list, bytes]
    assert message[1][1].obj is OBJECT
    _, *received, _ = frames_of(sent(message))
    assert [frame.nbytes for frame in received] == [shard.nbytes for shard in shards]
    assert merge_memoryviews(received).obj is received[0].obj


class Whole:
    """Takes parts as a memoryview would, and notes how much memory there is when each comes."""

    def __init__(self, size):
        self.size = size
        self.memory_then = []

    def __len__(self):
        return self.size

    def __setitem__(self, where, part):
        self.memory_then.append(tracemalloc.get_traced_memory()[0])

    def __getitem__(self, where):
        return self


def test_what_is_too_large_for_a_value_is_joined_part_by_part_and_each_is_freed_then(monkeypatch):
    monkeypatch.setattr(module, "host_array", Whole)
    tracemalloc.start()
    try:
        message = [[[2**24], *(bytearray(2**18) for _ in range(2**6))]]
        [whole] = frames_of(message)
    finally:
        tracemalloc.stop()
    assert len(whole.memory_then) == 2**6
    assert whole.memory_then[0] - whole.memory_then[-1] >= 2**24 - 2**20


def test_arrays_apart_travel_apart():
    """Each has memory of its own then, and is freed on its own."""
    first, second = np.ones(10_000), np.ones(10_000)
    message = message_of([first.data, second.data, OBJECT.data[:10_000], OBJECT.data[20_000:30_000]])
    assert [len(value) for value in message] == [80_000] * 4
    received = frames_of(sent(message))
    assert len({id(frame.obj) for frame in received}) == 4


def test_what_only_seems_to_lie_side_by_side_travels_apart():
    """Here the second element stands before the first one."""
    backwards = memoryview(OBJECT[:2][::-1])
    frames = [backwards[1:2], backwards[0:1]]
    assert [bytes(frame) for frame in frames_of(sent(message_of(frames)))] == [*map(bytes, frames)]


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(OBJECT.reshape(200, 200)),
        OBJECT.reshape(200, 200)[::2, ::2],
        np.empty((0, 3)),
        OBJECT,
    ],
    ids=["Fortran's order", "with gaps", "empty", "plain"],
)
def test_an_array_of_any_shape_and_order_is_a_frame(array):
    [received] = frames_of(sent(message_of([memoryview(array)])))
    assert bytes(received) == array.tobytes("A")


@pytest.mark.parametrize(
    "message", [["text"], [None], [[]], [[[1, 2], b"longer"]], [[["x"], b"x"]], 7, {"op": "identity"}]
)
def test_what_is_no_list_of_frames_is_told(message):
    with pytest.raises((TypeError, ValueError)):
        frames_of(message)
