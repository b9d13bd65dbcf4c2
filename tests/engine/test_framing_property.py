"""Any bytes, cut anywhere: the engine does what the slow reference does."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.differential import compare_frames, compare_messages, random_case

pytestmark = pytest.mark.slow_under_valgrind

SENTINELS = st.one_of(
    st.just(b"7d629535c4f3a6963f566af7d3e3a2d2"),
    st.sampled_from([b"\n", b"\0", b"\0\0\0\0\0", b"aab aab", b"aaaaaaaaaaaa", b"abababababab"]),
    st.binary(min_size=1, max_size=255),
    st.lists(st.sampled_from(b"ab"), min_size=1, max_size=60).map(bytes),
)


@st.composite
def near_sentinels(draw: st.DrawFn, sentinel: bytes) -> bytes:
    """The sentinel, a part of it, or it with one other byte."""
    start = draw(st.integers(0, len(sentinel) - 1))
    end = draw(st.integers(start, len(sentinel)))
    changed = bytearray(sentinel)
    changed[start] ^= draw(st.integers(0, 255))
    return draw(st.sampled_from([sentinel, sentinel[start:end], sentinel[:end], bytes(changed)]))


@st.composite
def payloads(draw: st.DrawFn, sentinel: bytes) -> bytes:
    return b"".join(draw(st.lists(st.one_of(near_sentinels(sentinel), st.binary(max_size=40)), max_size=5)))


@st.composite
def messages(draw: st.DrawFn, sentinel: bytes) -> bytes:
    payload = draw(payloads(sentinel))
    length = max(0, len(payload) + draw(st.sampled_from([0, 0, 0, -1, 1, 100])))
    header = draw(st.sampled_from([b"", b"n%d" % length, b"s%d" % length, b"x", b"?"]) | payloads(sentinel))
    header_length = draw(st.just(len(header)) | st.integers(0, 2**32 - 1))
    return header_length.to_bytes(4, "little") + header + payload + sentinel


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = draw(st.lists(st.integers(0, len(data)), max_size=20))
    return [data[start:end] for start, end in pairwise([0, *sorted(places), len(data)])]


@given(data=st.data(), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=1000)
def test_frames_are_those_of_the_reference(data: st.DataObject, seed: int):
    sentinel = data.draw(SENTINELS)
    stream = b"".join(data.draw(st.lists(payloads(sentinel), max_size=5)))
    limit = data.draw(st.sampled_from([1, 40, 10_000]))
    compare_frames(sentinel, limit, data.draw(cut(stream)), seed)


@given(data=st.data(), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=1000)
def test_messages_are_those_of_the_reference(data: st.DataObject, seed: int):
    sentinel = data.draw(SENTINELS)
    stream = b"".join(data.draw(st.lists(messages(sentinel), max_size=5)))
    limits = data.draw(st.sampled_from([(10_000, 1000), (300, 40), (50, 5), (3, 0)]))
    compare_messages(sentinel, *limits, data.draw(cut(stream)), seed)


@pytest.mark.parametrize("part", range(4))
def test_thousands_of_confusing_streams_are_read_as_the_reference_reads_them(part: int):
    for seed in range(part * 1000, part * 1000 + 1000):
        chance = Random(seed)
        sentinel, _, chunks = random_case(chance)
        max_frame_size = chance.choice([50, 300, 1_000_000])
        compare_frames(sentinel, max_frame_size, chunks, seed)
        compare_messages(sentinel, max_frame_size, chance.choice([5, 40, 1000]), chunks, seed)


def test_every_single_cut_of_a_confusing_stream_gives_the_same():
    for seed in range(40):
        sentinel, data, _ = random_case(Random(seed))
        for place in range(min(len(data), 400)):
            compare_messages(sentinel, 1_000, 100, [data[:place], data[place:]], seed)
            compare_frames(sentinel, 1_000, [data[:place], data[place:]], seed)
