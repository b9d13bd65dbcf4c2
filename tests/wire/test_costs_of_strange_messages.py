"""A message costs no more than its size lets one expect: looked over before it is decoded."""

import gc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcore import BadMessage, TooManyValues, register_type
from fastcore._values import CHOSEN_KEYS, CLAIMS_TOO_MUCH, DEEPER, HARMLESS, TOO_MANY, are_chosen, survey
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
TINY = {"list": b"\x90"} | {name: msgpack.packb(msgpack.ExtType(*of)) for name, of in EXTENSIONS.items()}


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
    value = msgpack.ExtType(Code.REGISTERED, msgpack.packb(["costs.Seen", 0]))
    decode(b"", msgpack.packb([[0] * 20_000, value, {"inside": [value]}]))
    assert seen == [True, True]
