"""Many calls on few connections: how many there are, whose turn it is, and who holds up whom."""

import asyncio
import contextvars
import sys

import pytest

from fastcore import ConnectionPool, Server, connect, read, rpc, write
from fastcore.client import connections
from helpers.classic_server import classic_server
from helpers.support import DEADLINE, Program, until
from helpers.wire import served

# ruff: noqa: SIM117

SERVER = """
import asyncio, resource
from fastcore import Server

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def later(stream, n):
    await asyncio.sleep(0.001)
    return n

async def main():
    server = Server({"later": later, "at_once": lambda stream, n: n})
    server.listen(0, "127.0.0.1")
    print(server.port)
    await asyncio.Event().wait()

asyncio.run(main())
"""

CLIENT = """
import asyncio, resource, sys
from fastcore import rpc

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def main(port, op):
    async with rpc(ip="127.0.0.1", port=port) as remote:
        answers = await asyncio.gather(*[getattr(remote, op)(n=n) for n in range(2_000)])
        assert answers == [*range(2_000)]
        print(len(remote.streams))

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


async def later(stream, n, delay=0.001):
    await asyncio.sleep(delay)
    return n


@pytest.mark.slow_under_valgrind
@pytest.mark.parametrize("op", ["later", "at_once"])
def test_two_thousand_calls_where_64_files_are_open(op):
    with Program("-c", SERVER) as server, Program("-c", CLIENT, server.line(), op) as client:
        assert int(client.line()) <= 4
        assert client.wait() == 0


@pytest.mark.parametrize("share", [1, 2, 4])
async def test_calls_share_as_many_connections_as_the_keyword_says(share, monkeypatch):
    # A server whose first answer takes long is asked over one more.
    monkeypatch.setattr(connections, "_FIRST_ANSWER_TIMEOUT", DEADLINE)
    async with served({"later": later}) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=share) as remote:
            assert await asyncio.gather(*[remote.later(n=n) for n in range(500)]) == [*range(500)]
            assert server.stats()["connections"]["ever"] <= share


@pytest.mark.parametrize("answers_identity", [True, False])
@pytest.mark.parametrize("is_classic", [False, True])
@pytest.mark.parametrize("share", [1, 2, 4])
async def test_first_calls_that_take_long_keep_none_of_those_waiting_that_come_later(
    share, is_classic, answers_identity
):
    """What the server is shows with its first answer, and those may wait for what others are to say."""

    async def wait(*_):
        await asyncio.Event().wait()

    def add(*_, x, y):
        return x + y

    handlers = {"wait": wait, "add": add} | ({} if answers_identity else {"identity": wait})
    async with classic_server(**handlers) if is_classic else served(handlers) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=share, timeout=5) as remote:
            for number in range(1, max(share, 2)):
                remote.wait()
                await until(lambda number=number: [*remote.streams.values()] == [False] * number)
            assert await remote.add(x=1, y=2) == 3
            assert await remote.add(x=3, y=4) == 7


async def test_with_a_connection_each_there_are_at_most_limit():
    async with served({"later": later}) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=0, limit=7) as remote:
            assert await asyncio.gather(*[remote.later(n=n) for n in range(200)]) == [*range(200)]
            assert server.stats()["connections"]["ever"] <= 7


@pytest.mark.parametrize("limit", [1, 3])
async def test_who_waits_for_a_classic_server_is_served_in_the_order_of_coming(limit):
    begun = []

    async def begins(n):
        begun.append(n)
        await asyncio.sleep(0.0005)
        return n

    async with classic_server(begins=begins) as server:
        async with rpc(ip="127.0.0.1", port=server.port, limit=limit) as remote:
            assert await asyncio.gather(*[remote.begins(n=n) for n in range(100)]) == [*range(100)]
        assert server.most <= limit
    # As many as there are connections may overtake each other on their way.
    assert all(abs(n - place) <= limit for place, n in enumerate(begun))


async def test_one_who_calls_in_a_loop_lets_others_have_their_turns():
    async with classic_server(at_once=lambda n: n) as server:
        async with rpc(ip="127.0.0.1", port=server.port, limit=1) as remote:
            stop = False

            async def calls_on():
                while not stop:
                    await remote.at_once(n=0)

            busy = asyncio.ensure_future(calls_on())
            await remote.at_once(n=1)
            for n in range(20):
                assert await remote.at_once(n=n) == n
            stop = True
            await busy


async def test_a_connection_that_somebody_took_is_his_alone():
    async with served({"later": later}) as server:
        pool = ConnectionPool(4, share=1)
        remote = pool(ip="127.0.0.1", port=server.port)
        assert await remote.add(x=1, y=2) == 3
        assert await remote.add(x=1, y=2) == 3
        taken = await pool.connect("127.0.0.1", server.port)
        assert await asyncio.gather(*[remote.later(n=n) for n in range(20)]) == [*range(20)]
        assert {taken} == pool.occupied[("127.0.0.1", server.port)]
        pool.release(taken)
        assert await remote.later(n=5) == 5
        pool.close()


@pytest.mark.parametrize("most", [{"max_running": 5}, {"max_running_per_connection": 5}])
async def test_never_more_run_at_once_than_may(most):
    running = highest = 0

    async def counts(stream, n):
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0.001)
        running -= 1
        return n

    async with served({"counts": counts}, **most) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
            assert await remote.add(x=1, y=2) == 3
            assert await asyncio.gather(*[remote.counts(n=n) for n in range(200)]) == [*range(200)]
        assert highest == 5
        await until(lambda: not server.stats()["running"])


async def test_what_begins_when_another_request_has_ended_sees_nothing_of_its_context():
    name = contextvars.ContextVar("name", default="nobody")
    callbacks = []

    async def sets(stream, to):
        before = name.get()
        name.set(to)
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(lambda: callbacks.append(name.get() == to))
        return before

    async def yields(stream, to):
        before = name.get()
        name.set(to)
        yield before
        await asyncio.sleep(0)
        yield before

    def yields_too(stream, to):
        yield name.get()
        name.set(to)

    handlers = {"sets": sets, "yields": yields, "yields_too": yields_too}
    name.set("who listens")
    async with served(handlers, max_running_per_connection=1) as server:
        name.set("who calls")
        async with rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
            calls = [getattr(remote, op)(to=str(n)) for n in range(10) for op in handlers]
            for call in calls:
                seen = await call
                assert {*(seen if isinstance(seen, list) else [seen])} == {"who listens"}
        stream = await connect("127.0.0.1", server.port)
        for n in range(10):
            write(stream, {"op": "sets", "to": str(n)})
        assert [await read(stream) for _ in range(10)] == ["who listens"] * 10
        stream.close()
        # The last one comes after its answer.
        await until(lambda: len(callbacks) == 20)
        assert all(callbacks)


async def test_what_one_request_sets_in_its_context_no_other_one_sees():
    name = contextvars.ContextVar("name", default="nobody")

    def sets(stream, to):
        before = name.get()
        name.set(to)
        return before

    async def sets_later(stream, to):
        before = name.get()
        name.set(to)
        await asyncio.sleep(0)
        return before if name.get() == to else "somebody else's"

    async with served({"sets": sets, "sets_later": sets_later}) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
            for _ in range(2):
                calls = [call(to=str(n)) for n in range(20) for call in (remote.sets, remote.sets_later)]
                assert {*await asyncio.gather(*calls)} == {"nobody"}
    # Each of these is begun by the end of the one before.
    async with served({"sets": sets, "sets_later": sets_later}, max_running=1) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
            calls = [call(to=str(n)) for n in range(20) for call in (remote.sets, remote.sets_later)]
            assert {*await asyncio.gather(*calls)} == {"nobody"}


async def test_a_request_sees_what_was_set_where_the_server_began_to_listen():
    name = contextvars.ContextVar("name", default="nobody")
    server = Server({"name": lambda stream: name.get()})
    name.set("whoever listens")
    server.listen(0, "127.0.0.1")
    name.set("whoever calls")
    async with server, rpc(ip="127.0.0.1", port=server.port) as remote:
        assert await remote.name() == "whoever listens"


async def test_shutdown_waits_for_numbered_calls_under_way():
    async with served({"later": later}) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
            assert await remote.add(x=1, y=2) == 3
            calls = [remote.later(n=n, delay=0.05) for n in range(20)]
            await until(lambda: server.stats()["running"] == 20)
            await server.shutdown(deadline=10)
            assert await asyncio.gather(*calls) == [*range(20)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are eager since 3.12")
async def test_with_eager_tasks_a_thousand_requests_are_answered():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

    async def eager(stream, n):
        return n

    async with served({"eager": eager, "later": later}, max_running=3) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=2) as remote:
            assert await remote.add(x=1, y=2) == 3
            assert await asyncio.gather(*[remote.eager(n=n) for n in range(1000)]) == [*range(1000)]
            calls = [(remote.eager if n % 2 else remote.later)(n=n) for n in range(1000)]
            assert await asyncio.gather(*calls) == [*range(1000)]
        await until(lambda: not server.stats()["running"])
