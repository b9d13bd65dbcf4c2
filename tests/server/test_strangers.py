"""Any bytes: each stranger gets an error reply or a clean close, and others notice nothing."""

import asyncio
import datetime
import math
import os
import struct
import zlib

import msgpack
import pytest

from fastcore import FrameTooLarge, Server, rpc
from helpers.support import until
from helpers.wire import SENTINEL, frame, raw_frame, served, stranger_at

NOT_MSGPACK = b"\xc1"


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


# -- Bytes that are no message: the error is told, and the connection goes on.

NO_MESSAGES = {
    "a payload that isn't MessagePack": raw_frame(NOT_MSGPACK),
    "no payload at all": raw_frame(b""),
    "nothing but a sentinel": SENTINEL,
    "half a value": raw_frame(b"\x92\x01"),
    "two values": raw_frame(b"\x01\x02"),
    "invalid UTF-8": raw_frame(b"\x81\xa2op\xa2\xff\xfe"),
    "a map with a list as key": raw_frame(b"\x81\x91\x01\x02"),
    "an array that claims four billion items": raw_frame(b"\xdd\xff\xff\xff\xff"),
    "a map that claims four billion items": raw_frame(b"\xdf\xff\xff\xff\xff"),
    "bytes that claim four billion": raw_frame(b"\xc6\xff\xff\xff\xff"),
    "an extension that claims four billion bytes": raw_frame(b"\xc9\xff\xff\xff\xff\x01"),
    "nesting deeper than MessagePack goes": raw_frame(nested(100_000)),
    "a timestamp past the end of time": raw_frame(b"\xc7\x0c\xff" + b"\xff" * 12),
    "a header that isn't a map": raw_frame(b"\xc0", header=b"\x91\x01"),
    "a header that isn't MessagePack": raw_frame(b"\xc0", header=NOT_MSGPACK),
    "a header that claims to be long": struct.pack("<I", 2**32 - 1) + b"\xc0" + SENTINEL,
    "an unknown compression": frame(None, compression="rot13"),
    "a compression that isn't a name": frame(None, compression={"zlib": 1}),
    "zlib that isn't zlib": frame(None, compression="zlib"),
    "zlib that is cut off": raw_frame(
        zlib.compress(os.urandom(100))[:-5], msgpack.packb({"compression": "zlib"})
    ),
    "a length that is a text": frame(None, length="1"),
    "a length below zero": frame(None, length=-1),
    "a length of 16 exabytes": frame(None, length=2**64 - 1),
    "a length with no sentinel at its end": frame("0123456789", length=3),
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
async def test_bytes_that_are_no_message_get_an_error_and_cost_only_that_message(data):
    async with served() as server, stranger_at(server) as stranger:
        assert await stranger.is_served()
        stranger.say(data)
        error = await stranger.hears_error()
        assert error.startswith(("BadMessage: ", "BadFrame: ", "FrameTooLarge: "))
        assert await stranger.is_served()


# -- Other protocols end at the door.


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
async def test_a_peer_whose_first_message_is_none_gets_the_error_and_nothing_after_it(data):
    called = []
    async with (
        served({"call": lambda stream: called.append(1)}) as server,
        stranger_at(server) as stranger,
    ):
        stranger.say(data, frame({"op": "call"}), frame({"op": "call"}))
        said = await stranger.hears_the_end()
    if b"FrameTooLarge" not in said or b"header of" in said:
        assert said.count(SENTINEL) == 1
        assert b"uncaught-error" in said
        assert not called


@pytest.mark.parametrize(
    ("first", "protocol"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis"),
        (b"EHLO example.org\r\n", "SMTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
        (b"PROPFIND / HTTP/1.1\r\n\r\n", "HTTP"),
        (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", "HTTP"),
        (b'CONNECT {"verbose":false}\r\nPING\r\n', "NATS"),
        (b"CONNECT\naccept-version:1.2\n\n\0", "STOMP"),
        (b"OPTIONS rtsp://example.org RTSP/1.0\r\n\r\n", "RTSP"),
        (b"OPTIONS sip:nm SIP/2.0\r\n\r\n", "SIP"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "the PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12), "the PROXY protocol"),
        (b"\x04\x01\0\x50\x7f\0\0\x01user\0", "SOCKS"),
        (b"\x05\x03\0\x01\x02", "SOCKS"),
        (b"stats\r\n", "memcached"),
        (b"HELLO 3\r\n", "Redis"),
        (b"\x10\x16\0\x06MQIsdp\x03\x02\0\x3c\0\nclient1234", "MQTT"),
        (struct.pack(">IHHI", 30, 18, 0, 1) + b"\0\x09kafka-cli" + bytes(12), "Kafka"),
        (struct.pack(">II", 21, 196608) + b"user\0postgres\0\0", "PostgreSQL"),
        (b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01", "DNS"),
        (b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0", "LDAP"),
        (b"\x13BitTorrent protocol" + bytes(48), "BitTorrent"),
        (b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\0\0", "Thrift"),
        (struct.pack("<QQ", 1, 50) + b"x" * 50, "today's Dask"),
        (b'{"jsonrpc":"2.0","method":"x","id":1}\n', "JSON"),
    ],
)
async def test_no_handler_runs_for_another_protocol_whatever_stands_in_its_body(first, protocol, caplog):
    called = []
    async with (
        served({"call": lambda stream: called.append(1)}) as server,
        stranger_at(server) as stranger,
    ):
        stranger.say(first, SENTINEL, frame({"op": "call"}), SENTINEL, frame({"op": "call"}))
        await stranger.hears_the_end()
    assert not called
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"speaks {protocol}, this port doesn't" in line
    assert len(line) < 200


# -- Messages that are no request.

NO_REQUESTS = {
    "nil": None,
    "a number": 12,
    "a list": ["op", "add"],
    "a text": "add",
    "a NaN": math.nan,
    "an empty map": {},
    "a map without op": {"x": 1, "y": 2},
    "an op of bytes that are no text": {"op": b"\xff"},
    "an op that is nil": {"op": None},
    "an op that is a list": {"op": ["add"]},
    "an op that is a map": {"op": {"add": 1}},
    "an op that is a number": {"op": 2**64 - 1},
    "an op that is NaN": {"op": math.nan},
    "an op of a megabyte": {"op": "a" * 2**20},
    "an op that nobody has": {"op": "subtract"},
    "an empty op": {"op": ""},
    "an attribute of the server": {"op": "stop"},
    "a private attribute of the server": {"op": "_sockets"},
    "a magic method": {"op": "__init__"},
    "a method of the stream": {"op": "close_fd"},
    "an extension type": msgpack.ExtType(5, b"add"),
    "an op of an extension type": {"op": msgpack.ExtType(5, b"add")},
}


@pytest.mark.parametrize("message", NO_REQUESTS.values(), ids=NO_REQUESTS.keys())
async def test_a_message_that_is_no_request_is_told_so(message):
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame(message))
        error = await stranger.hears_error()
        assert error.startswith(("TypeError: a message is a dict", "ValueError: no handler found"))
        assert len(error) < 1000
        assert await stranger.is_served()


async def test_an_op_that_is_a_timestamp_names_no_handler():
    async with served() as server, stranger_at(server) as stranger:
        when = msgpack.Timestamp.from_datetime(datetime.datetime(2016, 4, 1, tzinfo=datetime.UTC))
        stranger.say(frame({"op": when}))
        assert (await stranger.hears_error()).startswith("ValueError: no handler found")


@pytest.mark.parametrize("depth", [500, 1000, 1020])
async def test_a_deeply_nested_message_is_refused_without_a_stumble(depth):
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(raw_frame(nested(depth)), raw_frame(b"\x81\xa2op" + nested(depth)))
        assert (await stranger.hears_error()).startswith(("TypeError", "BadMessage"))
        assert (await stranger.hears_error()).startswith(("ValueError", "BadMessage"))
        assert await stranger.is_served()


# -- Requests with keywords that the handler doesn't take.

WRONG_KEYWORDS = {
    "one too few": {"x": 1},
    "one too many": {"x": 1, "y": 2, "z": 3},
    "the stream": {"stream": 1, "x": 1, "y": 2},
    "self": {"self": 1, "x": 1, "y": 2},
    "keys that are no texts": {1: 1, None: 2},
    "a key that is NaN": {math.nan: 1, "x": 1, "y": 2},
    "keys of bytes": {b"x": 1, b"y": 2},
    "an empty key": {"": 1, "x": 1, "y": 2},
    "ten thousand": {f"keyword {number}": number for number in range(10_000)},
}


@pytest.mark.parametrize("keywords", WRONG_KEYWORDS.values(), ids=WRONG_KEYWORDS.keys())
async def test_wrong_keywords_get_an_error(keywords):
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", **keywords}))
        assert (await stranger.hears_error()).startswith("TypeError: ")
        assert await stranger.is_served()


async def test_a_bound_handler_is_not_fooled_by_the_keywords_self_and_stream():
    class Vault(Server):
        def __init__(self):
            super().__init__({"tell": self.tell})

        def tell(self, stream, **keywords):
            return sorted(keywords)

    vault = Vault()
    vault.listen(0, "127.0.0.1")
    async with vault, stranger_at(vault) as stranger:
        stranger.say(frame({"op": "tell", "self": 1}), frame({"op": "tell", "stream": 1}))
        stranger.say(frame({"op": "tell", "handler": 1, "message": 2, "server": 3}))
        assert "multiple values for argument 'self'" in await stranger.hears_error()
        assert "multiple values for argument 'stream'" in await stranger.hears_error()
        assert await stranger.hears() == ["handler", "message", "server"]


@pytest.mark.parametrize("reply", [False, None, 0, [], {}, "", math.nan, "yes", [1], b"x"])
async def test_a_reply_of_a_strange_type_is_as_true_as_python_says(reply):
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 20, "y": 2, "reply": reply}))
        if reply:
            assert await stranger.hears() == 22
        assert await stranger.is_served()


@pytest.mark.parametrize("close", [True, 1, "yes", [1], math.nan])
async def test_a_close_of_a_strange_type_closes_after_the_reply(close):
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 20, "y": 2, "close": close}))
        assert await stranger.hears() == 22
        assert await stranger.hears_the_end() == b""


