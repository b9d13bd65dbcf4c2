"""Large binary values travel outside the packed bytes, and arrive where they belong."""

import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcore import BadFrame, BadMessage
from fastcore._framing import MessageBuffer
from fastcore._header import read_header
from fastcore._values import LARGE
from fastcore._wire import IN_PLACE, decode, encode
from helpers.values import BIG, messages
from helpers.wire import SENTINEL, frame, raw_frame


def receive_in_pieces(data, sizes):
    """Receive bytes as a socket gives them, the sizes in turn; give the first message."""
    buffer = MessageBuffer(read_header)
    at = turn = 0
    while at < len(data):
        lent = buffer.prepare(LARGE // 2)
        size = min(len(lent), sizes[turn % len(sizes)], len(data) - at)
        lent[:size] = data[at : at + size]
        del lent
        buffer.commit(size)
        at += size
        turn += 1
    return decode(*buffer.next_message())


@settings(max_examples=150, deadline=None)
@given(messages, st.lists(st.integers(1, LARGE), min_size=1, max_size=5))
def test_any_message_arrives_however_it_is_cut(message, sizes):
    sizes = [max(size, 1000) for size in sizes]
    encoded = encode(message)
    data = encoded if isinstance(encoded, bytes) else b"".join(encoded)
    assert receive_in_pieces(data, sizes) == message


@pytest.mark.parametrize("first", range(1, 60))
def test_the_head_of_a_large_value_may_be_cut_anywhere(first):
    message = {"op": "put", "data": BIG, "more": [BIG, 1]}
    assert receive_in_pieces(b"".join(encode(message)), [first, 1, 1, 10**9]) == message


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview], ids=["bytes", "bytearray", "memoryview"])
@pytest.mark.parametrize(
    "wrap",
    [lambda v: v, lambda v: [1, v, 2], lambda v: {"a": {"b": [v]}}, lambda v: (v, {"key": (v,)})],
    ids=["alone", "in a list", "deep", "twice"],
)
def test_it_is_sent_from_where_it_lies_wherever_it_stands(kind, wrap):
    value = kind(BIG)
    pieces = encode(wrap(value))
    in_place = [piece for piece in pieces if lies_in(value, piece)]
    assert in_place
    assert sum(map(len, pieces)) - sum(map(len, in_place)) < 200
    assert b"".join(pieces).endswith(msgpack.packb(wrap(value)) + SENTINEL)


def lies_in(value, piece):
    """Whether a piece of a frame is the value itself, or a view of its memory."""
    owner = value.obj if isinstance(value, memoryview) else value
    return (piece.obj if isinstance(piece, memoryview) else piece) is owner


def test_a_value_of_64_kib_is_not_copied_and_a_smaller_one_is():
    large, smaller = bytes(IN_PLACE), bytes(IN_PLACE - 1)
    assert any(lies_in(large, piece) for piece in encode([large]))
    assert not any(lies_in(smaller, piece) for piece in encode([smaller]))


def test_many_small_values_beside_a_large_one_are_packed_in_few_pieces():
    message = [BIG, *range(10_000), {"then": [BIG, list(range(3000))]}]
    pieces = encode(message)
    assert len(pieces) < 100
    assert b"".join(pieces).endswith(msgpack.packb(message) + SENTINEL)


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [BIG, v]], ids=["alone", "beside a value in place"])
def test_a_large_extension_stays_one(wrap):
    message = wrap(msgpack.ExtType(5, BIG))
    assert b"".join(encode(message)).endswith(msgpack.packb(message) + SENTINEL)


def test_it_arrives_as_bytes():
    (value,) = receive_in_pieces(b"".join(encode([bytearray(BIG)])), [70_000])
    assert type(value) is bytes
    assert value == BIG


def test_it_is_found_as_deep_as_msgpack_packs():
    value = BIG
    for _ in range(500):
        value = [value]
    assert any(piece is BIG for piece in encode(value))


def test_a_list_that_holds_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="holds itself"):
        encode(value)


def test_a_list_that_holds_itself_twice_is_refused_at_once():
    value = []
    value += [value, value]
    with pytest.raises(ValueError, match="holds itself"):
        encode(value)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"value": value}])
def test_a_list_that_holds_itself_beside_it_is_refused(wrap):
    value = [BIG]
    value.append(wrap(value))
    with pytest.raises(ValueError, match="holds itself"):
        encode(value)


def test_a_dict_with_items_of_its_own_is_asked_for_them_beside_it_too():
    class Renamed(dict):
        def items(self):
            return [(key.upper(), value) for key, value in super().items()]

    assert receive_in_pieces(b"".join(encode(Renamed(key=BIG))), [70_000]) == {"KEY": BIG}


def test_packing_a_message_leaves_no_memory_behind():
    encode("small")
    tracemalloc.start()
    try:
        encode("x" * 20_000_000)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 20_000_000
    assert kept < 1_000_000


def test_a_view_that_is_not_contiguous_is_refused_as_a_small_one_is():
    with pytest.raises((ValueError, TypeError, BufferError)):
        encode([memoryview(bytes(4 * LARGE))[::2]])


def test_an_extension_that_looks_like_a_placeholder_is_the_peers_own():
    fake = msgpack.ExtType(0x7F, b"\0")
    message = [fake, BIG, fake, msgpack.Timestamp(5), BIG[::-1], fake]
    assert receive_in_pieces(b"".join(encode(message)), [10**9]) == message


def test_a_large_value_may_be_a_key():
    packed = b"\x81" + msgpack.packb(BIG) + b"\x01"
    assert receive_in_pieces(raw_frame(packed, msgpack.packb({"length": len(packed)})), [10**9]) == {BIG: 1}


def test_a_value_that_claims_more_than_the_payload_holds_is_refused():
    packed = b"\xc6\xff\xff\xff\xff" + BIG
    with pytest.raises(BadMessage):
        receive_in_pieces(raw_frame(packed, msgpack.packb({"length": len(packed)})), [10**9])


@pytest.mark.parametrize("said", [-50, 50])
def test_after_a_length_that_is_not_true_the_next_message_comes(said):
    packed = msgpack.packb({"op": "put", "data": BIG})
    buffer = MessageBuffer(read_header)
    buffer.feed(
        raw_frame(packed, msgpack.packb({"length": len(packed) + said})) + frame("next") + frame("last")
    )
    with pytest.raises(BadFrame):
        buffer.next_message()
    assert [decode(*buffer.next_message()), decode(*buffer.next_message())] == ["next", "last"]
