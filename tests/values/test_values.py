"""Values that MessagePack has no form for arrive as they were sent."""

import contextlib
import struct
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcore
from fastcore import BadMessage, BadValue, connect, read, register_type, rpc, write
from fastcore._framing import MessageBuffer
from fastcore._header import read_header
from fastcore._wire import decode, encode
from fastcore.values.kinds import Code
from helpers.classic_server import classic_server
from helpers.kinds import Colour, Key, Level, Order, Place, Rights, exact
from helpers.wire import served, stranger_at


def arrived(message: Any, piece: int = 1_000_000) -> Any:
    """What becomes of a message on the wire, received in pieces of so many bytes."""
    frame = encode(message)
    data = frame if isinstance(frame, bytes) else b"".join(frame)
    buffer = MessageBuffer(read_header)
    for start in range(0, len(data), piece):
        buffer.feed(data[start : start + piece])
    parts = buffer.next_message()
    assert parts is not None
    return decode(*parts)


def of_body(code: int, body: bytes) -> Any:
    """The value of an extension that a stranger has made."""
    return decode(b"", msgpack.packb(msgpack.ExtType(code, body)))


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Order | Key):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    return bool(one == other)


@settings(deadline=None)
@given(exact)
def test_any_value_arrives_as_it_was_sent(value):
    assert same(arrived(value), value)


@settings(deadline=None)
@given(exact)
def test_any_value_comes_through_an_extension_that_is_received_in_pieces(value):
    large = {"before": value, "order": Order(bytes(300_000), (value, bytes(70_000))), "after": value}
    assert same(arrived(large, 50_001), large)


VALUES = {
    "naive": datetime(2024, 2, 29, 12, 30, 1, 999_999),
    "aware": datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=30, microseconds=7))),
    "first": datetime.min,
    "last": datetime.max,
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 1, tzinfo=UTC),
    "negative": timedelta(days=-999_999_999),
    "decimal": Decimal("1.10"),
    "nothing": Decimal("-0E-10"),
    "uuid": UUID(int=2**128 - 1),
    "complex": complex("nan+infj"),
    "set": {1, "x", (1, (2, 3)), frozenset({b"y"})},
    "empty": frozenset(),
    "posix": PurePosixPath("/tmp/\udcff\n"),
    "windows": PureWindowsPath(r"C:\x\..\y"),
    "enum": Colour.GREEN,
    "number": Level.HIGH,
    "flags": Rights.READ | Rights.WRITE,
    "named": Place(1, (2, [3])),
    "data": Order("tea", (1, (2,))),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_of_the_same_type_and_shows_the_same(name):
    got = arrived([VALUES[name]])[0]
    assert type(got) is type(VALUES[name])
    assert repr(got) == repr(VALUES[name]) or got == VALUES[name]


