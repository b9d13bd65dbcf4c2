"""``send_recv``: one call, over a connection of its own or over the caller's stream."""

import asyncio

import pytest

import fastcore
from fastcore import Server, connect, send_recv
from helpers.surface import serving


@pytest.mark.parametrize("how", ["arg", "addr", "parts", "stream"])
async def test_send_recv_takes_any_address(how):
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        where = {
            "arg": {"arg": ("127.0.0.1", server.port)},
            "addr": {"addr": f"127.0.0.1:{server.port}".encode()},
            "parts": {"ip": b"127.0.0.1", "port": server.port},
            "stream": {"stream": stream},
        }[how]
        assert await send_recv(op="add", x=1, y=2, **where) == 3
        stream.close()


async def test_send_recv_on_a_stream_takes_the_first_answer_that_waits():
    async with Server({"add": lambda stream, x, y: x + y}) as server:
        server.listen(0, "127.0.0.1")
        stream = await connect("127.0.0.1", server.port)
        for _ in range(2):
            fastcore.write(stream, {"op": "add", "x": 1, "y": 2})
        assert await fastcore.read(stream) == 3
        call = send_recv(stream, op="add", x=3, y=4)
        assert await asyncio.wait_for(call, 5) == 3
        assert await fastcore.read(stream) == 7
        stream.close()


async def test_send_recv_without_a_reply_gives_none():
    with serving() as server:
        assert await send_recv(ip="127.0.0.1", port=server.port, op="ping", reply=False) is None