async def test_an_unanswered_request_that_fails_stays_unanswered():
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "no such", "reply": False}), frame({"op": "add", "x": 1, "reply": False}))
        assert await stranger.is_served()


# -- Values that Python handlers can't expect.

VALUES = {
    "NaN": math.nan,
    "infinity": math.inf,
    "the largest integer": 2**64 - 1,
    "the smallest integer": -(2**63),
    "a map with a NaN key": {math.nan: 1},
    "a map with keys of all types": {None: 1, True: 2, 0.5: 3, b"b": 4, "s": 5, -1: 6},
    "an extension": msgpack.ExtType(17, b"\0\1"),
    "a timestamp": msgpack.Timestamp(1_459_468_800, 1),
    "the sentinel": SENTINEL,
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
async def test_a_strange_value_comes_back_as_it_went(value):
    async with served({"echo": lambda stream, value: value}) as server, stranger_at(server) as stranger:
        stranger.say(
            frame({"op": "echo", "value": value}, length=len(msgpack.packb({"op": "echo", "value": value})))
        )
        answer = await asyncio.wait_for(_answer(stranger, msgpack.packb(value)), 10)
        assert repr(answer) == repr(value)


async def _answer(stranger, payload):
    """Read by the known payload: the value may hold the sentinel."""
    data = await stranger.reader.readuntil(payload + SENTINEL)
    return msgpack.unpackb(data[-len(payload + SENTINEL) : -len(SENTINEL)], strict_map_key=False)


# -- Where the error ends the connection, and where silence does.


async def test_more_bytes_than_allowed_without_a_sentinel_end_the_connection_with_an_error():
    async with served(max_buffer_size=2**16) as server, stranger_at(server) as stranger:
        stranger.say(b"\0\0\0\0" + b"a" * 2**18)
        assert b"max_buffer_size" in await stranger.hears_the_end()


async def test_garbage_gets_errors_and_the_connection_ends_or_goes_on_as_the_garbage_has_it():
    async with served(max_buffer_size=2**16) as server, stranger_at(server) as stranger:
        stranger.say(os.urandom(2**18))
        assert b"uncaught-error" in await stranger.hears_the_end()


@pytest.mark.parametrize("part", [1, 4, 5, 20, -1])
async def test_half_a_message_and_then_the_end_is_a_clean_close(part):
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 1, "y": 2})[:part])
        stranger.writer.write_eof()
        assert await stranger.hears_the_end() == b""


