"""Headers: written and read without MessagePack, and held against it."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcore import BadMessage
from fastcore._header import ERROR_FLAG, PART_FLAG, call_fields, call_header, length_header, read_header
from fastcore._wire import encode

numbers = st.integers(0, 2**64 - 1)


def length_in(header):
    """What `read_header` says, whether or not a sink is made for it."""
    found = read_header(header)
    return getattr(found, "length", found)


@given(st.integers(0, 2**60))
def test_the_header_of_a_length_is_what_msgpack_reads(length):
    header = length_header(length)
    assert int.from_bytes(header[:4], "little") == len(header) - 4
    assert msgpack.unpackb(header[4:]) == {"length": length}
    assert length_in(header[4:]) == length


@given(
    st.binary(max_size=20)
    | st.binary(max_size=12).map(lambda rest: b"\x81\xa6length" + rest)
    | st.binary(max_size=12).map(lambda rest: b"\x82\xa4call\x01\xa6length" + rest)
)
def test_a_header_is_read_as_msgpack_reads_it_or_refused(header):
    try:
        keys = msgpack.unpackb(header)
        right = isinstance(keys, dict) and (
            "length" not in keys
            or keys["length"] is None
            or (type(keys["length"]) is int and 0 <= keys["length"] < 2**63)
        )
    except Exception:
        right = False
    if right:
        assert length_in(header) == keys.get("length")
    else:
        with pytest.raises(BadMessage):
            read_header(header)


@given(st.none() | numbers, st.sampled_from([0, PART_FLAG, ERROR_FLAG, PART_FLAG | ERROR_FLAG]))
def test_what_is_said_of_a_call_is_what_msgpack_reads(number, flags):
    fields = call_fields(number, flags)
    expected = {"call": number}
    if flags & PART_FLAG:
        expected["part"] = True
    if flags & ERROR_FLAG:
        expected["error"] = True
    assert msgpack.unpackb(fields) == expected
    read = call_header(fields)
    assert (read.call, read.part, read.error) == (number, bool(flags & PART_FLAG), bool(flags & ERROR_FLAG))


@given(numbers, st.integers(0, 2**40), st.integers(0, 2**40))
def test_windows_grants_and_cancels_are_what_msgpack_reads(number, window, grant):
    assert msgpack.unpackb(call_fields(number, 0, window)) == {"call": number, "window": window}
    assert msgpack.unpackb(call_fields(number, 0, -1, grant)) == {"call": number, "grant": grant}
    assert msgpack.unpackb(call_fields(None, cancel=number)) == {"cancel": number}
    assert call_header(call_fields(None, cancel=number)).cancel == number


keys = st.dictionaries(
    st.sampled_from(
        ["call", "part", "error", "window", "cancel", "grant", "length", "new key", "compression"]
    ),
    st.none() | st.booleans() | numbers | st.integers(-(2**40), -1) | st.floats() | st.text(max_size=3),
)


@given(keys)
def test_any_map_is_read_as_a_slow_reader_would(header):
    read = None
    said = [header.get(key) for key in ("call", "window", "cancel", "grant")]
    wrong = any(value is not None and (type(value) is not int or value < 0) for value in said)
    about_calls = "call" in header or "cancel" in header
    packed = msgpack.packb(header)
    if about_calls and wrong:
        with pytest.raises(BadMessage):
            call_header(packed)
        return
    read = call_header(packed)
    if not about_calls:
        assert read is None
        return
    assert [read.call, read.window, read.cancel, read.grant] == said
    assert (read.part, read.error) == (header.get("part") is True, header.get("error") is True)


@pytest.mark.parametrize("message", [1, b"x" * 9000, b"x" * 70_000, {"x": [b"y" * 70_000]}, "7d62" * 4000])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_what_is_said_of_a_call_stands_beside_length_and_compression(message, compression):
    frame = encode(message, compression, call_fields(7, PART_FLAG))
    whole = frame if isinstance(frame, bytes) else b"".join(frame)
    size = int.from_bytes(whole[:4], "little")
    header = msgpack.unpackb(whole[4 : 4 + size])
    assert (header.pop("call"), header.pop("part")) == (7, True)
    assert header.keys() <= {"length", "compression"}
    assert header.get("length", len(whole) - 36 - size) == len(whole) - 36 - size
    assert call_header(whole[4 : 4 + size]).call == 7
