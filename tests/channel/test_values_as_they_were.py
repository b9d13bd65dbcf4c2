"""A message says what was true when it was handed over, or its Future tells when that is over."""

import asyncio

from fastcore import connect, read, rpc, write
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
