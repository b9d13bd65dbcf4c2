"""Many answers to one request, as a raw socket sees them: parts, windows, and their end."""

import asyncio

import pytest

from helpers.answers import error_type
from helpers.handlers import STREAMS
from helpers.support import until
from helpers.wire import frame, served, stranger_at


@pytest.mark.parametrize("op", STREAMS)
async def test_each_value_is_a_part_and_the_last_message_is_none(op):
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.calls(6, op, n=200)
        for value in range(200):
            assert await stranger.hears_all() == (value, {"call": 6, "part": True})
        assert await stranger.hears_all() == (None, {"call": 6})
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("op", STREAMS)
async def test_without_a_number_they_come_as_a_list(op):
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": op, "n": 3}), frame({"op": op, "n": 0}))
        assert await stranger.hears_all() == ([0, 1, 2], {})
        assert await stranger.hears_all() == ([], {})


@pytest.mark.parametrize("op", STREAMS)
async def test_at_the_window_the_handler_stops_and_others_go_on(op):
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": op, "n": 10}, call=1, window=3))
        for value in range(3):
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        stranger.say(frame({"op": op, "n": 2}, call=2))
        for value in range(2):
            assert await stranger.hears_all() == (value, {"call": 2, "part": True})
        assert await stranger.hears_all() == (None, {"call": 2})
        assert await stranger.has_heard_nothing_more()
        stranger.grants(1, 5)
        for value in range(3, 8):
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        assert await stranger.has_heard_nothing_more()
        stranger.grants(1, 2**63)
        for value in range(8, 10):
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        assert await stranger.hears_all() == (None, {"call": 1})
        # That call is over, and others never were.
        stranger.grants(1, 5)
        stranger.grants(77, 5)
        assert await stranger.has_heard_nothing_more()


async def test_a_window_of_nothing_waits_for_the_first_grant():
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "rows", "n": 1}, call=1, window=0))
        assert await stranger.has_heard_nothing_more()
        stranger.grants(1, 1)
        assert await stranger.hears_all() == (0, {"call": 1, "part": True})
        assert await stranger.hears_all() == (None, {"call": 1})


@pytest.mark.parametrize("op", STREAMS)
async def test_giving_up_a_stream_of_answers_ends_its_generator(op):
    ended = []

    def endless(stream):
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    async def async_endless(stream):
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def later(stream):
        return async_endless(stream)

    handlers = {"rows": endless, "async_rows": async_endless, "gives": lambda stream: endless(stream)}
    async with served({**handlers, "gives_later": later}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": op}, call=1, window=2))
        for _ in range(2):
            assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        stranger.gives_up(1)
        assert await stranger.hears_all() == (None, {"call": 1})
        assert ended == [True]
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_stream_of_answers_ends_with_its_connection(cancels):
    ended = []

    async def endless(stream):
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    async with served({"rows": endless}, cancel_handlers=cancels) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "rows"}, call=1, window=2))
            for _ in range(2):
                assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        # Nobody will ever let more of it go.
        await until(lambda: ended)
        await until(lambda: not server.stats()["running"])


async def test_an_error_in_the_middle_ends_the_parts():
    def breaks(stream):
        yield 1
        raise ValueError("in the middle")

    async with served({"breaks": breaks}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "breaks")
        assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        message, header = await stranger.hears_all()
        assert (message["exception"]["message"], header) == ("in the middle", {"call": 1, "error": True})
        assert await stranger.has_heard_nothing_more()


async def test_a_part_that_cannot_be_packed_ends_them():
    ended = []

    def odd(stream):
        try:
            yield 1
            yield object()
            yield 2
        finally:
            ended.append(True)

    async with served({"odd": odd}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "odd")
        assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        assert error_type((await stranger.hears_answers(1))[1]) == "TypeError"
        assert ended == [True]


async def test_a_reader_that_is_slow_without_a_window_stops_the_generator():
    given = []

    def endless(stream):
        while True:
            given.append(1)
            yield bytes(10_000)

    async with served({"rows": endless}) as server, stranger_at(server) as stranger:
        stranger.writer.transport.pause_reading()
        stranger.calls(1, "rows")
        await until(lambda: given)
        seen = -1
        while len(given) != seen:
            seen = len(given)
            await asyncio.sleep(0.1)
        # What the kernel takes, and no more.
        assert seen < 2_000


async def test_shutdown_lets_a_stream_of_answers_end():
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "async_rows", "n": 20}, call=1, window=1))
        assert await stranger.hears_all() == (0, {"call": 1, "part": True})
        ending = asyncio.ensure_future(server.shutdown(deadline=20))
        for value in range(1, 20):
            stranger.grants(1, 1)
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        assert await stranger.hears_all() == (None, {"call": 1})
        async with asyncio.timeout(5):
            await ending
