"""Tasks that begin at once (``asyncio.eager_task_factory``), at both ends of a connection.

``pytest --eager`` runs all the other tests so.
"""

import asyncio
import random
import sys
from contextlib import suppress

import pytest

from fastcore import messages, read, rpc, write
from helpers.torture import Somebody, collecting
from helpers.wire import frame, served, stranger_at

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are eager since 3.12")


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    new_event_loop = asyncio.new_event_loop

    def new_eager_loop():
        loop = new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    monkeypatch.setattr(asyncio.events, "new_event_loop", new_eager_loop)


ended = []


async def at_once(stream, n):
    return n


async def later(stream, n):
    await asyncio.sleep(0)
    return n


async def rows(stream, n):
    for number in range(n):
        yield number
        if number % 3 == 0:
            await asyncio.sleep(0)


async def wrong(stream, n):
    raise ValueError(n)


async def for_ever(stream, n):
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(n)


HANDLERS = {each.__name__: each for each in (at_once, later, rows, wrong, for_ever)}


async def test_the_loop_of_a_test_begins_tasks_at_once():
    begun = []

    async def begin():
        begun.append(True)

    task = asyncio.create_task(begin())
    assert begun
    await task


@pytest.mark.parametrize("share", [None, 2])
async def test_each_call_gets_its_own_answer(share):
    async def calls(number):
        assert await remote.at_once(n=number) == number
        assert await remote.later(n=number) == number
        assert await remote.rows(n=number % 50) == [*range(number % 50)]
        assert [each async for each in remote.rows(n=number % 50)] == [*range(number % 50)]
        with pytest.raises(ValueError, match=str(number)):
            await remote.wrong(n=number)

    options = {} if share is None else {"share": share}
    async with (
        served(HANDLERS, max_running=5) as server,
        rpc(ip="127.0.0.1", port=server.port, **options) as remote,
        asyncio.TaskGroup() as group,
    ):
        for number in range(100):
            group.create_task(calls(number))


async def test_a_call_given_up_by_its_task_ends_its_handler():
    async def call(n):
        await remote.for_ever(n=n)

    ended.clear()
    async with served(HANDLERS) as server, rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
        assert await remote.at_once(n=1) == 1
        tasks = [asyncio.create_task(call(n)) for n in range(20)]
        await remote.later(n=1)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call(20)
        assert await remote.later(n=1) == 1
        while len(ended) < 21:
            await remote.later(n=1)
    assert sorted(ended) == [*range(21)]


async def test_who_leaves_a_stream_of_answers_ends_its_handler():
    async def first(count):
        async for number in remote.rows(n=10_000):
            if number == count:
                return number

    async with served(HANDLERS) as server, rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
        assert await asyncio.gather(*[first(count) for count in range(20)]) == [*range(20)]
        assert await remote.at_once(n=1) == 1
        while server.stats()["running"]:
            await remote.later(n=1)


async def test_messages_are_written_and_read_by_tasks_in_order():
    async def echo(stream, n):
        for _ in range(n):
            await write(stream, await read(stream))
        return "done"

    async with served({"echo": echo}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "echo", "n": 200}), *[frame(number) for number in range(200)])
        assert [await stranger.hears() for _ in range(201)] == [*range(200), "done"]


async def test_what_comes_in_at_once_is_a_stream_of_messages():
    async def count(stream, n):
        total = 0
        async for number in messages(stream):
            total += number
            n -= 1
            if not n:
                return total

    async with served({"count": count}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "count", "n": 100}), *[frame(number) for number in range(100)])
        assert await stranger.hears() == sum(range(100))


@pytest.mark.parametrize("seed", range(3))
async def test_tasks_begun_in_the_middle_of_anything_get_their_own_answers(seed):
    chance = random.Random(seed)
    tasks = []

    async def call(op, n):
        """Give what was got, and what should have been."""
        if op == "wrong":
            try:
                await remote.wrong(n=n)
            except ValueError as error:
                return str(error), str(n)
        if op == "rows":
            return [each async for each in remote.rows(n=n % 40)], [*range(n % 40)]
        return await getattr(remote, op)(n=n), n

    def begin(chance):
        op = chance.choice(["at_once", "later", "rows", "wrong"])
        tasks.append(asyncio.create_task(call(op, len(tasks))))

    def come_in(chance):
        what = chance.random()
        if what < 0.05 and asyncio.current_task() is not None:
            begin(chance)
        elif what < 0.1 and tasks:
            chance.choice(tasks[-20:]).cancel()

    somebody = Somebody(come_in, seed)
    async with served(HANDLERS) as server, rpc(ip="127.0.0.1", port=server.port, share=2) as remote:
        assert await remote.at_once(n=1) == 1
        with collecting(somebody):
            for _ in range(100):
                begin(chance)
                if chance.random() < 0.3:
                    with suppress(asyncio.CancelledError):
                        await tasks[-1]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        answers = [each for each in ends if not isinstance(each, asyncio.CancelledError)]
        assert len(answers) > 50
        assert all(got == expected for got, expected in answers)
        assert await remote.later(n=1) == 1
    assert not somebody.errors
