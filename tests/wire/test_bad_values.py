"""What can't be sent: the error names the value, the way to it, and what is wrong with it."""

import asyncio
import datetime
import math
from collections import deque
from decimal import Decimal
from types import MappingProxyType

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType

from fastcore import BadMessage, BadValue, register_type
from fastcore._wire import SPEAKS_PLAINLY, decode, encode
from helpers.kinds import Key, Order, Place

LOOP: list[object] = [1]
LOOP.append({"again": LOOP})


def nested(depth, inner=()):
    value = inner
    for _ in range(depth):
        value = [value]
    return value


class Money:
    pass


class Wrapped:
    def __init__(self, inner):
        self.inner = inner


register_type(Wrapped, pack=lambda it: {"inner": it.inner}, unpack=lambda content: Wrapped(content["inner"]))


@pytest.mark.parametrize(
    ("message", "path", "words"),
    [
        (Money(), "", ["test_bad_values.Money"]),
        ({"rows": [1, 2, {"price": range(1)}]}, "['rows'][2]['price']", ["of type range", "don't hold"]),
        ([datetime.UTC], "[0]", ["datetime.timezone", "register_type(timezone, ...)"]),
        (({len},), "[0]{...}", ["of type builtin_function_or_method"]),
        # What holds it may be of a type that MessagePack has no form for, or be registered.
        ({"order": Order("pen", [1, Money()])}, "['order'].tags[1]", ["test_bad_values.Money"]),
        ([Place(1, Key({"x": 2**64}))], "[0][1].name['x']", ["int of 65 bits"]),
        ([Order(bytes(70_000), {"x": Money()})], "[0].tags['x']", ["Money"]),
        ([Wrapped([1, Money()])], "[0]{...}['inner'][1]", ["Money"]),
        ([1, 2**64], "[1]", ["int of 65 bits", "2**64 - 1"]),
        ({"n": -(2**63) - 1}, "['n']", ["int of 64 bits", "-2**63"]),
        ([10**5000], "[0]", ["int of 16,610 bits"]),
        ({"name": "x\ud800"}, "['name']", [r"'\ud800' at 1", "UTF-8"]),
        ({"a": {Money(): 1}}, "['a']", ["has the key <", "Money"]),
        ({"a": {"\udfff": 1}}, "['a']", [r"has the key '\udfff'", "UTF-8"]),
        ({2**70: 1}, "", ["has the key 1180591620717411303424", "71 bits"]),
        ([{(1, Money()): 1}], "[0]", ["has the key (1, <", "arrive as a list"]),
        (LOOP, "[1]['again']", ["holds itself"]),
        (nested(2000), "[0]" * 8 + "...1,012 more..." + "[0]" * 4, ["deeper than 1,024 levels"]),
        ({"\n\x1b[31m": [Money()]}, r"['\n\x1b[31m'][0]", ["Money"]),
        ({"k" * 1000: Money()}, f"['{'k' * 49}...]", ["Money"]),
        ([memoryview(bytes(10))[::2]], "[0]", ["bytes(view)"]),
        # A large value is sent from where it lies, and what is beside it is packed in parts.
        ({"data": bytes(70_000), "why": [Money()]}, "['why'][0]", ["Money"]),
        ({"data": memoryview(bytes(140_000))[::2]}, "['data']", ["bytes(view)"]),
    ],
)
@pytest.mark.parametrize("way", [{}, {"compression": "zlib"}, {"dialect": SPEAKS_PLAINLY}])
def test_it_names_the_value_and_the_way_to_it(message, path, words, way):
    with pytest.raises(BadValue) as caught:
        encode(message, **way)
    error = caught.value
    assert error.path == path
    assert all(word in str(error) for word in words), str(error)
    assert str(error).startswith(f"a message can't be sent: message{path} ")
    assert str(error).isprintable()
    assert len(str(error)) < 500


def test_a_value_that_its_type_refuses_is_named_with_what_is_wrong_with_it():
    with pytest.raises(BadValue) as caught:
        encode({"sums": [Decimal("1E+1000000")]})
    assert str(caught.value) == (
        "a message can't be sent: message['sums'][0] is of type decimal.Decimal, and can't be sent: "
        "its exponent is beyond 999,999"
    )


def test_values_that_lie_too_deep_in_each_other_say_so():
    value: object = 1
    for _ in range(17):
        value = Key(value)
    with pytest.raises(BadValue, match="more than 16 sets and registered values inside each other"):
        encode(value)


