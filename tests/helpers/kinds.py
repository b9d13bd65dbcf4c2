"""Values of each type that travels as itself, as hypothesis makes them; and types of a program's own."""

import enum
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from hypothesis import strategies as st

from fastcore import register_type


@register_type
class Colour(enum.Enum):
    RED = "r"
    GREEN = ("g", 1)


@register_type
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@register_type
class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@register_type
class Place(NamedTuple):
    x: Any
    y: Any


@register_type(name="kinds.Order")
@dataclass
class Order:
    item: Any
    tags: Any = ()
    total: Any = field(default=None, init=False)


@register_type
@dataclass(frozen=True)
class Key:
    name: Any


offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
zones = st.none() | offsets | st.timezones()
#: As a fixed offset arrives; what a zone says depends on a date that a time doesn't have.
datetimes = st.datetimes(timezones=st.none() | offsets, allow_imaginary=False)
times = st.times(timezones=st.none() | offsets)
decimals = st.decimals(allow_nan=False) | st.sampled_from(
    [Decimal("-0"), Decimal("1E+999999"), Decimal("1.00"), Decimal("Infinity")]
)
paths = st.text(max_size=20).filter(lambda text: not any("\ud800" <= c < "\ue000" for c in text))
hashable = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.complex_numbers(allow_nan=False)
    | datetimes
    | st.dates()
    | times
    | st.timedeltas()
    | decimals
    | st.uuids()
    | st.builds(PurePosixPath, paths)
    | st.builds(PureWindowsPath, paths)
    | st.sampled_from([*Colour, *Level, Rights.READ, Rights.READ | Rights.WRITE, Rights(0)])
)
keys = st.deferred(
    lambda: (
        hashable
        | st.frozensets(keys, max_size=3)
        | st.builds(Place, keys, keys)
        | st.builds(Key, keys)
        | st.tuples(keys, keys)
    )
)
in_sets = st.recursive(
    hashable, lambda inner: st.frozensets(inner, max_size=3) | st.tuples(inner, inner), max_leaves=6
)
#: What arrives as it was sent, wherever in a message it stands.
exact = st.recursive(
    hashable | st.sets(in_sets, max_size=4) | st.frozensets(in_sets, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.builds(Place, inner, inner)
        # In a registered type a tuple remains one.
        | st.builds(Order, inner, st.tuples(inner, inner))
        | st.builds(Key, inner)
    ),
    max_leaves=8,
)
