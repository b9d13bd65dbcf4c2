"""What could take all of the loop's time: it goes on piece by piece, and each connection in its turn."""

import asyncio
import gc
from collections import Counter

import pytest

from helpers.support import DEADLINE, until
from helpers.wire import frame, served, stranger_at


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    """Have a turn be over with whatever is done first in it."""
    monkeypatch.setattr("fastcore.server.turns.TURN_BUDGET", 1)
    monkeypatch.setattr("fastcore.server.parts.TURN_BUDGET", 1)


class Handlers(dict):
    """Endless ones, which count by client what they did."""

    def __init__(self):
        self.done = Counter()
        super().__init__(
            {"rows": self.rows, "async_rows": self.async_rows, "list": self.list, "fail": self.fail}
        )

    def rows(self, stream, client):
        while True:
            self.done[client] += 1
            yield None

    async def async_rows(self, stream, client):
        while True:
            self.done[client] += 1
            yield None

    def list(self, stream, client):
        return self.rows(stream, client)

    async def fail(self, stream, client):
        self.done[client] += 1
        raise LookupError(client)


def many(op, client, count, **header):
    return [frame({"op": op, "client": client}, call=number, **header) for number in range(count)]


@pytest.mark.parametrize("op", ["rows", "async_rows", "fail"])
async def test_however_many_there_are_they_do_little_in_one_turn_of_the_loop(op):
    handlers = Handlers()
    async with served(handlers) as server, stranger_at(server) as stranger:
        stranger.say(*many(op, "one", 200, window=2**40))
        await until(lambda: server.stats()["running"] > 100 or handlers.done["one"])
        before = handlers.done["one"]
        for _ in range(20):
            await asyncio.sleep(0)
        assert 0 < handlers.done["one"] - before <= 60


@pytest.mark.parametrize("op", ["rows", "async_rows"])
async def test_who_asks_for_one_of_them_is_given_as_much_as_who_asks_for_a_hundred(op):
    handlers = Handlers()
    async with served(handlers) as server, stranger_at(server) as greedy, stranger_at(server) as modest:
        greedy.say(*many(op, "greedy", 100, window=2**40))
        await until(lambda: handlers.done["greedy"] > 100)
        modest.say(*many(op, "modest", 1, window=2**40))
        await until(lambda: handlers.done["modest"])
        before = handlers.done["greedy"]
        await until(lambda: handlers.done["modest"] > 50)
        assert handlers.done["greedy"] - before < 200


async def test_one_whose_answers_nobody_wants_is_one_of_them():
    handlers = Handlers()
    async with served(handlers) as server, stranger_at(server) as stranger, stranger_at(server) as other:
        stranger.say(frame({"op": "list", "client": "one", "reply": False}))
        await until(lambda: handlers.done["one"])
        assert await other.is_served()


@pytest.mark.parametrize("op", ["rows", "async_rows", "fail"])
async def test_one_that_is_given_up_while_it_waits_for_its_turn_ends(op):
    handlers = Handlers()
    async with served(handlers) as server:
        async with stranger_at(server) as stranger:
            stranger.say(*many("rows", "one", 50, window=2**40))
            await until(lambda: server.stats()["running"] == 50)
            stranger.say(frame({"op": op, "client": "given up"}, call=77))
            stranger.gives_up(77)
            while True:
                _, header = await stranger.hears_all()
                if header["call"] == 77 and not header.get("part"):
                    break
        await until(lambda: not server.stats()["running"])
        gc.collect()
        async with stranger_at(server) as stranger:
            assert await stranger.is_served()


async def test_a_client_that_leaves_leaves_no_turn_behind():
    handlers = Handlers()
    async with served(handlers) as server:
        async with stranger_at(server) as stranger:
            stranger.say(*many("rows", "one", 50, window=2**40))
            await until(lambda: server.stats()["running"] == 50)
        await until(lambda: not server.stats()["running"])
        async with stranger_at(server) as stranger:
            stranger.say(*many("rows", "two", 1, window=3))
            await until(lambda: handlers.done["two"] >= 3)


async def test_who_calls_and_gives_up_over_and_over_does_little_of_it_in_one_turn_of_the_loop():
    """What such calls take comes behind the turn of their connection: the clock doesn't see it there."""
    begun = [0]

    def turn():
        begun.append(0)
        asyncio.get_running_loop().call_soon(turn)

    def begin(stream):
        begun[-1] += 1
        return asyncio.sleep(DEADLINE)

    async with served({"wait": begin}) as server, stranger_at(server) as stranger:
        turn()
        for number in range(500):
            stranger.calls(number, "wait")
            stranger.gives_up(number)
        assert await stranger.hears_answers(*range(500)) == dict.fromkeys(range(500))
    # Two shares at most: of what was here, and of what came meanwhile.
    assert max(begun) <= 16


@pytest.mark.parametrize("ends", ["by itself", "shutdown", "given up"])
async def test_those_that_fail_at_the_same_time_are_told_of_one_by_one(ends):
    go = asyncio.Event()

    async def fail(stream):
        await go.wait()
        raise LookupError

    async with served({"fail": fail}) as server, stranger_at(server) as stranger:
        stranger.say(*[frame({"op": "fail"}, call=number) for number in range(200)])
        await until(lambda: server.stats()["running"] == 200)
        go.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert 0 < server.stats()["ops"]["fail"]["errors"] <= 60
        if ends == "shutdown":
            await server.shutdown()
        elif ends == "given up":
            for number in range(200):
                stranger.gives_up(number)
        heard = await stranger.hears_answers(*range(200))
        told = sum(isinstance(answer, tuple) for answer in heard.values())
        assert told == 200 if ends != "given up" else 0 < told < 200
