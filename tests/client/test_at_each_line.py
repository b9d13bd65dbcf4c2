"""Whoever comes in between two lines of a pool may call, give up, close and collect: no call is lost by that.

But for those that are closed on purpose, and those that are given up.
"""

import asyncio
import gc

import pytest

from fastcore import ConnectionLost, ConnectionPool, RPCClosed, Server, read, rpc, write
from helpers.torture import at_each_line

pytestmark = [pytest.mark.deadline(3600), pytest.mark.timeout(3600)]


def echo(stream, x):
    return x


async def later(stream, x):
    await asyncio.sleep(0)
    return x


def rows(stream, count, size=1):
    for number in range(count):
        yield [number, bytes(size)]


async def rows_later(stream, count, size=1):
    for number in range(count):
        yield [number, bytes(size)]
        if number % 3 == 0:
            await asyncio.sleep(0)


HANDLERS = {"echo": echo, "later": later, "rows": rows, "rows_later": rows_later}


def listening():
    server = Server(HANDLERS)
    server.listen(0, "127.0.0.1")
    return server


async def ends_rightly(call, expected, may_be_lost):
    """Wait for a call, and see that it ends as it may."""
    try:
        assert await call == expected
    except asyncio.CancelledError:
        assert call.cancelled()
    except may_be_lost:
        pass


#: What somebody does, and how a call may end by that.
POOLS = {
    "call": (),
    "give up": (),
    "collect": (),
    "close the connections": (ConnectionLost,),
    "close the connections and call": (ConnectionLost,),
    "close the pool": (ConnectionLost, RPCClosed),
}


@pytest.mark.parametrize(("limit", "share"), [(1, 0), (2, 4)])
@pytest.mark.parametrize("does", POOLS)
async def test_calls_that_wait_for_the_connections_of_a_pool(does, limit, share):
    may_be_lost = POOLS[does]

    async def conversation(at):
        servers = [listening(), listening()]
        pool = ConnectionPool(limit=limit, share=share)
        one, other = [pool(ip="127.0.0.1", port=server.port) for server in servers]
        calls = []
        between = []

        def come_in():
            if does == "collect":
                pool.collect()
            if "connections" in does:
                pool.close_streams()
            if "call" in does:
                between.extend([one.echo(x="between"), other.echo(x="between")])
            if does == "give up":
                for call, _ in calls[-3:]:
                    call.cancel()
            if does == "close the pool":
                pool.close()

        with at.comes_in(come_in):
            for number in range(3):
                calls.append((one.echo(x=number), number))
                calls.append((other.later(x=bytes(100_000)), bytes(100_000)))
                calls.append((one.later(x=-number), -number))
            for call, expected in calls:
                await ends_rightly(call, expected, may_be_lost)
                assert pool.open <= limit
            try:
                stream = await pool.connect("127.0.0.1", servers[0].port)
                try:
                    await write(stream, {"op": "echo", "x": 5})
                    assert await read(stream) == 5
                finally:
                    pool.release(stream)
            except may_be_lost:
                pass
            await ends_rightly(one.echo(x=1), 1, may_be_lost)
            assert await asyncio.gather(*between) == ["between"] * len(between)
            pool.close()
            with pytest.raises(RPCClosed):
                await one.echo(x=1)
        for server in servers:
            await server.shutdown()
        assert (pool.open, pool.active, pool.waiting) == (0, 0, 0)

    await at_each_line(does, POOLS, conversation, "client")


ANSWERS = ["call", "give up", "drop", "close the client's", "close the server's"]


@pytest.mark.parametrize("does", ANSWERS)
async def test_answers_that_are_read_one_by_one_and_left_half_way(does):
    async def conversation(at):
        server = listening()
        remote = rpc(ip="127.0.0.1", port=server.port, share=1)
        calls = []
        between = []
        lost = []
        dropped = []

        def come_in():
            if does == "call":
                between.append(remote.rows(count=40))
            if does == "give up" and calls:
                calls[-1].cancel()
            if does == "drop":
                dropped.append(len(calls))
                calls.clear()
                gc.collect(0)
            if does == "close the client's":
                remote.close_streams()
            if does == "close the server's":
                for connection in server._connections.copy():
                    connection.close()

        async def take(count, most):
            taken = 0
            async for number, _ in calls[-1]:
                assert number == taken
                taken += 1
                if taken == most:
                    return
            assert taken == count

        with at.comes_in(come_in):
            for op, count, size in [("rows", 300, 1), ("rows_later", 70, 1), ("rows", 5, 300_000)]:
                for most in (count, 5, None):
                    calls.append(getattr(remote, op)(count=count, size=size))
                    try:
                        if most is None:
                            assert await calls[-1] == [[number, bytes(size)] for number in range(count)]
                        else:
                            await take(count, most)
                    except asyncio.CancelledError:
                        assert does == "give up"
                    except IndexError:
                        assert dropped
                    except ConnectionLost:
                        lost.append(op)
            assert await asyncio.gather(*between) == [[[n, b"\0"] for n in range(40)]] * len(between)
            remote.close_rpc()
            await server.shutdown()
        assert len(lost) <= does.startswith("close")

    await at_each_line(
        does, ANSWERS, conversation, "client/calls", "server/parts", "server/re", "server/turns"
    )
