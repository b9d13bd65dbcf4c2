"""How deep a payload nests is told from its tokens, before anything is made of it."""

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from fastcore._values import is_deeper

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=300),
    st.binary(max_size=300),
    # From 100 on there are types whose bodies are MessagePack, and walked too.
    st.builds(msgpack.ExtType, st.integers(0, 99), st.binary(max_size=300)),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=40,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(values, st.integers(1, 8))
def test_the_walk_over_tokens_finds_the_depth_that_the_value_has(value, limit):
    assert is_deeper(msgpack.packb(value), limit) is (depth(value) > limit)


@given(st.binary(max_size=200), st.integers(1, 8))
def test_any_bytes_are_walked_without_leaving_them(data, limit):
    assert is_deeper(data, limit) in (True, False)


def test_a_long_row_is_no_depth():
    assert not is_deeper(msgpack.packb([[]] * 100_000), 2)


def test_more_than_the_decoder_stands_is_left_to_it():
    assert not is_deeper(b"\x91" * 5000 + b"\xc0", 1024)
    assert is_deeper(b"\x91" * 5000 + b"\xc0", 1023)