def test_a_fold_arrives_and_utc_is_utc():
    value = arrived(datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")))
    assert (value.fold, value.utcoffset()) == (1, timedelta(hours=1))
    assert arrived(datetime(2024, 1, 1, tzinfo=UTC)).tzinfo is UTC


@pytest.mark.parametrize("text", ["NaN", "-NaN", "sNaN", "NaN123", "-sNaN45", "-Infinity"])
def test_a_decimal_that_is_no_number_arrives_with_what_it_says(text):
    assert str(arrived(Decimal(text))) == text


def test_a_path_of_this_system_arrives_as_one_that_touches_no_files():
    assert arrived(Path("a") / "b") == PurePosixPath("a/b") or isinstance(arrived(Path("a")), PureWindowsPath)


def test_a_value_may_be_a_key():
    keys = [
        date(2024, 1, 1),
        UUID(int=1),
        frozenset({1}),
        Colour.RED,
        Level.LOW,
        Place(1, 2),
        Key("k"),
    ]
    for key in keys:
        ((got, value),) = arrived({key: 1}).items()
        assert (got, type(got), value) == (key, type(key), 1)
    with pytest.raises(BadValue, match="no key"):
        encode({(1, 2): 1})  # a tuple is a list, as ever


def test_what_python_takes_for_a_number_or_a_text_is_sent_as_one_unless_it_is_registered():
    class Name(str):
        __slots__ = ()

    class Pair(NamedTuple):
        x: int
        y: int

    assert type(arrived(Name("x"))) is str
    assert arrived([Pair(1, 2), Level.LOW, {"n": Name("n")}]) == [[1, 2], Level.LOW, {"n": "n"}]
    assert type(arrived([Pair(1, 2), Level.LOW])[1]) is Level


def test_a_timestamp_of_msgpack_stays_one():
    assert arrived(msgpack.Timestamp(1, 2)) == msgpack.Timestamp(1, 2)


# ---- a program's own


def test_a_type_is_registered_with_the_ways_there_and_back():
    class Money:
        def __init__(self, amount: Decimal, currency: str) -> None:
            self.amount, self.currency = amount, currency

    register_type(
        Money, name="money", pack=lambda m: (m.amount, m.currency), unpack=lambda both: Money(*both)
    )
    got = arrived({"price": Money(Decimal("9.90"), "EUR")})["price"]
    assert (got.amount, got.currency) == (Decimal("9.90"), "EUR")


def test_a_type_that_only_the_sender_knows_arrives_as_an_ext_type():
    class Mine:
        pass

    register_type(Mine, name="here.Mine", pack=lambda mine: 1, unpack=lambda one: Mine())
    body = encode(Mine())
    fastcore.values.registry._readers.pop("here.Mine")
    ((code, data),) = [decode(*framed(body))]
    assert code == Code.REGISTERED
    assert b"here.Mine" in data
    # And goes on as it is.
    assert arrived(msgpack.ExtType(code, data)) == msgpack.ExtType(code, data)


def framed(frame: bytes) -> tuple[bytes, bytes]:
    buffer = MessageBuffer(read_header)
    buffer.feed(frame)
    parts = buffer.next_message()
    assert parts is not None
    return parts


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (1, TypeError, "takes a type"),
        (object, TypeError, "pack= and unpack="),
        (
            dataclass(type("Odd", (), {"__annotations__": {"x": int}, "__init__": lambda self, y: None})),
            TypeError,
            "more",
        ),
    ],
)
def test_what_cannot_be_registered_says_why(given, error, says):
    with pytest.raises(error, match=says):
        register_type(given)


def test_one_name_is_one_type_but_a_class_that_is_made_anew_takes_its_place():
    def made() -> type:
        class Again(NamedTuple):
            x: int

        return Again

    register_type(made())
    newer = register_type(made())
    assert type(arrived(newer(1))) is newer
    with pytest.raises(ValueError, match="name="):
        register_type(NamedTuple("Other", [("x", int)]), name=newer.__qualname__)


def test_fields_that_were_added_have_their_defaults_and_unknown_ones_are_an_error():
    def order(**fields: Any) -> Any:
        return of_body(Code.REGISTERED, msgpack.packb(["kinds.Order", fields]))

    assert order(item=1) == Order(1)
    with pytest.raises(BadMessage, match="no field 'colour'"):
        order(item=1, colour="red")
    with pytest.raises(BadMessage, match="item"):
        order(tags=1)


# ---- what can't be sent


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Decimal("1E+1000000"), "exponent"),
        (Decimal("1E-99999999"), "exponent"),
        (time(1, tzinfo=ZoneInfo("Europe/Berlin")), "without a date"),
        ({print}, "no code"),
        ([{"x": [object()]}], "register_type"),
        (type("When", (datetime,), {})(2024, 1, 1), "register_type"),
    ],
)
def test_what_cannot_be_sent_says_what_to_do(value, says):
    with pytest.raises((ValueError, TypeError), match=says):
        encode(value)


