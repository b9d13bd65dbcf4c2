"""Who says little waits for few of those that say much, however many these are."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from helpers.support import until
from helpers.wire import frame, served, stranger_at

#: Connections, and calls of each that are there from the beginning.
CROWD = 20
CALLS = 100


class Handlers(dict):
    """Which count what they did, in which turn of the loop, and for whom."""

    def __init__(self, takes):
        self.takes = takes
        self.done = [Counter()]
        super().__init__({"work": self.work, "add": lambda stream, x, y: x + y})

    def work(self, stream, client):
        self.done[-1][client] += 1
        time.sleep(self.takes)

    def count_turns(self):
        self.done.append(Counter())
        asyncio.get_running_loop().call_soon(self.count_turns)


async def crowd(stack, server):
    for client in range(CROWD):
        stranger = await stack.enter_async_context(stranger_at(server))
        stranger.say(*[frame({"op": "work", "client": client}, call=number) for number in range(CALLS)])


@pytest.mark.parametrize(("takes", "at_once"), [(0.000_1, 8), (0.002, 2)], ids=["take little", "take long"])
async def test_of_many_few_have_their_turn_before_the_loop_looks_at_its_sockets(takes, at_once):
    handlers = Handlers(takes)
    async with served(handlers) as server, AsyncExitStack() as stack:
        await crowd(stack, server)
        # In the first turn nobody knows how long they take.
        await until(lambda: len({client for turn in handlers.done for client in turn}) == CROWD)
        before = len(handlers.done)
        handlers.count_turns()
        await until(lambda: sum(map(Counter.total, handlers.done[before:])) > 100)
        assert max(map(len, handlers.done[before:])) <= at_once


async def test_between_two_that_take_long_there_is_time_for_many_that_take_little():
    handlers = Handlers(0.02)
    async with served(handlers) as server, AsyncExitStack() as stack, stranger_at(server) as modest:
        await crowd(stack, server)
        await until(lambda: len(handlers.done[0]) == CROWD)
        waited = []
        for number in range(50):
            before = handlers.done[0].total()
            modest.calls(number, "add", x=number, y=1)
            assert await modest.hears_answers(number) == {number: number + 1}
            waited.append(handlers.done[0].total() - before)
        assert sorted(waited)[25] == 0
        assert max(waited) <= 3


@pytest.mark.parametrize("takes", [0.000_1, 0.002], ids=["take little", "take long"])
async def test_all_of_them_are_served_alike(takes):
    handlers = Handlers(takes)
    async with served(handlers) as server, AsyncExitStack() as stack:
        await crowd(stack, server)
        await until(lambda: len(handlers.done[0]) == CROWD)
        begun = handlers.done[0].copy()
        await until(lambda: min((handlers.done[0] - begun).values(), default=0) > 2)
        await until(lambda: len(handlers.done[0] - begun) == CROWD)
        least, *_, most = sorted((handlers.done[0] - begun).values())
        assert most - least <= 20


async def test_one_alone_that_takes_long_waits_for_nobody():
    handlers = Handlers(0.002)
    async with served(handlers) as server, stranger_at(server) as alone:
        handlers.count_turns()
        alone.say(*[frame({"op": "work", "client": 1}, call=number) for number in range(50)])
        await alone.hears_answers(*range(50))
    worked = [at for at, turn in enumerate(handlers.done) if turn]
    # One in each turn, and none without.
    assert len(worked) == 50
    assert worked[-1] - worked[0] <= 60
