"""A message says what was true when it was handed over, or its Future tells when that is over."""

import asyncio
import enum
from datetime import date
from types import SimpleNamespace

import pytest

from fastcore import BadValue, ConnectionPool, connect, read, register_type, rpc, send_recv, write
from helpers.certificates import client_context, server_context
from helpers.classic_server import classic_server
from helpers.support import until
from helpers.wire import served

SIZE = 8 * 2**20


async def test_what_a_handler_returned_is_sent_as_it_was_though_the_handler_changes_it():
    memory = bytearray(b"a" * SIZE)
    asked = asyncio.Event()

    def mine(stream):
        asked.set()
        return memory

    async with served({"mine": mine}) as server:
        stream = await connect("127.0.0.1", server.port, max_waiting=1)
        await write(stream, {"op": "mine"})
        await asked.wait()
        await until(lambda: server.stats()["buffers"] > 0)
        memory[:] = b"b" * SIZE
        assert await read(stream) == b"a" * SIZE
        stream.close()


async def test_a_request_that_wants_no_answer_is_done_when_its_memory_may_be_changed():
    kept = []

    async def keep(stream, data):
        await asyncio.sleep(0.01)
        kept.append(data)

    async with (
        served({"keep": keep}) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        memory = bytearray(SIZE)
        for number in range(10):
            memory[:] = bytes([number]) * SIZE
            await remote.keep(data=memory, reply=False)
        await until(lambda: len(kept) == 10)
    assert sorted(kept) == [bytes([number]) * SIZE for number in range(10)]


async def test_requests_that_want_no_answer_wait_for_a_slow_peer_instead_of_filling_memory():
    async def slow(stream, data):
        await asyncio.sleep(3600)

    async with (
        served({"slow": slow}, max_running_per_connection=2) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        data = bytes(SIZE)
        calls = [remote.slow(data=data, reply=False) for _ in range(20)]
        await until(lambda: server.stats()["running"] > 0)
        _, waiting = await asyncio.wait(calls, timeout=0.05)
        assert waiting
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


def yields(stream):
    for number in range(3):
        MEMORY[:] = bytes([number]) * SIZE
        yield MEMORY


async def yields_later(stream):
    for number in range(3):
        MEMORY[:] = bytes([number]) * SIZE
        yield [MEMORY, memoryview(MEMORY).toreadonly()][number % 2]


def returns_a_view(stream):
    MEMORY[:] = bytes([0]) * SIZE
    asyncio.get_running_loop().call_soon(change)
    return [memoryview(MEMORY).toreadonly(), memoryview(MEMORY).cast("B", (SIZE // 8, 8))]


async def returns_later(stream):
    return returns_a_view(stream)


def change():
    MEMORY[:] = b"x" * SIZE


MEMORY = bytearray(SIZE)
OF_HANDLERS = {
    "yields": (yields, [0, 1, 2]),
    "yields_later": (yields_later, [0, 1, 2]),
    "returns_a_view": (returns_a_view, [0, 0]),
    "returns_later": (returns_later, [0, 0]),
}
SECURITY = {
    "plain": lambda: ({}, {}),
    "TLS": lambda: ({"ssl_options": server_context()}, {"ssl_options": client_context()}),
    "compressed": lambda: ({"compression": "zlib"}, {"compression": "zlib"}),
}


@pytest.mark.parametrize("security", SECURITY)
@pytest.mark.parametrize("op", OF_HANDLERS)
async def test_what_handlers_give_is_sent_as_it_was_in_every_way(op, security):
    at_server, at_client = SECURITY[security]()
    handler, expected = OF_HANDLERS[op]
    async with (
        served({op: handler}, **at_server) as server,
        rpc(ip="127.0.0.1", port=server.port, **at_client) as remote,
    ):
        answer = await getattr(remote, op)()
    assert [bytes(value) for value in answer] == [bytes([number]) * SIZE for number in expected]


async def send_by_write(at, memory):
    return write(at.stream, {"op": "keep", "data": memory})


async def send_by_call(at, memory):
    return at.remote.keep(data=memory)


async def send_without_reply(at, memory):
    return at.remote.keep(data=memory, reply=False)


@pytest.mark.parametrize("security", ["plain", "TLS"])
@pytest.mark.parametrize("send", [send_by_write, send_by_call, send_without_reply])
async def test_what_is_given_up_while_it_leaves_may_be_changed_then(send, security):
    """Who waits for the Future no longer isn't told by it; what waits is copied."""
    kept = []
    at_server, at_client = SECURITY[security]()

    async def keep(stream, data):
        kept.append(data)

    async with (
        served({"keep": keep}, cancel_handlers=False, **at_server) as server,
        rpc(ip="127.0.0.1", port=server.port, share=1, **at_client) as remote,
    ):
        assert await remote.add(x=1, y=2) == 3
        stream = await connect("127.0.0.1", server.port, **at_client)
        memory = bytearray(b"a" * SIZE)

        async def waits():
            await (await send(SimpleNamespace(remote=remote, stream=stream), memory))

        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        memory[:] = b"b" * SIZE
        await until(lambda: kept or (send is send_by_call and not server.stats()["running"]))
        assert all(data == b"a" * SIZE for data in kept)
        assert await remote.add(x=1, y=2) == 3
        stream.close()


def echo(stream, value):
    return value


@register_type
class Choice(enum.Enum):
    """Travels by its name, but to those who know no types by its value."""

    ONE = object()


def grow(values):
    """What a program does next with what it has just sent."""
    values[:] = [*values, b"later"]


GROWING = {"a list": [1, 2], "bytes": bytearray(b"once"), "what not every peer reads": [date(2026, 11, 29)]}


@pytest.mark.parametrize("what", GROWING)
@pytest.mark.parametrize("compression", [None, "zlib"])
async def test_a_call_that_waits_for_a_connection_says_what_was_true_when_it_was_made(what, compression):
    values = GROWING[what][:]
    async with (
        served({"echo": echo}) as server,
        rpc(ip="127.0.0.1", port=server.port, compression=compression) as remote,
    ):
        calls, expected = [], []
        for _ in range(10):
            expected.append(values[:])
            calls.append(remote.echo(value=values))
            values[:] = values + values
        assert await asyncio.gather(*calls) == expected


async def test_a_call_that_waits_for_its_turn_does_too_whoever_the_server_is():
    async with classic_server(echo=lambda value: value) as server:
        pool = ConnectionPool(limit=1)
        remote = pool(ip="127.0.0.1", port=server.port)
        values = {"n": 0}
        calls = []
        for number in range(5):
            values["n"] = number
            calls.append(remote.echo(value=values))
        one = send_recv(ip="127.0.0.1", port=server.port, op="echo", value=values)
        values["n"] = "later"
        assert await asyncio.gather(*calls, one) == [{"n": n} for n in [0, 1, 2, 3, 4, 4]]
        pool.close()


async def test_large_values_of_a_call_that_waits_stay_where_they_lie():
    memory = bytearray(b"a" * SIZE)
    async with served({"echo": echo}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.echo(value={"large": memory, "small": 1})
        with pytest.raises(BufferError):
            # It is lent until the call is done.
            memory.clear()
        assert await call == {"large": bytes(memory), "small": 1}
        memory.clear()


async def test_a_call_that_waits_and_cant_be_sent_says_so_at_once_and_leaves_its_place():
    async with served({"echo": echo}) as server:
        pool = ConnectionPool(limit=1)
        remote = pool(ip="127.0.0.1", port=server.port)
        stream = await pool.connect("127.0.0.1", server.port)
        call = remote.echo(value={"rows": [1, object()]})
        assert call.done()
        assert pool.waiting == 0
        with pytest.raises(BadValue, match=r"the call of 'echo' to .* value\['rows'\]\[1\] is of type obj"):
            await call
        pool.release(stream)
        assert await remote.echo(value=[1]) == [1]
        pool.close()


async def test_what_a_classic_server_cant_read_is_told_though_it_was_packed_before():
    async with (
        classic_server(echo=lambda value: value) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        values = [1, Choice.ONE]
        calls = [remote.echo(value=values), remote.echo(value=1)]
        grow(values)
        with pytest.raises(BadValue, match=r"the call of 'echo' to .* can't be sent"):
            await calls[0]
        assert await calls[1] == 1


def collects(stream, waits=False):
    values = []
    for number in range(3):
        values.append(number)
        yield values


async def collects_later(stream):
    for values in collects(stream):
        yield values


@pytest.mark.parametrize("op", ["collects", "collects_later"])
@pytest.mark.parametrize("compression", [None, "zlib"])
async def test_a_list_of_what_a_generator_gives_has_each_as_it_was(op, compression):
    handlers = {"collects": collects, "collects_later": collects_later}
    expected = [[0], [0, 1], [0, 1, 2]]
    async with served(handlers, compression=compression) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await getattr(remote, op)() == expected
        stream = await connect("127.0.0.1", server.port)
        # Without a number all of them come together.
        await write(stream, {"op": op})
        assert await read(stream) == expected
        stream.close()


async def test_what_a_generator_gives_is_sent_as_it_was_though_it_waits_for_its_reader():
    state = {"version": 0, "large": bytearray(b"a" * 100_000)}

    async def watch(stream):
        while True:
            yield state

    async with served({"watch": watch}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.watch()
        iterator = aiter(call)
        assert (await anext(iterator))["version"] == 0
        # Until as many are on their way as may be.
        before = -1
        while before != (before := server.stats()["messages"]["out"]):
            await asyncio.sleep(0.05)
        state.update(version=1, large=bytearray(b"b" * 100_000))
        versions = [(await anext(iterator)) for _ in range(before + 1)]
        seen = [value["version"] for value in versions]
        assert seen.count(0) == before, "one more has been given than was sent"
        assert all(value["large"][:1] == [b"a", b"b"][value["version"]] for value in versions)
        call.cancel()
