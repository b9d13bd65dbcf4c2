"""`async for value in remote.op()`: in which steps the answers come."""

from __future__ import annotations

import asyncio
import time

import pytest

from fastcore import connect, messages, read, rpc, write
from helpers.wire import frame, served


def count_to(stream, to):
    yield from range(to)


async def count_slowly(stream, to):
    for number in range(to):
        await asyncio.sleep(0.001)
        yield number


async def test_the_first_call_of_all_may_be_iterated_over():
    async with served({"count_to": count_to}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        # It waits for its connection when the loop asks for the first value.
        assert [value async for value in remote.count_to(to=3)] == [0, 1, 2]


@pytest.mark.parametrize("op", ["count_to", "count_slowly"])
async def test_each_comes_once_and_in_order_however_they_arrive(op):
    handlers = {"count_to": count_to, "count_slowly": count_slowly}
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        to = 5000 if op == "count_to" else 50
        assert [value async for value in getattr(remote, op)(to=to)] == list(range(to))
        assert await getattr(remote, op)(to=to) == list(range(to))


async def test_one_given_up_loses_nothing():
    async with served({"slowly": count_slowly}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        answers = aiter(remote.slowly(to=20))
        given = []
        while (value := await next_within(answers, 0.0005)) != "over":
            if value is not None:
                given.append(value)
        assert given == list(range(20))


async def next_within(answers, seconds):
    try:
        async with asyncio.timeout(seconds):
            return await anext(answers, "over")
    except TimeoutError:
        return None


async def test_a_generator_that_never_waits_lets_others_have_their_turn():
    async def busily(stream, to):
        for number in range(to):
            time.sleep(0.001)
            yield number

    handlers = {"busily": busily, "now": lambda stream: time.perf_counter()}
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.now()
        values = asyncio.ensure_future(collect(remote.busily(to=200)))
        await asyncio.sleep(0.01)
        start = time.perf_counter()
        assert await remote.now() - start < 0.1
        assert not values.done()
        assert await values == list(range(200))


async def collect(answers):
    return [value async for value in answers]


async def test_a_handler_may_pass_on_the_messages_of_a_stream():
    async def pass_on(stream, port):
        other = await connect("127.0.0.1", port)
        await write(other, {"op": "say"})
        return messages(other)

    def say(stream):
        stream.socket.send(frame(1) + frame(None) + frame([2]))
        stream.close()

    async with (
        served({"say": say}) as source,
        served({"pass_on": pass_on}) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await collect(remote.pass_on(port=source.port)) == [1, None, [2]]
        assert await remote.pass_on(port=source.port) == [1, None, [2]]
        # Who sends no number gets a list.
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "pass_on", "port": source.port})
        assert await read(stream) == [1, None, [2]]
        stream.close()