def test_it_is_what_old_programs_catch():
    for kind in (TypeError, ValueError, OverflowError):
        with pytest.raises(kind):
            encode(Money())


bad = st.sampled_from([Money(), 2**64, "\ud800", range(1)])
good = st.none() | st.integers(0, 9) | st.text("abc") | st.binary()
trees = st.recursive(good, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner))


@given(trees, bad, st.randoms())
def test_whatever_is_wrong_is_found_where_it_is(tree, wrong, chance):
    """Put something wrong anywhere into a message, and follow the way that the error tells."""
    message = {"top": tree}
    holder, step = message, "top"
    while isinstance(holder[step], list | dict) and holder[step] and chance.random() < 0.7:
        holder = holder[step]
        step = chance.choice([*holder] if isinstance(holder, dict) else range(len(holder)))
    holder[step] = wrong
    with pytest.raises(BadValue) as caught:
        encode(message)
    if "more..." not in caught.value.path:
        assert eval(f"message{caught.value.path}") == wrong


def test_a_value_that_fails_while_it_is_asked_is_told_all_the_same():
    class Shy(dict):
        def items(self):
            raise ValueError("ask\nme not")

        def __iter__(self):
            raise KeyError

    with pytest.raises(BadValue, match=r"message\['a'\] is of type .*Shy, and can't be sent: ask\\nme not"):
        encode({"a": Shy(b=1)})


def test_what_looks_for_it_looks_at_each_value_once():
    looked = 0

    class Row(list):
        def __iter__(self):
            nonlocal looked
            looked += 1
            return super().__iter__()

    # The deeper the containers, the more often would a value be looked at by who packs each of them.
    message = nested(500, [Row() for _ in range(1000)] + [Money()])
    with pytest.raises(BadValue):
        encode(message)
    assert looked <= 3000


class HashableDict(dict):
    __hash__ = object.__hash__


@pytest.mark.parametrize("beside", [None, bytes(70_000)])
@pytest.mark.parametrize(
    ("key", "arrives"), [((1, 2), "list"), ((), "list"), ((1, (2, 3)), "list"), (HashableDict(a=1), "dict")]
)
def test_a_key_that_would_arrive_as_what_can_be_none_is_named(key, arrives, beside):
    for message in ({key: 3, "beside": beside}, {"beside": beside, key: 3}):
        with pytest.raises(BadValue, match=f"would arrive as a {arrives}, and so can be no key") as raised:
            encode([{"rows": message}])
        assert raised.value.path == "[0]['rows']"


def test_keys_that_arrive_as_they_are_are_sent():
    whole = {2: 1, 2.5: 2, b"x": 3, None: 4, frozenset([(1, 2)]): 5, ExtType(5, b"x"): 6, True: 7}
    assert decode(b"", encode(whole)[4:-32]) == whole


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (asyncio.Event().wait, "a name can be"),
        (asyncio.Event, "a name can be"),
        (range(3), r"send list\(value\)"),
        ({}.keys(), r"send list\(value\)"),
        (deque([1]), r"send list\(value\)"),
        (iter([1]), r"send list\(value\)"),
        (MappingProxyType({}), r"send dict\(value\)"),
        (object(), r"register_type\(object, ...\)"),
    ],
)
def test_what_to_do_about_a_value_depends_on_what_it_is(value, remedy):
    with pytest.raises(BadValue, match=remedy):
        encode({"a": value})


async def test_who_forgot_to_await_is_told_so():
    async def forgotten():
        yield 1

    future = asyncio.get_running_loop().create_future()
    with pytest.raises(BadValue, match=r"message\['rows'\] is of type _asyncio.Future.*: await it"):
        encode({"rows": future})
    with pytest.raises(BadValue, match="send what `async for` gives"):
        encode({"rows": forgotten()})


def test_a_tuple_as_a_key_is_named_where_it_arrives():
    payload = msgpack.packb({(1, 2): 3, math.pi: 4})
    with pytest.raises(BadMessage, match="a tuple arrives as a list"):
        decode(b"", payload)


@pytest.mark.parametrize("first", [None, bytes(70_000)])
@pytest.mark.parametrize("around", [lambda value: [value], lambda value: {"x": value}, Wrapped])
def test_what_holds_itself_is_not_looked_through_again_and_again(around, first):
    looked = 0

    class Shown:
        @property
        def __class__(self):
            nonlocal looked
            looked += 1
            return Shown

    message = [first, Shown()]
    message.append(around(message))
    with pytest.raises(BadValue):
        encode(message)
    # Each look asks a few times; there are 1,024 levels.
    assert looked < 1_000
