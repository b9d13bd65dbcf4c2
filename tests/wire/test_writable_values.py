"""Large binary values that whoever receives them may write to, however they came."""

import tracemalloc
import zlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcore import BadFrame, BadMessage, TooDeep
from fastcore._framing import MessageBuffer
from fastcore._header import read_header_to_write
from fastcore._values import LARGE, WRITABLE
from fastcore._wire import decode, encode
from helpers.values import BIG, extensions, small_values
from helpers.wire import SENTINEL, frame, raw_frame

sizes_around = st.integers(WRITABLE - 2, WRITABLE + 2) | st.integers(LARGE - 2, LARGE + 500)
messages = st.recursive(
    small_values | extensions | sizes_around.map(lambda size: BIG[:size]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(small_values, inner, max_size=4),
    max_leaves=8,
)
#: Ways in which a payload can come: length told, nothing told, compressed.
WAYS = {
    "with its length": lambda message: as_bytes(encode(message)),
    "without a length": lambda message: raw_frame(msgpack.packb(message)),
    "compressed": lambda message: raw_frame(
        zlib.compress(msgpack.packb(message), 1), msgpack.packb({"compression": "zlib"})
    ),
}


def as_bytes(encoded):
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


def receive(data, sizes=(10**9,)):
    """Receive bytes as a socket gives them, the sizes in turn; give the first message."""
    buffer = MessageBuffer(read_header_to_write)
    at = turn = 0
    while at < len(data):
        lent = buffer.prepare(LARGE // 2)
        size = min(len(lent), sizes[turn % len(sizes)], len(data) - at)
        lent[:size] = data[at : at + size]
        del lent
        buffer.commit(size)
        at += size
        turn += 1
    return decode(*buffer.next_message(), writable_values=True)


def with_writable_values(message):
    """What should come of a message: the same, but for the type of its large values."""
    if isinstance(message, bytes):
        return bytearray(message) if len(message) >= WRITABLE else message
    if isinstance(message, list):
        return [with_writable_values(value) for value in message]
    if isinstance(message, dict):
        return {key: with_writable_values(value) for key, value in message.items()}
    return message


def types_in(message):
    if isinstance(message, list):
        return [types_in(value) for value in message]
    if isinstance(message, dict):
        return {key: types_in(value) for key, value in message.items()}
    return type(message)


@settings(max_examples=150, deadline=None)
@given(messages, st.lists(st.integers(1000, LARGE), min_size=1, max_size=5), st.sampled_from(sorted(WAYS)))
def test_values_of_64_kib_and_more_are_bytearrays_whatever_they_came_in(message, sizes, way):
    expected = with_writable_values(message)
    received = receive(WAYS[way](message), sizes)
    assert received == expected
    assert types_in(received) == types_in(expected)


@pytest.mark.parametrize("first", range(1, 60))
def test_the_head_of_a_large_value_may_be_cut_anywhere(first):
    message = {"op": "put", "data": BIG, "more": [BIG[:WRITABLE], 1]}
    assert receive(as_bytes(encode(message)), [first, 1, 1, 10**9]) == message


def test_a_value_can_be_written_to_and_nobody_else_has_its_memory():
    first, second = receive(as_bytes(encode([BIG, BIG])))
    first[:3] = b"new"
    assert second == BIG
    assert not memoryview(first).readonly


@pytest.mark.parametrize("way", WAYS)
def test_a_large_value_may_be_a_key(way):
    """Keys can't be written to: they are bytes."""
    received = receive(WAYS[way]({BIG: [BIG], "other": 1}))
    assert received == {BIG: [BIG], "other": 1}
    assert [type(key) for key in received] == [bytes, str]
    assert type(received[BIG][0]) is bytearray


def test_a_key_that_no_dict_takes_is_a_bad_message_as_ever():
    packed = b"\x81\x91\x01" + msgpack.packb(BIG)
    with pytest.raises(BadMessage, match="as a key"):
        receive(raw_frame(packed, msgpack.packb({"length": len(packed)})))


def test_maps_whose_keys_are_looked_at_may_stand_beside_it():
    message = [BIG, dict.fromkeys(range(500), 0), {BIG: 1}]
    assert receive(as_bytes(encode(message))) == message


def test_depth_counts_where_a_payload_came_without_a_length():
    header, payload = b"", msgpack.packb([[BIG]])
    with pytest.raises(TooDeep):
        decode(header, payload, max_depth=1, writable_values=True)


@pytest.mark.parametrize("said", [-50, 50])
def test_after_a_length_that_is_not_true_the_next_messages_come_and_are_writable(said):
    packed = msgpack.packb({"op": "put", "data": BIG})
    buffer = MessageBuffer(read_header_to_write)
    buffer.feed(raw_frame(packed, msgpack.packb({"length": len(packed) + said})) + as_bytes(encode([BIG])))
    buffer.feed(frame("last"))
    with pytest.raises(BadFrame):
        buffer.next_message()
    (value,) = decode(*buffer.next_message(), writable_values=True)
    assert type(value) is bytearray
    assert value == BIG
    assert decode(*buffer.next_message(), writable_values=True) == "last"


def test_a_value_that_claims_more_than_the_payload_holds_is_refused():
    packed = b"\xc6\xff\xff\xff\xff" + BIG
    with pytest.raises(BadMessage):
        receive(raw_frame(packed, msgpack.packb({"length": len(packed)})))


def test_its_memory_is_its_own_and_no_more():
    size = 16 * 2**20
    pieces = encode({"data": bytes(size)})
    buffer = MessageBuffer(read_header_to_write)
    tracemalloc.start()
    try:
        for piece in pieces:
            at = 0
            while at < len(piece):
                lent = buffer.prepare(LARGE)
                part = min(len(lent), len(piece) - at)
                lent[:part] = piece[at : at + part]
                del lent
                buffer.commit(part)
                at += part
        message = decode(*buffer.next_message(), writable_values=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(message["data"]) == size
    assert peak < size + 2**18


def test_a_sentinel_within_a_value_ends_nothing():
    value = BIG + SENTINEL + BIG
    assert receive(as_bytes(encode([value]))) == [value]
