"""The server dies: every call that waits ends, with an error that names peer and op."""

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Iterator

import pytest

from fastcore import ConnectionLost, rpc
from helpers.support import Program, until
from helpers.wire import frame, reset

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


@pytest.mark.parametrize(("share", "connections"), [(0, 50), (4, 4), (1, 1)])
async def test_every_waiting_call_ends_when_the_server_is_killed(share, connections):
    with server_process() as (program, port):
        async with rpc(ip="127.0.0.1", port=port, share=share) as remote:
            await remote.add(x=1, y=2)
            calls = [remote.never() for _ in range(50)]
            await until(lambda: sum(not free for free in remote.streams.values()) == connections)
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
