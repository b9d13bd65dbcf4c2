"""A server's limits: the peer is told where it can be, the log names it, and the others go on."""

import asyncio
import inspect
import logging

import msgpack
import pytest

from fastcore import Server, connect, rpc
from fastcore.limits import Limits
from helpers.wire import SENTINEL, frame, raw_frame, served, stranger_at


def logged(caplog) -> str:
    """What fastcore said, without the rest."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("fastcore"))


def address_of(stranger) -> str:
    host, port = stranger.writer.get_extra_info("sockname")
    return f"{host}:{port}"


def nested(depth: int) -> object:
    value: object = None
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture(autouse=True)
def listen_to_the_log(caplog):
    caplog.set_level(logging.INFO, "fastcore")


# -- Sizes


async def test_a_message_over_the_size_limit_costs_an_error_that_names_the_keyword(caplog):
    async with served(max_buffer_size=10_000) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": "x" * 20_000, "y": ""}))
        assert "max_buffer_size=" in await stranger.hears_error()
        assert address_of(stranger) in logged(caplog)
        async with stranger_at(server) as another:
            assert await another.is_served()


async def test_a_claimed_length_over_the_limit_is_refused_before_a_byte_of_it_has_come():
    async with served(max_buffer_size=10_000) as server, stranger_at(server) as stranger:
        header = msgpack.packb({"length": 2**40})
        stranger.say(len(header).to_bytes(4, "little"), header, b"x", SENTINEL)
        assert "max_buffer_size=" in await stranger.hears_error()
        assert await stranger.is_served()


async def test_a_header_over_its_limit_is_refused():
    async with served(max_header_size=100) as server, stranger_at(server) as stranger:
        assert await stranger.is_served()
        stranger.say(raw_frame(b"\xc0", msgpack.packb({"padding": "x" * 200})))
        assert "max_header_size=" in await stranger.hears_error()
        assert await stranger.is_served()


@pytest.mark.parametrize("compression", ["zlib", "lz4", "snappy"])
async def test_a_payload_that_grows_over_its_limit_is_refused(compression):
    async with (
        served(max_decompressed_size=100_000) as server,
        rpc(ip="127.0.0.1", port=server.port, compression=compression) as remote,
    ):
        with pytest.raises(ValueError, match="max_decompressed_size="):
            await remote.add(x="x" * 200_000, y="")
        assert await remote.add(x="x" * 50_000, y="") == "x" * 50_000


@pytest.mark.parametrize("padding", [b"", b"x" * 10_000, b"x" * 1_000_000])
async def test_nesting_over_its_limit_is_refused(padding):
    async with (
        served({"take": lambda stream, value, padding: "fine"}, max_depth=10) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        # The message itself is the first level.
        assert await remote.take(value=nested(9), padding=padding) == "fine"
        with pytest.raises(ValueError, match="max_depth="):
            await remote.take(value=nested(10), padding=padding)
        assert await remote.take(value=nested(9), padding=padding) == "fine"


async def test_what_comes_before_a_message_without_end_is_answered_first():
    async with served(max_buffer_size=1000) as server, stranger_at(server) as stranger:
        good = frame({"op": "add", "x": 1, "y": 2})
        stranger.say(good, frame({"op": "unknown"}), good, b"\0\0\0\0" + b"x" * 2000)
        assert await stranger.hears() == 3
        assert "unknown" in await stranger.hears_error()
        assert await stranger.hears() == 3
        assert "max_buffer_size=" in await stranger.hears_error()
        assert await stranger.hears_the_end() == b""


# -- Connections


async def test_a_connection_too_many_is_told_so_and_closed(caplog):
    async with served(max_connections=2) as server:
        async with stranger_at(server) as first, stranger_at(server) as second:
            assert await first.is_served()
            assert await second.is_served()
            async with stranger_at(server) as third:
                assert "max_connections" in await third.hears_error()
                assert await third.hears_the_end() == b""
            async with rpc(ip="127.0.0.1", port=server.port) as remote:
                with pytest.raises(ConnectionRefusedError, match="max_connections"):
                    await remote.add(x=1, y=2)
            assert await first.is_served()
            assert server.stats()["connections"]["open"] == 2
            assert server.stats()["errors"]["max_connections"] == 2
        while server.stats()["connections"]["open"]:
            await asyncio.sleep(0.001)
        async with stranger_at(server) as fourth:
            assert await fourth.is_served()
    assert "max_connections" in logged(caplog)


# -- Time


async def drip(stranger, data: bytes) -> None:
    for number in range(len(data)):
        stranger.say(data[number : number + 1])
        await asyncio.sleep(0.02)


async def test_a_message_that_drips_in_is_given_up_after_a_time(caplog):
    async with served(message_timeout=0.2) as server, stranger_at(server) as stranger:
        assert await stranger.is_served()
        dripping = asyncio.ensure_future(drip(stranger, b"\0" * 1000))
        assert "message_timeout" in await stranger.hears_error()
        assert await stranger.hears_the_end() == b""
        dripping.cancel()
        assert server.stats()["errors"]["message_timeout"] == 1
        assert address_of(stranger) in logged(caplog)


async def test_half_a_message_and_silence_is_given_up_after_a_time():
    async with served(message_timeout=0.2) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 1, "y": 2})[:-1])
        assert "message_timeout" in await stranger.hears_error()
        assert await stranger.hears_the_end() == b""


async def test_an_idle_connection_is_closed_after_a_time(caplog):
    async with served(idle_timeout=0.2) as server, stranger_at(server) as stranger:
        for _ in range(5):
            assert await stranger.is_served()
            await asyncio.sleep(0.1)
        assert b"idle_timeout" in await stranger.hears_the_end()
        assert server.stats()["errors"]["idle_timeout"] == 1
        assert address_of(stranger) in logged(caplog)


async def test_a_connection_whose_handler_works_is_not_idle():
    async def work(stream):
        await asyncio.sleep(0.4)
        return "done"

    async with (
        served({"work": work}, idle_timeout=0.1) as server,
        rpc(ip="127.0.0.1", port=server.port, idle_timeout=0.1) as remote,
    ):
        assert await remote.work() == "done"


# -- What can be given


@pytest.mark.parametrize("name", list(inspect.signature(Limits).parameters))
async def test_every_limit_is_a_keyword_of_server_connect_and_rpc(name):
    value = getattr(Limits(), name)
    async with served(**{name: value}) as server:
        stream = await connect("127.0.0.1", server.port, **{name: value})
        stream.close()
        async with rpc(ip="127.0.0.1", port=server.port, **{name: value}) as remote:
            assert await remote.add(x=1, y=2) == 3


async def test_a_keyword_that_nobody_knows_is_an_error():
    with pytest.raises(TypeError, match="max_bufer_size"):
        Server({}, max_bufer_size=1)
    with pytest.raises(TypeError, match="max_bufer_size"):
        await connect("127.0.0.1", 1, max_bufer_size=1)
