"""`async for message in messages(stream)`."""

import socket
import struct

import pytest

from fastcore import BadMessage, ConnectionLost, connect, messages, read, write
from helpers.wire import frame, served


async def count(stream, to):
    for number in range(to):
        await write(stream, number)
    stream.close()


async def collect(stream):
    return [message async for message in messages(stream)]


async def test_it_gives_each_message_and_ends_with_the_connection():
    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 1000})
        assert await collect(stream) == list(range(1000))


async def test_it_may_be_left_and_gone_on_with():
    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 10})
        async for message in messages(stream):
            if message == 4:
                break
        assert await read(stream) == 5
        assert await collect(stream) == [6, 7, 8, 9]


async def test_half_a_message_is_no_ordinary_end():
    async def hang_up(stream):
        stream.socket.send(frame("whole") + frame("half")[:10])
        stream.close()

    async with served({"hang_up": hang_up}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "hang_up"})
        assert await read(stream) == "whole"
        with pytest.raises(ConnectionLost, match="in the middle of a message"):
            await collect(stream)


async def test_a_broken_connection_is_no_ordinary_end():
    def reset(stream):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()

    async with served({"reset": reset}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "reset"})
        with pytest.raises(ConnectionLost, match="reset"):
            await collect(stream)


async def test_what_is_no_message_ends_the_loop_and_not_the_stream():
    def mumble(stream):
        stream.socket.send(b"\0\0\0\0\xc1" + frame(None)[-32:] + frame("next"))

    async with served({"mumble": mumble}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "mumble", "reply": False})
        with pytest.raises(BadMessage):
            await collect(stream)
        assert await read(stream) == "next"
        stream.close()
