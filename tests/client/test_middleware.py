"""Middleware of a caller is around each call, until its last answer."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from fastcore import CallDetails, ConnectionLost, ConnectionPool, rpc
from fastcore.client.pool import ConnectionPool as Pool
from helpers.middleware import Events, span
from helpers.wire import fake_server, frame, served


def rows(stream, count):
    yield from range(count)


async def nap(stream):
    await asyncio.sleep(60)


@pytest.mark.parametrize("of_a_pool", [False, True])
async def test_it_is_around_each_call(of_a_pool: bool):
    events = Events()
    async with served() as server:
        where = {"ip": "127.0.0.1", "port": server.port}
        pool = ConnectionPool(middleware=[events.plain])
        remote = pool(**where) if of_a_pool else rpc(**where, middleware=[events.plain])
        call = remote.add(x=1, y=2)
        assert events == ["enter add"]
        # The caller's own context is as it was.
        assert span.get() == "none"
        assert await call == 3
        assert events == ["enter add", "leave add"]
        remote.close_rpc()
        pool.close()


async def test_it_sees_errors_streams_and_calls_given_up():
    events = Events()
    async with (
        served({"rows": rows, "nap": nap}) as server,
        rpc(ip="127.0.0.1", port=server.port, middleware=[events.plain]) as remote,
    ):
        with pytest.raises(TypeError):
            await remote.add(x=1, y="two")
        with pytest.raises(TimeoutError):
            await remote.nap(timeout=0.05)
        assert [row async for row in remote.rows(count=3)] == [0, 1, 2]
        await asyncio.sleep(0)
        call = remote.nap()
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0)
    assert events == [
        *("enter add", "TypeError add", "enter nap", "TimeoutError nap"),
        *("enter rows", "leave rows", "enter nap", "CancelledError nap"),
    ]


async def test_it_hears_of_a_connection_that_is_lost():
    events = Events()
    async with (
        fake_server() as server,
        rpc(ip="127.0.0.1", port=server.port, middleware=[events.plain]) as remote,
    ):
        call = remote.add(x=1, y=2)
        stranger = await server.next()
        await stranger.hears()
        stranger.leave()
        with pytest.raises(ConnectionLost):
            await call
    assert events == ["enter add", "ConnectionLost add"]


@pytest.mark.parametrize("reply", [True, False])
async def test_what_it_puts_into_the_header_goes_with_the_request(reply: bool):
    @contextlib.contextmanager
    def traced(call: CallDetails) -> Iterator[None]:
        call.header["traceparent"] = "00-1-2-3"
        # Far more than fastcore itself ever says.
        call.header["tracestate"] = "x" * 1000
        call.keywords["y"] += 10
        yield

    async with fake_server() as server, rpc(ip="127.0.0.1", port=server.port, middleware=[traced]) as remote:
        more = {} if reply else {"reply": False}
        call = remote.add(x=1, y=2, **more)
        stranger = await server.next()
        request, header = await stranger.hears_all()
        assert request == {"op": "add", "x": 1, "y": 12, **more}
        assert header.pop("window", 32) == 32
        assert header == {"call": 0, "traceparent": "00-1-2-3", "tracestate": "x" * 1000}
        if reply:
            stranger.say(frame(13, call=0))
            assert await call == 13
        else:
            assert await call is None


@pytest.mark.parametrize("size", [10_000, 100_000, 3_000_000])
@pytest.mark.parametrize("compression", [None, "zlib"])
async def test_large_messages_have_it_too(size: int, compression: str | None):
    seen = []

    @contextlib.contextmanager
    def sees(call: CallDetails) -> Iterator[None]:
        seen.append(call.header)
        yield

    @contextlib.contextmanager
    def says(call: CallDetails) -> Iterator[None]:
        call.header |= {f"key {n}": n for n in range(20)}
        yield

    async with (
        served({"size": lambda stream, data: len(data)}, middleware=[sees]) as server,
        rpc(ip="127.0.0.1", port=server.port, middleware=[says], compression=compression) as remote,
    ):
        assert await remote.size(data=bytes(size)) == size
    assert seen == [{f"key {n}": n for n in range(20)}]


@pytest.mark.parametrize(
    "header",
    [{"call": 7}, {"length": 1}, {7: "x"}, {"x": object()}, {"x": "7d629535c4f3a6963f566af7d3e3a2d2"}],
)
async def test_a_header_that_can_t_be_sent_is_told_at_once(header: dict[object, object]):
    events = Events()

    @contextlib.contextmanager
    def wrong(call: CallDetails) -> Iterator[None]:
        call.header |= header
        yield

    async with (
        served() as server,
        rpc(ip="127.0.0.1", port=server.port, middleware=[events.plain, wrong]) as remote,
    ):
        with pytest.raises((ValueError, TypeError), match=r"further key|serialize|can't be sent|sentinel"):
            remote.add(x=1, y=2)
    assert events[0] == "enter add"
    assert len(events) == 2


async def test_a_caller_s_middleware_can_t_wait():
    @contextlib.asynccontextmanager
    async def waits(call):
        yield

    async with served() as server, rpc(ip="127.0.0.1", port=server.port, middleware=[waits]) as remote:
        with pytest.raises(TypeError, match="plain context manager"):
            remote.add(x=1, y=2)


async def test_the_limits_of_time_hold_within_it():
    async with (
        served({"nap": nap}) as server,
        rpc(ip="127.0.0.1", port=server.port, middleware=[Events().plain], call_timeout=0.05) as remote,
    ):
        with pytest.raises(TimeoutError, match=r"no answer to 'nap' .* within 0\.05 s"):
            await remote.nap()
        with pytest.raises(TypeError, match="by keyword"):
            remote.add(1, 2)


def test_a_pool_without_any_has_nothing_of_it():
    assert ConnectionPool().call.__func__ is Pool.call
