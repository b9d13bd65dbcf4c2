"""``writable_values``: who asks for it gets large binary values as bytearray, over sockets."""

import asyncio
import socket

import pytest
from tornado.iostream import IOStream

from fastcore import ConnectionPool, FrameTooLarge, configure, connect, messages, read, rpc, write
from fastcore._values import LARGE, WRITABLE
from helpers.certificates import client_context, server_context
from helpers.wire import fake_server, frame, served, stranger_at

SIZES = [10, WRITABLE - 1, WRITABLE, LARGE - 1, LARGE, LARGE + 1, 5_000_000]
TYPES = [bytes if size < WRITABLE else bytearray for size in SIZES]


def values():
    return [bytes([size % 256]) * size for size in SIZES]


def echo(stream, values):
    return values


def types(stream, values):
    return [type(value).__name__ for value in values]


HANDLERS = {"echo": echo, "types": types}


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_a_caller_and_a_server_each_ask_for_their_own_side(compression, tls):
    at_server = {"ssl_options": server_context()} if tls else {}
    at_client = {"ssl_options": client_context()} if tls else {}
    for writable in (False, True):
        async with (
            served(HANDLERS, compression=compression, writable_values=writable, **at_server) as server,
            rpc(
                ip="127.0.0.1",
                port=server.port,
                compression=compression,
                writable_values=not writable,
                **at_client,
            ) as remote,
        ):
            received = await remote.echo(values=values())
            assert received == values()
            assert [type(value) for value in received] == ([bytes] * len(SIZES) if writable else TYPES)
            expected = TYPES if writable else [bytes] * len(SIZES)
            assert await remote.types(values=values()) == [kind.__name__ for kind in expected]


async def test_a_stream_of_connect_and_the_connections_of_a_pool():
    async with served(HANDLERS) as server:
        stream = await connect("127.0.0.1", server.port, writable_values=True)
        await write(stream, {"op": "echo", "values": values()})
        assert [type(value) for value in await read(stream)] == TYPES
        stream.close()
        pool = ConnectionPool(writable_values=True)
        received = await pool(ip="127.0.0.1", port=server.port).echo(values=values())
        assert [type(value) for value in received] == TYPES
        pool.close()


async def test_a_stream_that_somebody_else_made():
    ours, theirs = map(IOStream, socket.socketpair())
    configure(ours, writable_values=True, max_buffer_size=LARGE)
    write(theirs, values()[:3])
    assert [type(value) for value in await read(ours)] == TYPES[:3]
    write(theirs, bytes(LARGE))
    with pytest.raises(FrameTooLarge, match="max_buffer_size"):
        await read(ours)
    ours.close()
    theirs.close()


async def test_a_stream_is_configured_before_its_first_message():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        with pytest.raises(RuntimeError, match=f"127.0.0.1:{server.port} already"):
            configure(stream, writable_values=True)
        stream.close()
    with pytest.raises(TypeError, match="IOStream"):
        configure("a stream")  # type: ignore[arg-type]
    ours, theirs = map(IOStream, socket.socketpair())
    with pytest.raises(ValueError, match="zip"):
        configure(ours, compression="zip")
    with pytest.raises(TypeError, match="max_size"):
        configure(ours, max_size=1)
    configure(ours)
    ours.close()
    theirs.close()


async def test_a_peer_that_tells_no_length_is_read_the_same_way():
    async with fake_server() as server:
        stream = await connect("127.0.0.1", server.port, writable_values=True)
        stranger = await server.next()
        stranger.say(frame(values()[:5]), frame("small"))
        assert [type(value) for value in await read(stream)] == TYPES[:5]
        assert await read(stream) == "small"
        stream.close()


async def test_values_stay_what_they_were_while_others_arrive_and_after_the_end():
    async with served(HANDLERS) as server, stranger_at(server) as stranger:
        stream = await connect("127.0.0.1", server.port, writable_values=True)
        kept = []
        for fill in range(5):
            await write(stream, {"op": "echo", "values": [bytes([fill]) * WRITABLE]})
            kept.extend(await read(stream))
        stream.close()
        kept[0].extend(b"it may even grow")
        assert [value[:WRITABLE] for value in kept] == [bytes([fill]) * WRITABLE for fill in range(5)]
        assert await stranger.is_served()


async def test_a_value_that_a_handler_was_given_may_be_changed_and_answered_with():
    async def longer(stream, data):
        data += b"cd"
        return data

    async with (
        served({"longer": longer}, writable_values=True) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await remote.longer(data=b"ab" * WRITABLE) == b"ab" * WRITABLE + b"cd"


async def test_a_read_that_was_given_up_in_the_middle_of_a_value_loses_nothing():
    async with fake_server() as server:
        stream = await connect("127.0.0.1", server.port, writable_values=True)
        stranger = await server.next()
        data = frame({"data": bytes(LARGE)}, length=LARGE + 11)
        stranger.say(data[: LARGE // 2])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(stream), 0.05)
        stranger.say(data[LARGE // 2 :], frame("next"))
        heard = [message async for message in first(2, messages(stream))]
        assert heard == [{"data": bytes(LARGE)}, "next"]
        assert type(heard[0]["data"]) is bytearray
        stream.close()


async def first(count, source):
    for _ in range(count):
        yield await anext(source)


def test_numpy_may_write_to_what_arrives():
    numpy = pytest.importorskip("numpy")

    async def main():
        async with (
            served(HANDLERS) as server,
            rpc(ip="127.0.0.1", port=server.port, writable_values=True) as remote,
        ):
            (data,) = await remote.echo(values=[numpy.arange(100_000.0).data.cast("B")])
            array = numpy.frombuffer(data)
            array += 1
            assert array[-1] == 100_000.0

    asyncio.run(main())