async def test_a_zlib_bomb_costs_its_sender_an_error_and_the_server_no_memory():
    bomb = zlib.compress(b"\0" * 2**28, 9)
    async with served(max_buffer_size=2**22) as server, stranger_at(server) as stranger:
        stranger.say(raw_frame(bomb, msgpack.packb({"compression": "zlib"})))
        assert "max_decompressed_size" in await stranger.hears_error()
        assert await stranger.is_served()


# -- Beside all of them, somebody whose calls are answered.


async def test_healthy_clients_notice_nothing_of_the_strangers_beside_them():
    attacks = [*NO_MESSAGES.values(), *map(frame, NO_REQUESTS.values()), os.urandom(1000) + SENTINEL]

    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:

        async def attack(data: bytes) -> None:
            async with stranger_at(server) as stranger:
                stranger.say(data, frame({"op": "close"}))
                await stranger.hears_the_end()

        async def call() -> None:
            for number in range(200):
                assert await remote.add(x=number, y=1) == number + 1

        await asyncio.gather(call(), call(), *map(attack, attacks * 3))


async def test_one_strangers_flood_hides_no_other_kind_of_line_and_none_of_another_peer(caplog):
    caplog.set_level("INFO", "fastcore")
    async with served() as server, stranger_at(server) as one:
        for _ in range(100):
            one.say(frame({"op": "no such\x1b[31m"}))
            await one.hears_error()
        one.say(raw_frame(NOT_MSGPACK), frame({"op": "add", "k\n" * 10**6: 1}))
        await one.hears_error()
        await one.hears_error()
        async with stranger_at(server, local_addr=("127.0.0.2", 0)) as another:
            another.say(frame({"op": "nor this"}))
            await another.hears_error()
    lines = [record.getMessage() for record in caplog.records if "refused a message" in record.getMessage()]
    assert len([line for line in lines if "no such" in line]) <= 20
    assert [line for line in lines if "can't be decoded" in line]
    assert [line for line in lines if "k\\n" in line]
    assert [line for line in lines if "nor this" in line]
    assert all(line.isprintable() and len(line) < 5_000 for line in lines)


async def test_a_first_message_that_is_too_large_is_no_other_protocol(caplog):
    async with served(max_buffer_size=10_000) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(FrameTooLarge, match="max_buffer_size="):
                await remote.add(x=bytes(50_000), y=1)
        await until(lambda: not server.open_connections())
    assert "max_buffer_size=" in caplog.text
    assert "another protocol" not in caplog.text