def test_values_inside_each_other_have_an_end():
    value: Any = Key(1)
    for _ in range(15):
        value = Key(value)
    assert same(arrived(value), value)
    with pytest.raises(ValueError, match="more than 16"):
        encode(Key(value))


# ---- hostile bodies


BAD = {
    "datetime: short": (Code.DATETIME, b"\0"),
    "datetime: month 13": (Code.DATETIME, struct.pack("!HBBBBBIB", 1, 13, 1, 0, 0, 0, 0, 0)),
    "datetime: an offset of centuries": (
        Code.DATETIME,
        struct.pack("!HBBBBBIBq", 1, 1, 1, 0, 0, 0, 0, 0, 2**62),
    ),
    "time: fold 2": (Code.TIME, struct.pack("!BBBIB", 1, 1, 1, 1, 2)),
    "date: year 0": (Code.DATE, struct.pack("!HBB", 0, 1, 1)),
    "timedelta: too long": (Code.TIMEDELTA, struct.pack("!iII", 2**31 - 1, 0, 0)),
    "Decimal: a huge exponent": (Code.DECIMAL, b"1E999999999"),
    "Decimal: digits of others": (Code.DECIMAL, "\u0661".encode()),
    "Decimal: empty": (Code.DECIMAL, b""),
    "UUID: short": (Code.UUID, b"1"),
    "complex: short": (Code.COMPLEX, b"1"),
    "path: no kind": (Code.PATH, b"x/tmp"),
    "path: no UTF-8": (Code.PATH, b"w\xff"),
    "set: no list": (Code.SET, b"\x01"),
    "set: a map in it": (Code.SET, b"\x91\x80"),
    "set: more than one": (Code.SET, b"\x90\x90"),
    "set: cut": (Code.SET, b"\x92\x01"),
    "set: nothing": (Code.SET, b""),
    "set: claims much": (Code.SET, b"\xdd\xff\xff\xff\xff"),
    "registered: no pair": (Code.REGISTERED, b"\x01"),
    "enum: no member": (Code.REGISTERED, msgpack.packb(["Colour", "BLUE"])),
    "enum: a method": (Code.REGISTERED, msgpack.packb(["Colour", "__class__"])),
    "flags: unknown ones": (Code.REGISTERED, msgpack.packb(["Rights", 64])),
    "flags: a text": (Code.REGISTERED, msgpack.packb(["Rights", "READ"])),
    "named tuple: too few": (Code.REGISTERED, msgpack.packb(["Place", [1]])),
    "dataclass: a list": (Code.REGISTERED, msgpack.packb(["Key", [1]])),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_body_that_is_none_costs_one_message_and_says_what_it_was(what):
    code, body = BAD[what]
    async with served({"echo": lambda stream, x: x}) as server, stranger_at(server) as stranger:
        assert await stranger.is_served()
        stranger.calls(1, "echo", x=msgpack.ExtType(code, body))
        answer = await stranger.hears_answers(1)
        told = answer[1][0]["exception"]
        assert told["type"] == "BadMessage"
        assert "a message holds a " in told["message"]
        stranger.calls(2, "add", x=1, y=2)
        assert await stranger.hears_answers(2) == {2: 3}


@settings(deadline=None)
@given(st.sampled_from(list(Code)), st.binary(max_size=60))
def test_any_bytes_of_a_stranger_are_a_value_or_an_error(code, body):
    with contextlib.suppress(BadMessage):
        of_body(code, body)


def test_what_is_inside_counts_as_all_values_do():
    inner = msgpack.packb(["no.such", [0] * 3000])
    payload = msgpack.packb([msgpack.ExtType(Code.REGISTERED, inner)] * 10)
    with pytest.raises(fastcore.TooManyValues):
        decode(b"", payload, max_values=20_000)
    deep = msgpack.packb(msgpack.ExtType(Code.SET, msgpack.packb([[[[[]]]]])))
    with pytest.raises(fastcore.TooDeep):
        decode(b"", deep, max_depth=4)


#: All of them have the hash 0.
COLLIDING = [UUID(int=number * (2**61 - 1)) for number in range(1000)]


def test_items_and_keys_that_were_chosen_to_collide_are_refused():
    with pytest.raises(BadMessage, match="chosen to collide"):
        arrived(set(COLLIDING))
    with pytest.raises(BadMessage, match="chosen to collide"):
        arrived(Key(dict.fromkeys(COLLIDING)))
    with pytest.raises(BadMessage, match="chosen to collide"):
        arrived(dict.fromkeys(COLLIDING))


# ---- peers


async def test_values_go_there_and_back_by_rpc_and_by_hand():
    value = {"when": VALUES["aware"], "who": {UUID(int=1)}, "what": [Order("tea"), Level.HIGH]}
    async with served({"echo": lambda stream, x: x}) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert same(await remote.echo(x=value), value)
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "echo", "x": value})
        assert same(await read(stream), value)
        stream.close()


