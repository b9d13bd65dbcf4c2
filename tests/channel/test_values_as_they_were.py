"""A message says what was true when it was handed over, or its Future tells when that is over."""

import asyncio
from types import SimpleNamespace

import pytest

from fastcore import connect, read, rpc, write
from helpers.certificates import client_context, server_context
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
