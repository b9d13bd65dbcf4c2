"""PayloadSink: large values are received where they will stay, however their bytes are cut."""

import ctypes

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcore._values import LARGE, PayloadSink
from helpers.values import messages


@settings(max_examples=60, deadline=None)
@given(messages, st.lists(st.integers(1, LARGE), min_size=1, max_size=6), st.booleans())
def test_a_sink_gives_back_what_it_received(message, sizes, writable):
    payload = msgpack.packb(message)
    sink = PayloadSink(len(payload), writable)
    at = 0
    for size in sizes:
        if at == len(payload):
            break
        lent = sink.prepare(size)
        size = min(size, len(lent))
        lent[:size] = payload[at : at + size]
        del lent
        sink.commit(size)
        at += size
    assert b"".join(sink.pieces()) == payload[:at]


def test_a_sink_refuses_more_than_it_lent():
    sink = PayloadSink(1000)
    assert len(sink.prepare(10)) <= 1000
    with pytest.raises(ValueError, match="1001 bytes committed"):
        sink.commit(1001)


@pytest.mark.parametrize("size", [2**25, 2**25 + 12_345])
def test_a_value_of_many_huge_pages_begins_with_one(size):
    # Else one more than need be would be made of 512 small pages.
    payload = msgpack.packb(bytes(size - 3) + b"end")
    sink = PayloadSink(len(payload), True)
    sink.take(payload)
    [value] = sink.values
    assert type(value) is bytearray
    assert ctypes.addressof(ctypes.c_char.from_buffer(value)) % 2**21 == 0
    assert value == payload[5:]
    # It is one as any other.
    value += b"more"
    del value[:100]
    assert value == payload[105:] + b"more"