CLASSIC = {
    "when": datetime(2024, 1, 2, 3),
    "day": date(2024, 1, 2),
    "clock": time(3),
    "long": timedelta(seconds=90),
    "price": Decimal("9.90"),
    "id": UUID(int=1),
    "z": 1 + 2j,
    "ids": {1},
    "path": PurePosixPath("/a"),
    "colour": Colour.RED,
    "level": Level.HIGH,
    "order": Order("tea"),
    "place": Place(1, {2}),
}
PLAIN = {
    "when": "2024-01-02T03:00:00",
    "day": "2024-01-02",
    "clock": "03:00:00",
    "long": 90.0,
    "price": "9.90",
    "id": "00000000-0000-0000-0000-000000000001",
    "z": [1.0, 2.0],
    "ids": [1],
    "path": "/a",
    "colour": "r",
    "level": 2,
    "order": {"item": "tea", "tags": [], "total": None},
    "place": [1, [2]],
}


async def test_who_calls_without_a_number_gets_what_every_program_reads():
    async with served({"tell": lambda stream: CLASSIC}) as server, stranger_at(server) as stranger:
        stranger.say(b"\0\0\0\0" + msgpack.packb({"op": "tell"}) + fastcore.SENTINEL)
        assert await stranger.hears() == PLAIN
        # Who numbers, reads them.
        stranger.calls(1, "tell")
        assert isinstance((await stranger.hears_answers(1))[1]["when"], msgpack.ExtType)


async def test_a_classic_server_gets_what_it_reads_in_the_first_request_too():
    asked: list[Any] = []

    def keep(**message: Any) -> str:
        asked.append(message)
        return "kept"

    async with classic_server(keep=keep) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        assert await remote.keep(**CLASSIC) == "kept"
        assert await remote.keep(**CLASSIC) == "kept"
        # Whose request can't tell, as nothing comes back.
        async with rpc(ip="127.0.0.1", port=server.port) as another:
            await another.keep(ids={1}, reply=False)
            assert await another.keep(ids={2}) == "kept"
    assert asked == [PLAIN, PLAIN, {"ids": [1]}, {"ids": [2]}]


async def test_a_call_that_waits_to_learn_what_the_server_reads_can_be_given_up():
    asked: list[Any] = []
    async with (
        classic_server(keep=lambda **message: asked.append(message) or "kept") as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        call = remote.keep(ids={1})
        call.cancel()
        assert await remote.keep(ids={2}) == "kept"
    assert asked == [{"ids": [2]}]


def test_a_message_of_tiny_paths_makes_few_of_them():
    # To make one takes Python 3.11 more time than to read a hundred other bytes.
    paths = [path for letter in "abc" for path in (PurePosixPath(letter), PureWindowsPath(letter))]
    got = decode(*framed(encode(paths * 100)))
    assert got == paths * 100
    assert len({id(path) for path in got}) == len(paths)


def test_an_extension_of_those_that_messagepack_keeps_is_refused():
    with pytest.raises(BadMessage, match="type -5"):
        decode(b"", b"\xd4\xfb\x00")
