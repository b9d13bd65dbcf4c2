"""Middleware is around each handler, whatever kind it is of, from before its call to its last answer."""

import asyncio
import contextlib
import functools
import gc
import logging
import warnings
from collections.abc import Iterator

import pytest
from tornado import gen

from fastcore import CallDetails, Server, caller_of, connect, read, rpc, write
from fastcore.server.connection import Connection
from helpers.middleware import Events, span
from helpers.support import until
from helpers.wire import frame, served, stranger_at


def plain(stream):
    return span.get()


async def coroutine(stream):
    before = span.get()
    await asyncio.sleep(0)
    assert before == span.get()
    return span.get()


@gen.coroutine
def tornados(stream):
    before = span.get()
    yield gen.moment
    assert before == span.get()
    return span.get()


async def task_of_its_own(stream):
    async with asyncio.timeout(5):
        return await asyncio.create_task(coroutine(stream))


def generator(stream):
    for _ in range(2):
        yield span.get()


async def async_generator(stream):
    for _ in range(2):
        await asyncio.sleep(0)
        yield span.get()


class Callable_:
    async def __call__(self, stream):
        return await coroutine(stream)


ONE = {
    "plain": plain,
    "coroutine": coroutine,
    "tornados": tornados,
    "task_of_its_own": task_of_its_own,
    "gives_a_coroutine": lambda stream: coroutine(stream),
    "partial": functools.partial(coroutine),
    "callable": Callable_(),
}
MANY = {
    "generator": generator,
    "async_generator": async_generator,
    "gives_a_generator": lambda stream: generator(stream),
    "gives_an_async_generator": lambda stream: async_generator(stream),
}
EITHER = pytest.mark.parametrize("way", ["plain", "waiting"])


