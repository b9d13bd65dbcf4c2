"""``ConnectionPool``: connections to many servers, counted, never more than allowed."""

import asyncio
import gc
import random
import socket
from contextlib import asynccontextmanager

import pytest
from tornado.iostream import StreamClosedError

from fastcore import ConnectionLost, ConnectionPool, RPCClosed, Server, write
from fastcore.client import connections
from helpers.answers import DELAYS, Answers
from helpers.support import until
from helpers.surface import HANDLERS, serving
from helpers.wire import served


async def test_a_pool_opens_no_more_than_its_limit_and_everybody_is_served():
    with serving() as one, serving(Server(HANDLERS)) as another:
        pool = ConnectionPool(limit=3)
        remotes = [pool(ip="127.0.0.1", port=server.port) for server in (one, another)]
        most = 0

        async def call(n):
            nonlocal most
            answer = await remotes[n % 2].later(seconds=0.001, x=n)
            most = max(most, pool.open)
            return answer

        assert await asyncio.gather(*[call(n) for n in range(60)]) == list(range(60))
        assert most <= 3
        assert pool.active == 0
        assert 0 < pool.open <= 3
        pool.collect()
        assert (pool.open, pool.active) == (0, 0)
        assert not any(pool.available.values())
        assert not any(pool.occupied.values())
        pool.close()


async def test_the_counters_of_a_pool_are_right_after_errors_cancellations_and_dead_peers():
    pool = ConnectionPool(limit=4)
    with serving(Server({**HANDLERS, "hang_up": lambda stream: stream.close()})) as server:
        remote = pool(addr=f"127.0.0.1:{server.port}")
        calls = []
        for n in range(40):
            op = ("divide", "hang_up", "later", "ping")[n % 4]
            calls.append(getattr(remote, op)(**({"x": 1, "y": 0} if op == "divide" else {})))
        for call in calls[2::8]:
            call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    kinds = {type(outcome) for outcome in outcomes}
    assert {ZeroDivisionError, asyncio.CancelledError, bytes} <= kinds
    assert any(isinstance(outcome, StreamClosedError) for outcome in outcomes)
    assert pool.active == 0
    # One that was being made for a call may not be needed any more when it is there.
    await until(lambda: pool.open == sum(map(len, pool.available.values())))
    with pytest.raises(ConnectionLost, match="could not connect"):
        await ConnectionPool(limit=1, timeout=0.1)(ip="127.0.0.1", port=server.port).ping()
    pool.close()
    assert pool.open == 0


async def test_a_pool_of_few_connections_serves_many_calls_that_are_given_up():
    chance = random.Random(1)
    async with served(Answers().handlers) as server:
        pool = ConnectionPool(limit=4)
        remote = pool(ip="127.0.0.1", port=server.port)

        async def one(question):
            call = remote.later(question=question, delay=chance.choice(DELAYS), padding=b"")
            if chance.random() < 0.3:
                asyncio.get_running_loop().call_later(chance.choice(DELAYS), call.cancel)
            try:
                assert await call == [question, 0]
            except asyncio.CancelledError:
                return False
            return True

        answered = await asyncio.gather(*map(one, range(1000)))
        assert 500 < sum(answered) < 1000
        assert pool.open <= 4
        assert pool.active == 0
        pool.close()
        assert pool.open == 0


async def test_calls_that_wait_for_a_connection_end_when_the_pool_is_closed():
    async with served(Answers().handlers) as server:
        pool = ConnectionPool(limit=1)
        remote = pool(ip="127.0.0.1", port=server.port)
        waiting = [remote.later(question=n, delay=3600, padding=b"") for n in range(10)]
        await asyncio.sleep(0.01)
        pool.close()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, ConnectionLost | RPCClosed) for end in ends)


def test_a_call_that_still_waits_for_its_connection_when_its_loop_ends_leaves_nothing_behind():
    async def main():
        pool = ConnectionPool(limit=1)
        # Nobody listens there, and to connect is tried again.
        pool(ip="127.0.0.1", port=deaf.getsockname()[1]).add(x=1, y=2)
        for _ in range(5):
            await asyncio.sleep(0)

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        for _ in range(3):
            asyncio.run(main())
            gc.collect()


