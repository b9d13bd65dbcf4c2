"""A message costs no more than its size lets one expect: looked over before it is decoded."""

import gc
import sys
from pathlib import PurePath

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType

from fastcore import BadMessage, TooManyValues, register_type
from fastcore._values import (
    CHOSEN_KEYS,
    CLAIMS_TOO_MUCH,
    DEEPER,
    HARMLESS,
    TOO_DENSE,
    TOO_MANY,
    are_chosen,
    survey,
)
from fastcore._wire import careful_dict, decode
from fastcore.values.kinds import Code

MANY = 2**40


def values_in(value):
    """How many values a message holds, by a slow, obvious way."""
    if isinstance(value, dict):
        return 1 + sum(values_in(key) + values_in(item) for key, item in value.items())
    if isinstance(value, list):
        return 1 + sum(map(values_in, value))
    return 1


leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
messages = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(st.integers(0, 2**63) | st.text(), inner),
    max_leaves=50,
)


@given(messages)
def test_the_values_of_a_message_are_counted_as_a_slow_reader_would(message):
    payload = msgpack.packb(message)
    count = values_in(message)
    assert survey(payload, 1024, count) == HARMLESS
    assert survey(payload, 1024, count - 1) == TOO_MANY


@given(messages, st.integers(0, 200))
def test_a_message_that_is_cut_off_is_left_to_the_decoder(message, at):
    assert survey(msgpack.packb(message)[:at], 1024, MANY) in (HARMLESS, CLAIMS_TOO_MUCH)


def test_more_values_than_allowed_are_refused_before_they_become_any():
    payload = b"\xdd" + (10**6).to_bytes(4, "big") + b"\x90" * 10**6
    with pytest.raises(TooManyValues, match="max_values="):
        decode(b"", payload, MANY, 1024, 999_999)
    assert decode(b"", payload, MANY, 1024, 1_000_001) == [[]] * 10**6


def test_containers_that_claim_more_than_there_is_are_refused():
    heads = b"\xdd\x00\x2f\xff\xff" * 900
    assert survey(heads, 1024, MANY) == CLAIMS_TOO_MUCH
    with pytest.raises(BadMessage, match="claims"):
        decode(b"", heads)


def test_nesting_is_followed_as_deep_as_is_allowed():
    assert survey(b"\x91" * 10 + b"\x01", 10, MANY) == HARMLESS
    assert survey(b"\x91" * 11 + b"\x01", 10, MANY) == DEEPER


def test_large_maps_with_keys_that_can_be_chosen_are_looked_at():
    assert survey(msgpack.packb(dict.fromkeys(range(200), 0)), 1024, MANY) == CHOSEN_KEYS
    assert survey(msgpack.packb({str(number): 0 for number in range(200)}), 1024, MANY) == HARMLESS
    assert survey(msgpack.packb([{1: 0}] * 200), 1024, MANY) == HARMLESS


class Colliding:
    def __hash__(self):
        return 7

    compared = 0

    def __eq__(self, other):
        Colliding.compared += 1
        return self is other


def test_keys_that_collide_are_refused_before_they_are_compared():
    with pytest.raises(BadMessage, match="collide"):
        careful_dict([(Colliding(), 0) for _ in range(5000)])
    assert Colliding.compared == 0


@pytest.mark.parametrize(
    "keys",
    [
        range(5000),
        range(0, 2**62, 2**50),
        [number * 4096 for number in range(5000)],
        [number / 7 for number in range(5000)],
        [number << 32 for number in range(5000)],
    ],
    ids=["in a row", "far apart", "pages", "fractions", "high bits"],
)
def test_keys_that_nobody_chose_are_read(keys):
    message = dict.fromkeys(keys, 0)
    assert decode(b"", msgpack.packb(message)) == message
    assert not are_chosen([hash(key) for key in message])


def test_timestamps_are_read_as_keys():
    message = {msgpack.Timestamp(10**9 + number, 0): number for number in range(500)}
    assert decode(b"", msgpack.packb(message)) == message


EXTENSIONS = {"unknown": (5, b""), "path": (Code.PATH, b"pa"), "set": (Code.SET, b"\x90")}
TINY = {"list": b"\x90"} | {name: msgpack.packb(ExtType(*of)) for name, of in EXTENSIONS.items()}


@pytest.mark.parametrize("item", TINY.values(), ids=TINY)
def test_the_collector_does_not_look_at_a_message_again_and_again_while_it_is_made(item):
    collections = []

    def count(phase, info):
        collections.append(phase)

    payload = b"\xdd" + (200_000).to_bytes(4, "big") + item * 200_000
    gc.callbacks.append(count)
    try:
        message = decode(b"", payload)
        with pytest.raises(BadMessage):
            decode(b"", payload[: -len(item)] + b"\xc1")
        decode(b"", b"\xdf" + (200_000).to_bytes(4, "big") + b"".join(map(msgpack.packb, range(400_000))))
    finally:
        gc.callbacks.remove(count)
    assert len(message) == 200_000
    assert gc.isenabled()
    assert len(collections) < 10


