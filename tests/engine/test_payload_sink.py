"""PayloadSink: large values are received where they will stay, however their bytes are cut."""

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
