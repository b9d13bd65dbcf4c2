"""What may be done to an ``rpc`` from a thread that isn't the loop's: closing it, and forgetting it."""

import asyncio
import threading

import pytest
from tornado import gen

from fastcore import ConnectionLost, rpc
from helpers.support import in_a_thread
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
