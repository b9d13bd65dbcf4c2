"""Messages to bytes and back, with no socket and no loop."""

import random
import struct
import threading
import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcore import BadMessage, FrameTooLarge
from fastcore._framing import MessageBuffer
from fastcore._header import read_header
from fastcore._wire import decode, encode
from fastcore.compressions import compressions
from helpers.wire import SENTINEL, frame, raw_frame

MIB = 2**20

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-99, 99) | st.binary(), inner),
)


def on_the_wire(message, compression=None):
    """The bytes of a message, whichever pieces they come in."""
    encoded = encode(message, compression)
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


def received(data):
    """The messages in some bytes."""
    buffer = MessageBuffer(read_header)
    buffer.feed(data)
    messages = []
    while (parts := buffer.next_message()) is not None:
        messages.append(decode(*parts))
    assert len(buffer) == 0
    return messages


def header_of(data):
    (size,) = struct.unpack("<I", data[:4])
    return msgpack.unpackb(data[4 : 4 + size]) if size else {}


@given(values)
def test_a_message_arrives_as_it_was_sent(message):
    assert received(on_the_wire(message)) == [message]


def test_a_tuple_arrives_as_a_list():
    assert received(on_the_wire((1, (2, 3)))) == [[1, [2, 3]]]


def test_a_small_message_has_no_header_and_a_sentinel_at_its_end():
    assert encode(b"pong") == bytes.fromhex("00000000 c404 706f6e67") + SENTINEL


@pytest.mark.parametrize(
    "payload",
    [SENTINEL, SENTINEL * 2, b"a" + SENTINEL + b"b" + SENTINEL, SENTINEL * 1000, b"x" * 70_000 + SENTINEL],
    ids=["once", "nothing but two", "twice", "a thousand", "late"],
)
def test_a_payload_that_holds_the_sentinel_tells_its_length(payload):
    data = on_the_wire({"op": "put", "data": payload})
    packed = msgpack.packb({"op": "put", "data": payload})
    assert header_of(data) == {"length": len(packed)}
    assert data.endswith(packed + SENTINEL)
    assert received(data * 2) == [{"op": "put", "data": payload}] * 2


@pytest.mark.parametrize("cut", [1, 16, 31])
def test_a_payload_that_ends_in_half_a_sentinel_is_whole(cut):
    assert received(on_the_wire(SENTINEL[:cut]) + on_the_wire("next")) == [SENTINEL[:cut], "next"]


def test_what_pays_is_not_searched():
    assert header_of(on_the_wire(bytes(100))) == {}
    assert header_of(on_the_wire(bytes(100_000))) == {"length": 100_005}


@pytest.mark.parametrize("algorithm", sorted(compressions))
def test_a_compressed_message_arrives_as_it_was_sent(algorithm):
    message = {"op": "put", "text": "again and again " * 1000}
    data = on_the_wire(message, algorithm)
    assert header_of(data)["compression"] == algorithm
    assert len(data) < 2000
    assert received(data) == [message]


@pytest.mark.parametrize("algorithm", sorted(compressions))
def test_what_does_not_get_smaller_is_sent_as_it_is(algorithm):
    noise = random.Random(1).randbytes(1500)
    assert "compression" not in header_of(on_the_wire(noise, algorithm))
    assert "compression" not in header_of(on_the_wire("tiny", algorithm))


@pytest.mark.parametrize("algorithm", sorted(compressions))
def test_a_bomb_is_not_unpacked(algorithm):
    bomb = compressions[algorithm].compress(msgpack.packb(bytes(50 * MIB)))
    with pytest.raises(FrameTooLarge, match=r"decompressed payload.*over the limit of 1,048,576"):
        decode(msgpack.packb({"compression": algorithm}), bomb, MIB)


def test_a_compressed_payload_that_is_cut_off_is_refused():
    data = zlib.compress(msgpack.packb(list(range(1000))))
    with pytest.raises(BadMessage, match="cut off"):
        decode(msgpack.packb({"compression": "zlib"}), data[:-10])


@pytest.mark.parametrize("algorithm", ["rot13", "", None, 7, [1]])
def test_an_unknown_compression_is_refused_with_those_that_are_known(algorithm):
    data = frame("text", compression=algorithm)
    if algorithm is None:
        assert received(data) == ["text"]
    else:
        with pytest.raises(BadMessage, match="known here: zlib"):
            received(data)


def test_a_header_key_that_nobody_knows_is_ignored():
    assert received(frame("text", color="green", length=5)) == ["text"]


@pytest.mark.parametrize("header", [b"\xc1", b"\x93\x01\x02\x03", b"\x81", b"\x01trailing"])
def test_a_header_that_is_no_map_costs_one_message(header):
    buffer = MessageBuffer(read_header)
    buffer.feed(raw_frame(b"\x01", header) + frame("next"))
    with pytest.raises(BadMessage, match="header"):
        buffer.next_message()
    assert decode(*buffer.next_message()) == "next"


@pytest.mark.parametrize("length", [-1, 1.5, "5", True, [5]])
def test_a_length_that_is_no_number_of_bytes_costs_one_message(length):
    buffer = MessageBuffer(read_header)
    buffer.feed(frame("text", length=length) + frame("next"))
    with pytest.raises(BadMessage, match="not a number of bytes"):
        buffer.next_message()
    assert decode(*buffer.next_message()) == "next"


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x92\x01", b"\xa5abc", b"\x01\x02", b"\xa1\xff", b"\x81\x90\x01"]
)
def test_a_payload_that_is_not_one_value_is_refused(payload):
    with pytest.raises(BadMessage, match="can't be decoded"):
        decode(b"", payload)


@pytest.mark.parametrize("message", [object(), {print}, 2**64, {"nested": [object()]}, print])
def test_what_cannot_be_expressed_is_refused_and_leaves_nothing_behind(message):
    with pytest.raises((TypeError, OverflowError, ValueError)):
        encode(message)
    assert received(on_the_wire("next")) == ["next"]


def test_threads_pack_beside_each_other():
    def pack(number):
        for _ in range(500):
            results[number].append(on_the_wire([number] * 300) == frame([number] * 300))

    results = [[] for _ in range(4)]
    threads = [threading.Thread(target=pack, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [[True] * 500] * 4
