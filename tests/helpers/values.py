"""Messages that hypothesis makes, with large binary values in them."""

import random

import msgpack
from hypothesis import strategies as st

from fastcore._values import LARGE

BIG = random.Random(1).randbytes(LARGE + 1000)

small_values = st.none() | st.integers(-(2**31), 2**31) | st.text(max_size=40) | st.binary(max_size=300)
#: Those that stand for values have bodies of their own.
unknown_types = st.integers(0, 99) | st.integers(114, 127)
extensions = st.builds(msgpack.ExtType, unknown_types, st.binary(max_size=20)) | st.builds(
    msgpack.Timestamp, st.integers(0, 2**33), st.integers(0, 10**9 - 1)
)
large_values = st.integers(LARGE - 2, LARGE + 5000).map(
    lambda size: BIG[:size] + bytes(max(0, size - len(BIG)))
)
messages = st.recursive(
    small_values | extensions | large_values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(small_values, inner, max_size=4),
    max_leaves=8,
)
