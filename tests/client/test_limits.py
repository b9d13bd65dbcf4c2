"""A client's limits: what a server may cost it."""

import asyncio

import pytest

from fastcore import ConnectionLost, FrameTooLarge, rpc
from helpers.wire import frame, served


async def test_a_client_has_limits_too():
    async with (
        served({"big": lambda stream: "x" * 20_000}) as server,
        rpc(ip="127.0.0.1", port=server.port, max_buffer_size=10_000) as remote,
    ):
        with pytest.raises(FrameTooLarge, match="max_buffer_size="):
            await remote.big()
        assert await remote.add(x=1, y=2) == 3


async def test_a_client_closes_its_idle_connections_and_makes_new_ones():
    async with (
        served() as server,
        rpc(ip="127.0.0.1", port=server.port, idle_timeout=0.1) as remote,
    ):
        assert await remote.add(x=1, y=2) == 3
        while remote.streams:
            await asyncio.sleep(0.01)
        assert await remote.add(x=1, y=2) == 3


async def test_a_server_that_never_finishes_its_answer_is_given_up():
    async def answer_half(reader, writer):
        await reader.read(1)
        writer.write(frame("answer")[:-1])
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer_half, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, rpc(ip="127.0.0.1", port=port, message_timeout=0.2) as remote:
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port}.*'add'.*message_timeout"):
            await remote.add(x=1, y=2)
