"""The server dies: every call that waits ends, with an error that names peer and op."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from fastcore import ConnectionLost, ConnectionPool, rpc
from fastcore.client import connections
from helpers.certificates import client_context, server_context
from helpers.classic_server import classic_server
from helpers.support import Program, until
from helpers.wire import frame, reset, served

SERVER = """
import asyncio, sys
from fastcore import Server

async def never(stream):
    await asyncio.Event().wait()

async def main(port):
    server = Server({"never": never, "add": lambda stream, x, y: x + y})
    server.listen(port, "127.0.0.1")
    print(server.port)
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1])))
"""


@contextlib.contextmanager
def server_process(port: int = 0) -> Iterator[tuple[Program, int]]:
    with Program("-c", SERVER, str(port)) as program:
        yield program, int(program.line())


@pytest.mark.parametrize("share", [0, 4, 1])
async def test_every_waiting_call_ends_when_the_server_is_killed(share):
    with server_process() as (program, port):
        async with rpc(ip="127.0.0.1", port=port, share=share) as remote:
            await remote.add(x=1, y=2)
            calls = [remote.never() for _ in range(50)]
            if share:
                # All that were begun before it are under way then, on as many connections as came soon.
                await remote.add(x=1, y=2)
            else:
                await until(lambda: sum(not free for free in remote.streams.values()) == len(calls))
            program.send(signal.SIGKILL)
            for end in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(end, ConnectionLost)
                assert f"127.0.0.1:{port}" in str(end)
                assert "'never'" in str(end)
            await until(lambda: remote.streams == {})


async def test_a_server_that_comes_back_is_used_again():
    with server_process() as (program, port):
        async with rpc(ip="127.0.0.1", port=port) as remote:
            assert await remote.add(x=1, y=2) == 3
            program.send(signal.SIGKILL)
            program.wait()
            with server_process(port):
                await until(lambda: remote.streams == {})
                assert await remote.add(x=3, y=4) == 7


async def test_while_the_server_is_away_calls_say_so():
    with server_process() as (program, port):
        async with rpc(ip="127.0.0.1", port=port, timeout=0.1) as remote:
            assert await remote.add(x=1, y=2) == 3
            program.send(signal.SIGKILL)
            program.wait()
            await until(lambda: remote.streams == {})
            with pytest.raises(ConnectionLost, match=re.escape(f"127.0.0.1:{port}, not within 0.1 s")):
                await remote.add(x=1, y=2)


async def test_a_call_made_before_the_server_is_there_waits_for_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with rpc(ip="127.0.0.1", port=port, timeout=20) as remote:
        call = remote.add(x=1, y=2)
        with server_process(port):
            assert await call == 3


@pytest.mark.parametrize("part", [0, 10, -1])
@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_server_that_leaves_in_the_middle_of_its_answer_ends_the_call(part, how):
    async def answer_half(reader, writer):
        await reader.read(1)
        writer.write(frame("x" * 1000)[:part])
        await writer.drain()
        if how == "reset":
            reset(writer)
        else:
            writer.close()

    server = await asyncio.start_server(answer_half, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, rpc(ip="127.0.0.1", port=port) as remote:
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port} .*'add'"):
            await remote.add(x=1, y=2)
        assert remote.streams == {}


async def test_a_server_that_only_stops_sending_ends_the_call():
    async def hang_up(reader, writer):
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, rpc(ip="127.0.0.1", port=port) as remote:
        with pytest.raises(ConnectionLost, match="'add'"):
            await remote.add(x=1, y=2)


# -- A connection that its server has closed meanwhile isn't used


@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("share", [4, 0])
@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_call_goes_over_a_fresh_connection_where_the_kept_one_has_ended(over_tls, share, by_reset):
    """Although the loop had no turn in which to hear of that."""
    streams = []

    def add(stream, x, y):
        streams.append(stream)
        return x + y

    ours, theirs = (server_context(), client_context()) if over_tls else (None, None)
    async with served({"add": add}, ssl_options=ours) as server:
        pool = ConnectionPool(share=share, ssl_options=theirs)
        remote = pool(ip="127.0.0.1", port=server.port)
        for number in range(20):
            assert await remote.add(x=number, y=1) == number + 1
            if by_reset:
                streams[-1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            streams[-1].close()
            time.sleep(0.002)
        assert server.stats()["connections"]["ever"] == 20
        pool.close()


async def test_a_classic_server_that_closes_after_its_answer_is_called_anew():
    async with classic_server(add=lambda x, y: x + y) as server:
        pool = ConnectionPool()
        remote = pool(ip="127.0.0.1", port=server.port)
        for number in range(20):
            assert await remote.add(x=number, y=1) == number + 1
            for writer in server.writers.values():
                # At once, and not by way of the loop.
                with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)
        pool.close()


# -- Connections that a burst has left


@pytest.mark.parametrize("share", [4, 0])
async def test_a_burst_leaves_few_connections_after_a_while(monkeypatch, share):
    monkeypatch.setattr(connections, "_SPARE_TTL", 0.05)
    async with served() as server, classic_server(add=lambda x, y: x + y) as classic:
        for port in (server.port, classic.port):
            pool = ConnectionPool(limit=100, share=share)
            remote = pool(ip="127.0.0.1", port=port)
            calls = [remote.add(x=number, y=1) for number in range(500)]
            assert await asyncio.gather(*calls) == [*range(1, 501)]
            await until(lambda: pool.open <= 4)  # noqa: B023
            assert await remote.add(x=1, y=2) == 3
            pool.close()


async def test_connections_that_are_needed_again_and_again_stay(monkeypatch):
    monkeypatch.setattr(connections, "_SPARE_TTL", 0.2)
    async with classic_server(nap=lambda: asyncio.sleep(0.05)) as server:
        pool = ConnectionPool(limit=20)
        remote = pool(ip="127.0.0.1", port=server.port)
        for _ in range(15):
            await asyncio.gather(*[remote.nap() for _ in range(20)])
        assert server.connections == server.most == 20
        pool.close()
