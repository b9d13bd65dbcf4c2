"""Calls that have a number, beside a request that has none: one that reads by hand, or calls back."""

import asyncio

import pytest
from tornado import gen

from fastcore import read, rpc
from helpers.handlers import STREAMS, Gates
from helpers.support import until
from helpers.wire import frame, raw_frame, served, stranger_at


async def by_hand(stream, n):
    return [await read(stream) for _ in range(n)]


@gen.coroutine
def by_hand_at_once(stream, n):
    """Read for the first time inside of what hands out the request."""
    messages = []
    while len(messages) < n:
        messages.append((yield read(stream)))
    return messages


@pytest.mark.parametrize("knows", [False, True])
async def test_calls_go_on_beside_a_request_without_a_number_that_takes_its_time(knows):
    gates = Gates()
    async with served({**gates.handlers, **STREAMS}) as server, stranger_at(server) as stranger:
        if knows:
            assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "wait", "key": "in order"}))
        stranger.calls(0, "wait", key=0)
        stranger.say(frame({"op": "rows", "n": 2}, call=1, window=1))
        stranger.calls(2, "add", x=1, y=1)
        stranger.gives_up(0)
        stranger.grants(1, 1)
        heard = [await stranger.hears_all() for _ in range(5)]
        assert sorted(header["call"] for _, header in heard) == [0, 1, 1, 1, 2]
        await gates.opens("in order")
        assert await stranger.hears_all() == ("in order", {"call": None})
        assert await stranger.has_heard_nothing_more()


async def test_what_has_no_number_waits_for_its_turn_beside_calls_that_do_not():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "wait", "key": "first"}))
        for number in range(20):
            stranger.say(frame({"op": "add", "x": number, "y": 0}), raw_frame(b"\xc1"))
            stranger.calls(number, "add", x=number, y=0)
        assert await stranger.hears_answers(*range(20)) == {number: number for number in range(20)}
        await gates.opens("first")
        assert await stranger.hears() == "first"
        for number in range(20):
            assert await stranger.hears() == number
            assert "BadMessage" in await stranger.hears_error()


@pytest.mark.parametrize("handler", [by_hand, by_hand_at_once])
@pytest.mark.parametrize("size", [1, 3_000])
async def test_a_handler_without_a_number_reads_what_has_none_and_calls_get_the_rest(size, handler):
    async with (
        served({"by_hand": handler}, max_waiting=10_000) as server,
        stranger_at(server) as stranger,
    ):
        assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "by_hand", "n": 40}))
        for number in range(40):
            stranger.say(frame([number, bytes(size)]))
            stranger.calls(number, "add", x=number, y=0)
        heard = [await stranger.hears_all() for _ in range(41)]
        by_number = {header["call"]: message for message, header in heard}
        assert by_number.pop(None) == [[number, bytes(size)] for number in range(40)]
        assert by_number == {number: number for number in range(40)}


# Nobody listens at the address of a stream that was accepted: connections to there are waited for in vain.
CONNECTING = 3600


async def calls_back(stream):
    async with rpc(stream=stream, timeout=CONNECTING) as remote:
        return await asyncio.gather(*[remote.question(n=n) for n in range(3)])


async def calls_back_later(stream):
    await asyncio.sleep(0)
    return await calls_back(stream)


@gen.coroutine
def calls_back_at_once(stream):
    remote = rpc(stream=stream, timeout=CONNECTING)
    answers = yield [remote.question(n=n) for n in range(3)]
    remote.close_rpc()
    return answers


@pytest.mark.parametrize("handler", [calls_back, calls_back_later, calls_back_at_once])
@pytest.mark.parametrize("knows", [False, True])
async def test_a_handler_without_a_number_calls_back_to_who_numbers_his_calls(handler, knows):
    async with served({"calls_back": handler}) as server, stranger_at(server) as stranger:
        if knows:
            assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "calls_back"}))
        for n in range(3):
            request, header = await stranger.hears_all()
            assert request == {"op": "question", "n": n}
            stranger.say(frame(n * n, call=header["call"]))
        assert await stranger.hears() == [0, 1, 4]
        assert await stranger.has_heard_nothing_more()


async def test_what_nobody_reads_by_hand_is_bounded_and_becomes_requests():
    gates = Gates()
    async with served(gates.handlers, max_waiting=10_000) as server, stranger_at(server) as stranger:
        assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "wait", "key": "first"}))
        for number in range(10_000):
            stranger.say(frame({"op": "add", "x": number, "y": 0}))
        stranger.calls(1, "add", x=1, y=0)
        await until(lambda: server.stats()["buffers"] > 10_000)
        assert server.stats()["buffers"] < 2**20
        await gates.opens("first")
        assert await stranger.hears() == "first"
        assert [await stranger.hears() for _ in range(10_001)] == [*range(10_000), 1]