@EITHER
@pytest.mark.parametrize("op", ONE)
async def test_it_is_around_handlers_of_one_answer(op: str, way: str):
    events = Events()
    async with (
        served(ONE, middleware=[getattr(events, way)]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await getattr(remote, op)() == op
        assert events == [f"enter {op}", f"leave {op}"]
    assert span.get() == "none"


@EITHER
@pytest.mark.parametrize("op", MANY)
async def test_it_is_around_all_answers_of_a_stream(op: str, way: str):
    events = Events()
    async with (
        served(MANY, middleware=[getattr(events, way)]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        async for answer in getattr(remote, op)():
            assert answer == op
            assert events[0] == f"enter {op}"
        assert events == [f"enter {op}", f"leave {op}"]
        assert await getattr(remote, op)() == [op, op]


@EITHER
async def test_a_classic_client_s_requests_are_within_it_too(way: str):
    events = Events()
    async with (
        served(ONE | MANY, middleware=[getattr(events, way)]) as server,
        stranger_at(server) as stranger,
    ):
        for op in (*ONE, *MANY):
            stranger.say(frame({"op": op}))
            assert await stranger.hears() == (op if op in ONE else [op, op])
        assert events == [f"{what} {op}" for op in (*ONE, *MANY) for what in ("enter", "leave")]


@EITHER
@pytest.mark.parametrize("kind", [*ONE, *MANY])
async def test_it_sees_the_error_of_a_handler_and_the_caller_gets_it(kind: str, way: str):
    def fail(stream):
        raise KeyError("no")

    handlers = {
        "plain": fail,
        "coroutine": gen.coroutine(fail),
        "tornados": gen.coroutine(fail),
    }

    async def fails(stream):
        await asyncio.sleep(0)
        fail(stream)

    async def fails_later(stream):
        yield 1
        fail(stream)

    def fails_then(stream):
        yield 1
        fail(stream)

    handler = handlers.get(kind, fails if kind in ONE else fails_later if "async" in kind else fails_then)
    events = Events()
    async with (
        served({"op": handler}, middleware=[getattr(events, way)]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(KeyError, match="no"):
            await remote.op()
        assert events == ["enter op", "KeyError op"]
        assert server.stats()["errors"] == {"handler": 1}


@EITHER
async def test_it_hears_that_a_call_was_given_up(way: str):
    async def never(stream):
        await asyncio.Event().wait()

    async def ticks(stream):
        while True:
            yield 1
            await asyncio.sleep(0)

    events = Events()
    async with (
        served({"never": never, "ticks": ticks}, middleware=[getattr(events, way)]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        await remote.add(x=1, y=2)
        events.clear()
        with pytest.raises(TimeoutError):
            await remote.never(timeout=0.05)
        await until(lambda: events == ["enter never", "CancelledError never"])
        events.clear()
        async for _ in remote.ticks():
            break
        await until(lambda: len(events) == 2)
        assert events[0] == "enter ticks"


async def test_the_first_is_the_outermost():
    order = []

    def named(name):
        @contextlib.contextmanager
        def middleware(call):
            order.append(name)
            yield
            order.append(name.upper())

        return middleware

    async with (
        served(middleware=[named("a"), named("b")]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await remote.add(x=1, y=2) == 3
    assert order == ["a", "b", "B", "A"]


async def test_it_may_refuse_by_who_calls_what():
    @contextlib.contextmanager
    def rights(call: CallDetails) -> Iterator[None]:
        if call.op == "drop" and caller_of(call.stream) != "ada":
            raise PermissionError(f"{caller_of(call.stream)} may not {call.op}")
        yield

    dropped = []
    async with served(
        {"drop": lambda stream: dropped.append(1)}, middleware=[rights], token={"ada": "a", "bob": "b"}
    ) as server:
        async with rpc(ip="127.0.0.1", port=server.port, token="b") as remote:
            with pytest.raises(PermissionError, match="bob may not drop"):
                await remote.drop()
            assert await remote.add(x=1, y=2) == 3
            assert dropped == []
        async with rpc(ip="127.0.0.1", port=server.port, token="a") as remote:
            await remote.drop()
            assert dropped == [1]


async def test_it_may_change_the_keywords_and_see_the_stream():
    @contextlib.contextmanager
    def middleware(call: CallDetails) -> Iterator[None]:
        assert call.stream is not None
        assert call.peer.startswith("127.0.0.1:")
        call.keywords["x"] += 10
        yield

    async with (
        served(middleware=[middleware]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await remote.add(x=1, y=2) == 13


async def test_it_sees_what_else_the_header_says():
    headers = []

    @contextlib.contextmanager
    def middleware(call: CallDetails) -> Iterator[None]:
        headers.append(call.header)
        yield

    async with served(middleware=[middleware]) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 1, "y": 2}, call=0, traceparent="00-1", window=3))
        assert await stranger.hears() == 3
        stranger.calls(1, "add", x=1, y=2)
        assert await stranger.hears() == 3
    assert headers == [{"traceparent": "00-1"}, {}]


async def test_requests_that_were_held_back_have_their_own_headers():
    headers = {}

    @contextlib.contextmanager
    def middleware(call: CallDetails) -> Iterator[None]:
        headers[call.keywords["n"]] = call.header.get("n")
        yield

    async def slow(stream, n):
        await asyncio.sleep(0)
        return n

    async with (
        served({"slow": slow}, middleware=[middleware], max_running_per_connection=1) as server,
        stranger_at(server) as stranger,
    ):
        stranger.say(*[frame({"op": "slow", "n": n}, call=n, n=n) for n in range(20)])
        await stranger.hears_answers(*range(20))
    assert headers == {n: n for n in range(20)}


@EITHER
async def test_wrong_keywords_are_told_as_without_it(way: str, caplog):
    caplog.set_level(logging.INFO)
    async with (
        served(middleware=[getattr(Events(), way)]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
            await remote.add(x=1)
        with pytest.raises(ValueError, match="no handler found for 'nothing'; this Server has add, identity"):
            await remote.nothing()
    if way == "plain":
        assert all(record.exc_info is None for record in caplog.records)


async def test_a_handler_may_read_and_write_by_hand_within_it():
    async def echo(stream):
        await write(stream, await read(stream))

    events = Events()
    async with served({"echo": echo}, middleware=[events.plain]) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "echo", "reply": False})
        await write(stream, "hello")
        assert await read(stream) == "hello"
        stream.close()
        await until(lambda: events == ["enter echo", "leave echo"])


async def test_a_handler_that_blocks_the_loop_is_still_named(caplog):
    async def blocks(stream):
        import time

        await asyncio.sleep(0)
        time.sleep(0.05)

    async with (
        served({"blocks": blocks}, middleware=[Events().plain], slow_handler=0.02) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        await remote.blocks()
    assert "'blocks', called from" in caplog.text


async def test_what_gives_no_context_manager_is_told_what_it_lacks():
    def undecorated(call):
        yield

    async with (
        served(middleware=[undecorated]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(TypeError, match=r"not <generator object .*: decorate it with @contextmanager"):
            await remote.add(x=1, y=2)


async def test_what_its_own_errors_are_the_caller_is_told():
    @contextlib.contextmanager
    def broken(call: CallDetails) -> Iterator[None]:
        yield
        raise OSError("the tracer is gone")

    async with (
        served(middleware=[broken]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(OSError, match="the tracer is gone"):
            await remote.add(x=1, y=2)


def test_a_server_without_any_has_nothing_of_it():
    server = Server({})
    assert server._connection is Connection
    assert server._service.host is server


async def test_a_handler_that_is_cancelled_before_its_first_step_leaves_no_coroutine_behind():
    left: list[str] = []

    @contextlib.contextmanager
    def notes(call):
        try:
            yield
        finally:
            left.append(call.op)

    async def wait(stream):
        await asyncio.sleep(60)

    def abort(stream):
        for task in server._service.tasks:
            task.cancel()

    handlers = {"wait": wait, "abort": abort}
    async with served(handlers, middleware=[notes]) as server, stranger_at(server) as stranger:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stranger.say(frame({"op": "wait"}, call=1), frame({"op": "abort"}, call=2))
            await stranger.hears_answers(1, 2)
            gc.collect()
        assert left == ["abort", "wait"]
        assert not caught