def test_it_may_look_while_making_a_value_runs_a_programs_own_code():
    """Which may be anything, and take long; or let other threads run."""
    seen = []

    class Seen:
        pass

    def unpack(content):
        seen.append(gc.isenabled())

    register_type(Seen, name="costs.Seen", pack=lambda value: 0, unpack=unpack)
    value = ExtType(Code.REGISTERED, msgpack.packb(["costs.Seen", 0]))
    decode(b"", msgpack.packb([[0] * 20_000, value, {"inside": [value]}]))
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (ExtType(5, b""), 2),
        (ExtType(Code.DATE, b"abcd"), 2),
        (ExtType(Code.PATH, b"pa"), 5),
        (ExtType(Code.ARRAY, b""), 5),
        (ExtType(Code.SET, b"\x90"), 4),
        (ExtType(Code.SET, b"\x91\x01"), 5),
        (msgpack.Timestamp(1), 1),
    ],
)
def test_what_takes_the_memory_of_several_values_counts_as_several(value, count):
    payload = msgpack.packb([value, value])
    assert survey(payload, 1024, 2 * count + 1) == HARMLESS
    assert survey(payload, 1024, 2 * count) == TOO_MANY


def extensions(code, bodies):
    return [ExtType(code, body) for body in bodies]


def set_of(items):
    return ExtType(Code.SET, msgpack.packb(items))


#: Their hashes take Python as long as reading two or three hundred numbers.
EXPONENTS = extensions(
    Code.DECIMAL, [b"%dE-9999%02d" % (digit, last) for digit in range(1, 9) for last in range(99)]
)
#: What pathlib has to take apart.
STRANGE = extensions(Code.PATH, [rb"w\\.\%d" % number for number in range(1000)])


@pytest.mark.parametrize(
    "message",
    [
        set_of(EXPONENTS),
        [set_of([each]) for each in EXPONENTS],
        [set_of([[each]]) for each in EXPONENTS],
        dict.fromkeys(EXPONENTS, 0),
        [{each: 0} for each in EXPONENTS],
        set_of(extensions(Code.DECIMAL, [b"1E%d" % exponent for exponent in range(100, 1000)])),
        STRANGE,
        set_of(STRANGE),
    ],
)
def test_values_that_are_slow_to_make_need_a_message_of_some_size(message):
    payload = msgpack.packb(message)
    assert survey(payload, 1024, MANY) == TOO_DENSE
    with pytest.raises(BadMessage, match="too long to read"):
        decode(b"", payload)
    with_more = msgpack.packb([message, bytes(100_000)])
    assert survey(with_more, 1024, MANY) in (HARMLESS, CHOSEN_KEYS)


@pytest.mark.parametrize(
    "message",
    [
        # Nothing is hashed.
        EXPONENTS,
        [{"amount": each} for each in EXPONENTS],
        [{1: each} for each in EXPONENTS],
        # What programs have in sets and keys.
        set_of(extensions(Code.DECIMAL, [b"%dE-8" % number for number in range(2000)])),
        set_of(extensions(Code.DECIMAL, [b"6.626070%dE-34" % number for number in range(2000)])),
        set_of(extensions(Code.DECIMAL, [b"%d.50" % number for number in range(2000)])),
        set_of(extensions(Code.PATH, [rb"wC:\%d" % number for number in range(2000)])),
        set_of(extensions(Code.PATH, [rb"w\\?\C:\%d" % number for number in range(2000)])),
        set_of(extensions(Code.PATH, [rb"w\\s\t\%d" % number for number in range(2000)])),
        set_of(
            extensions(
                Code.PATH,
                [
                    rb"w\\?\UNC\server\share\a folder\and another one\a file with a name %d.txt" % n
                    for n in range(2000)
                ],
            )
        ),
        # Small ones aren't looked over.
        set_of(EXPONENTS[:100]),
        STRANGE[:100],
    ],
)
def test_but_those_that_programs_send_are_read(message):
    decode(b"", msgpack.packb(message))


def calls_into(module, function):
    """How many functions of a module's own are called by a function."""
    called = []

    def count(frame, event, arg):
        if event == "call" and frame.f_code.co_filename == module:
            called.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(called)


@pytest.mark.parametrize("start", ["p", "p/", "p./a//", "w", "wc:", "wc:/", "w//s/t/"])
def test_pathlib_is_asked_for_no_more_of_a_path_than_the_hash_that_is_there(start):
    source = sys.modules[PurePath.__module__].__file__
    items = extensions(Code.PATH, [f"{start}{number}".encode() for number in range(1000)])
    assert calls_into(source, lambda: decode(b"", msgpack.packb(items))) == 0
    # Once to see whether they were chosen to collide, once for the set; a few are compared.
    assert calls_into(source, lambda: decode(b"", msgpack.packb(set_of(items)))) < 2_100


def test_a_tiny_value_is_made_once_and_so_is_its_hash():
    for code, body in ((Code.DECIMAL, b"5"), (Code.DECIMAL, b"7E99"), (Code.PATH, b"pa")):
        first, second = decode(b"", msgpack.packb(extensions(code, [body, body])))
        assert first is second
