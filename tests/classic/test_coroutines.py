"""Tornado's coroutines of 2016 and native ones, side by side, in whoever's loop."""

import asyncio
from datetime import timedelta

import pytest
from tornado import gen
from tornado.ioloop import IOLoop
from tornado.util import TimeoutError as TornadoTimeoutError

from fastcore import connect, read, rpc, send_recv, write
from helpers.support import run
from helpers.surface import serving


async def test_everything_gives_a_real_future_at_once():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        remote = rpc(("127.0.0.1", server.port))
        futures = [
            connect("127.0.0.1", server.port),
            write(stream, {"op": "ping"}),
            read(stream),
            send_recv(ip="127.0.0.1", port=server.port, op="ping"),
            remote.ping(),
        ]
        assert all(isinstance(future, asyncio.Future) for future in futures)
        another, *_ = await asyncio.gather(*futures)
        another.close()
        stream.close()
        remote.close_rpc()


def test_a_tornado_coroutine_yields_one_a_list_and_a_dict():
    @gen.coroutine
    def main():
        with serving() as server:
            remote = rpc(ip="127.0.0.1", port=server.port)
            one = yield remote.add(x=1, y=2)
            several = yield [remote.add(x=n, y=1) for n in range(3)]
            named = yield {"a": remote.ping(), "b": remote.echo(x="b")}
            remote.close_rpc()
        raise gen.Return((one, several, named))

    loop = IOLoop(make_current=False)
    try:
        assert loop.run_sync(main, timeout=30) == (3, [1, 2, 3], {"a": b"pong", "b": "b"})
    finally:
        loop.close()


def test_a_started_loop_runs_them_too():
    seen = []

    async def in_started_loop():
        loop = IOLoop.current()

        @gen.coroutine
        def main():
            with serving() as server:
                seen.append((yield send_recv(addr=f"127.0.0.1:{server.port}", op="ping", close=True)))
            loop.stop()

        loop.add_callback(main)

    loop = IOLoop(make_current=False)
    loop.add_callback(in_started_loop)
    loop.start()
    loop.close()
    assert seen == [b"pong"]


def test_asyncio_run_runs_them_too():
    async def main():
        with serving() as server:
            async with rpc(ip="127.0.0.1", port=server.port) as remote:
                return await remote.tornado_later(x=1), await remote.later(x=2), await remote.future(x=3)

    assert asyncio.run(main()) == (1, 2, 3)


async def test_multi_wait_iterator_and_gather_take_them():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await gen.multi([remote.echo(x=1), remote.echo(x=2)]) == [1, 2]
            assert await asyncio.gather(remote.echo(x=3), remote.echo(x=4)) == [3, 4]
            iterator = gen.WaitIterator(remote.echo(x=5), remote.echo(x=6))
            assert {await iterator.next(), await iterator.next()} == {5, 6}


async def test_with_timeout_passes_a_message_on_that_comes_in_time():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "later", "x": 1})
        assert await gen.with_timeout(timedelta(seconds=10), read(stream)) == 1
        stream.close()


def test_a_future_nobody_looked_at_says_nothing(caplog):
    async def main():
        with serving() as server:
            stream = await connect("127.0.0.1", server.port)
            stream.close()
            for _ in range(10):
                write(stream, {"op": "ping"})
                read(stream)
            remote = rpc(ip="127.0.0.1", port=server.port)
            remote.divide(x=1, y=0)
            await remote.ping()
            remote.close_rpc()
            remote.ping()

    run(main())
    assert [record for record in caplog.records if record.name in ("asyncio", "tornado.application")] == []


async def test_a_timeout_of_with_timeout_is_the_one_that_old_programs_catch():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises((gen.TimeoutError, TornadoTimeoutError)):
                await gen.with_timeout(timedelta(milliseconds=20), remote.later(seconds=30))
