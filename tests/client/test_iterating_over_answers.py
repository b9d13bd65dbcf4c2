"""The answers of a handler that gives many, one by one."""

from __future__ import annotations

from fastcore import rpc
from helpers.wire import served


def count_to(stream, to):
    yield from range(to)


async def test_the_first_call_of_all_may_be_iterated_over():
    async with served({"count_to": count_to}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        # It waits for its connection when the loop asks for the first value.
        assert [value async for value in remote.count_to(to=3)] == [0, 1, 2]
