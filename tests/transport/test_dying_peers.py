"""The other side dies: every call that waits ends, with an error that names peer and op."""

import asyncio
import contextlib
import re
import signal
import socket
import struct
from collections.abc import Iterator

import pytest
from tornado.iostream import IOStream

from fastcore import ConnectionLost, Server, connect, read, rpc, write
from fastcore.transport.tornado import channel_of
from helpers.support import Program, until
from helpers.wire import frame, served, stranger_at

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

CLIENT = """
import asyncio, sys
from fastcore import connect, write

async def main(port):
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "stream"})
    print("asked")
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1])))
"""


@contextlib.contextmanager
def server_process(port: int = 0) -> Iterator[tuple[Program, int]]:
    with Program("-c", SERVER, str(port)) as program:
        yield program, int(program.line())


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as the kernel of a crashed program may."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    return theirs, ours


# -- The server dies


async def test_every_waiting_call_ends_when_the_server_is_killed():
    with server_process() as (program, port):
        async with rpc(ip="127.0.0.1", port=port) as remote:
            await remote.add(x=1, y=2)
            calls = [remote.never() for _ in range(50)]
            await until(lambda: sum(not free for free in remote.streams.values()) == 50)
            program.send(signal.SIGKILL)
            for end in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(end, ConnectionLost)
                assert f"127.0.0.1:{port}" in str(end)
                assert "'never'" in str(end)
            assert remote.streams == {}


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


# -- The client dies


async def test_a_handler_that_streams_to_a_killed_client_hears_of_it():
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def stream(stream):
        try:
            while True:
                await write(stream, b"x" * 10_000)
        except ConnectionLost as error:
            ended.set_result(error)
            raise

    async with served({"stream": stream}) as server:
        with Program("-c", CLIENT, str(server.port)) as program:
            program.line()
            program.send(signal.SIGKILL)
            assert "127.0.0.1:" in str(await ended)
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3


async def test_a_handler_that_reads_from_a_client_that_left_hears_of_it():
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def listen(stream):
        try:
            await read(stream)
        except ConnectionLost as error:
            ended.set_result(error)
            raise

    async with served({"listen": listen}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "listen"}))
        reset(stranger.writer)
        assert isinstance(await ended, ConnectionLost)


async def test_an_answer_after_the_client_is_gone_troubles_nobody(caplog):
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(stream):
        asked.set()
        await may_answer.wait()
        return "too late"

    async with served({"slow": slow}) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "slow"}))
            await asked.wait()
        may_answer.set()
        await until(lambda: not server._running)
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_a_client_that_only_stops_sending_still_gets_the_answers_it_asked_for():
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(*(frame({"op": "add", "x": n, "y": 0}) for n in range(100)))
        stranger.writer.write_eof()
        assert [await stranger.hears() for _ in range(100)] == [*range(100)]
        assert await stranger.hears_the_end() == b""


async def test_ends_of_all_kinds_leave_the_server_serving():
    async with served() as server:
        for number in range(200):
            async with stranger_at(server) as stranger:
                stranger.say(frame({"op": "add", "x": 1, "y": 2})[: number % 40 - 1])
                if number % 3 == 0:
                    reset(stranger.writer)
                elif number % 3 == 1:
                    stranger.writer.write_eof()
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3


@pytest.mark.parametrize("message", ["small", "x" * 100_000, b"x" * 100_000])
async def test_a_write_to_a_peer_that_has_reset_the_connection_fails(message):
    theirs, ours = tcp_pair()
    stream = IOStream(ours)
    channel_of(stream)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(ConnectionLost, match=r"127.0.0.1:"):
        await write(stream, message)


async def test_a_server_is_done_with_a_client_that_left_without_reading_its_answers():
    class Handled(Server):
        async def handle_stream(self, stream, address):
            await super().handle_stream(stream, address)
            gone.set()

    gone = asyncio.Event()
    server = Handled({"big": lambda stream: b"x" * 50_000_000})
    server.listen(0, "127.0.0.1")
    async with server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "big"}) * 2)
        await until(lambda: server.stats()["buffers"] > 1_000_000)
        reset(stranger.writer)
        await gone.wait()


async def test_a_connection_closed_under_a_reader_of_ours_says_who_was_lost():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        reading = read(stream)
        stream.close()
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{server.port}"):
            await reading
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{server.port}"):
            await write(stream, "more")


async def test_a_server_subclass_learns_of_the_end_by_the_close_callback():
    gone = asyncio.Event()

    class Watchful(Server):
        def handle_stream(self, stream, address):
            stream.set_close_callback(gone.set)
            return super().handle_stream(stream, address)

    server = Watchful({})
    server.listen(0, "127.0.0.1")
    async with server, stranger_at(server) as stranger:
        stranger.leave()
        await gone.wait()


async def test_who_reads_the_last_message_sees_that_the_stream_is_closed_with_it():
    theirs, ours = socket.socketpair()
    with theirs:
        theirs.sendall(frame("first") + frame("last"))
    stream = IOStream(ours)
    assert await read(stream) == "first"
    assert await read(stream) == "last"
    assert stream.closed()
    with pytest.raises(ConnectionLost):
        await read(stream)
