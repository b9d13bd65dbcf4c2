"""What may be done to an ``rpc`` from a thread that isn't the loop's: closing it, and forgetting it."""

import asyncio
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from tornado import gen
from tornado.iostream import IOStream

from fastcore import ConnectionLost, ConnectionPool, connect, messages, read, rpc, send_recv, write
from helpers.support import in_a_thread, until
from helpers.surface import serving
from helpers.wire import served


async def test_close_streams_in_another_thread_returns_when_their_descriptors_are_free():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            await gen.multi([remote.later(), remote.later()])
            streams = list(remote.streams)

            def close():
                remote.close_streams()
                return [stream.socket for stream in streams]

            assert await asyncio.to_thread(close) == [None, None]


async def test_close_streams_may_be_called_from_another_thread():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            await remote.ping()
            [stream] = remote.streams
            closed = asyncio.Event()
            stream.set_close_callback(closed.set)
            await asyncio.to_thread(remote.close_streams)
            await closed.wait()
            assert await remote.ping() == b"pong"


async def test_an_rpc_collected_in_another_thread_closes_its_streams_in_their_own():
    with serving() as server:
        remote = rpc(ip="127.0.0.1", port=server.port)
        await remote.ping()
        [stream] = remote.streams
        where = asyncio.get_running_loop().create_future()
        stream.set_close_callback(lambda: where.set_result(threading.current_thread()))
        held = [remote]
        del remote
        await asyncio.to_thread(held.clear)
        assert await where is threading.current_thread()


async def never(stream):
    await asyncio.sleep(3600)


async def test_an_rpc_closed_elsewhere_ends_its_calls():
    async with served({"never": never}) as server:
        remote = rpc(ip="127.0.0.1", port=server.port)
        call = remote.never()
        await remote.add(x=1, y=2)
        await in_a_thread(remote.close_streams)
        with pytest.raises(ConnectionLost, match="'never'"):
            await call
        assert await remote.add(x=1, y=2) == 3
        remote.close_rpc()


def rows(stream):
    yield from range(100)


#: What is used in another thread: a stream with messages and one without, an rpc, a pool, and what they gave.
USES = {
    "write": lambda at: write(at.stream, 1),
    "read": lambda at: read(at.stream),
    "messages": lambda at: at.messages.__anext__().send(None),
    "send_recv": lambda at: send_recv(at.stream, op="add", x=1, y=2),
    "first write": lambda at: write(at.fresh, 1),
    "first read": lambda at: read(at.fresh),
    "first messages": lambda at: messages(at.fresh),
    "rpc over a stream": lambda at: rpc(stream=at.stream),
    "rpc over a fresh one": lambda at: rpc(stream=at.fresh),
    "call": lambda at: at.remote.add(x=1, y=2),
    "call of a pool": lambda at: at.pool(ip="127.0.0.1", port=at.port).add(x=1, y=2),
    "connect": lambda at: at.pool.connect("127.0.0.1", at.port),
    "release": lambda at: at.pool.release(at.taken),
    "add": lambda at: at.pool.add(("127.0.0.1", at.port), at.stream),
    "cancel": lambda at: at.call.cancel(),
    "iterate": lambda at: aiter(at.call),
    "next answer": lambda at: at.answers.__anext__().send(None),
}


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("use", USES)
async def test_what_is_used_in_another_thread_says_so_at_once_and_goes_on_where_it_belongs(use, busy):
    sockets = socket.socketpair()
    async with served({"never": never, "rows": rows}) as server:
        at = SimpleNamespace(port=server.port, fresh=IOStream(sockets[0]))
        at.stream = await connect("127.0.0.1", server.port)
        listened_to = await connect("127.0.0.1", server.port)
        at.messages = messages(listened_to)
        at.pool = ConnectionPool()
        at.taken = await at.pool.connect("127.0.0.1", server.port)
        async with rpc(ip="127.0.0.1", port=server.port) as at.remote:
            at.call = at.remote.never()
            at.answers = aiter(at.remote.rows())
            assert await anext(at.answers) == 0
            in_thread = in_a_thread(lambda: USES[use](at))
            if busy:
                # The loop is at work all the time, and lets the other thread run in between.
                end = time.monotonic() + 0.02
                while time.monotonic() < end:
                    pass
            with pytest.raises(RuntimeError, match=r"another thread|no event loop runs"):
                await in_thread
            assert not at.call.done()
            assert await anext(at.answers) == 1
            assert await at.remote.add(x=1, y=2) == 3
            for stream in (at.stream, listened_to, at.taken):
                await write(stream, {"op": "add", "x": 1, "y": 2})
            assert await read(at.stream) == await anext(at.messages) == await read(at.taken) == 3
            at.pool.release(at.taken)
            other = IOStream(sockets[1])
            await write(at.fresh, "still a stream")
            assert await read(other) == "still a stream"
        at.pool.close()
        for stream in (at.stream, listened_to, at.fresh, other):
            stream.close()


async def test_a_server_may_be_stopped_in_another_thread():
    async with served() as server:
        await in_a_thread(server.stop)
        with pytest.raises(ConnectionLost, match="Connect call failed"):
            await connect("127.0.0.1", server.port, timeout=0.01)


async def test_an_iteration_that_is_dropped_in_another_thread_ends_its_call_in_its_own():
    async with served({"endless": endless}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        answers = [aiter(remote.endless())]
        assert await anext(answers[0]) == 0
        await in_a_thread(answers.clear)
        await until(lambda: not server.stats()["running"])
        assert await remote.add(x=1, y=2) == 3


async def endless(stream):
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0)