async def test_a_connection_comes_back_from_who_was_cancelled_in_the_moment_in_which_he_got_it():
    async with served() as server:
        pool = ConnectionPool(limit=2)

        async def take():
            stream = await pool.connect("127.0.0.1", server.port)
            pool.release(stream)

        for turns in [*range(12)] * 5:
            taking = asyncio.ensure_future(take())
            for _ in range(turns):
                await asyncio.sleep(0)
            taking.cancel()
            await asyncio.wait([taking])
        await until(lambda: pool.active == 0)
        pool.release(await pool.connect("127.0.0.1", server.port))
        pool.close()


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_calls_get_their_connection_where_a_program_cancels_all_tasks_and_goes_on(turns):
    async with served() as server:
        pool = ConnectionPool(limit=1)
        remote = pool(ip="127.0.0.1", port=server.port)
        before = asyncio.all_tasks()
        call = remote.add(x=1, y=2)
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        assert [await call, await remote.add(x=3, y=4)] == [3, 7]
        assert pool.open == 1
        pool.close()


@pytest.mark.parametrize("message", [{"op": "add", "x": 5, "y": 5}, {"op": "nap"}])
async def test_what_is_still_to_be_answered_of_a_connection_that_is_given_back_answers_nobody(message):
    async def nap(stream):
        await asyncio.sleep(0.05)
        return "slept"

    async with served({"nap": nap}) as server:
        pool = ConnectionPool(limit=1, share=0)
        stream = await pool.connect("127.0.0.1", server.port)
        await write(stream, message)
        pool.release(stream)
        remote = pool(ip="127.0.0.1", port=server.port)
        assert [await remote.add(x=1, y=number) for number in range(3)] == [1, 2, 3]
        pool.close()


async def test_a_connection_of_ones_own_is_waited_for_as_long_as_the_pool_says_unless_told_otherwise():
    async with served() as server:
        pool = ConnectionPool(limit=1, timeout=0.05)
        taken = await pool.connect("127.0.0.1", server.port)
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            await pool.connect("127.0.0.1", server.port)
        with pytest.raises(TimeoutError, match=r"0\.1 s"):
            await pool.connect("127.0.0.1", server.port, timeout=0.1)
        pool.release(taken)
        pool.close()


async def test_a_connection_that_comes_in_the_moment_in_which_the_time_is_up_is_taken(monkeypatch):
    limits = []

    @asynccontextmanager
    async def patience(seconds):
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            yield

    monkeypatch.setattr(connections, "patience", patience)
    async with served() as server:
        pool = ConnectionPool(limit=1)
        stream = await pool.connect("127.0.0.1", server.port)
        waiting = pool.connect("127.0.0.1", server.port)
        await until(lambda: pool.waiting)
        limits[-1].reschedule(asyncio.get_running_loop().time())
        pool.release(stream)
        assert await waiting is stream
        pool.release(stream)
        assert (pool.active, pool.waiting) == (0, 0)
        pool.close()


async def test_nothing_is_left_of_addresses_where_nobody_was():
    pool = ConnectionPool(timeout=0.05)
    ports = []
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            ports.append(reserved.getsockname()[1])
    calls = [pool(ip="127.0.0.1", port=port).add(x=1, y=2) for port in ports]
    calls[0].cancel()
    given_up = pool.connect("127.0.0.1", ports[1])
    await asyncio.sleep(0)
    given_up.cancel()
    assert all(
        isinstance(each, BaseException) for each in await asyncio.gather(*calls, return_exceptions=True)
    )
    [of_loop] = pool._in_loops.values()
    await until(lambda: not of_loop._servers)
    async with served() as server:
        assert await pool(ip="127.0.0.1", port=server.port).add(x=1, y=2) == 3
        assert len(of_loop._servers) == 1
        pool.close()
        assert not of_loop._servers
