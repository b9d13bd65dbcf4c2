"""A signal handler comes in between two lines of the client that blocks: it closes, calls, or raises."""

import asyncio
import gc

import pytest

from fastcore import ConnectionLost, RPCClosed, Server, SyncClient
from helpers.support import in_a_thread
from helpers.torture import at_each_line

pytestmark = [pytest.mark.deadline(3600), pytest.mark.timeout(3600)]


async def later(stream, x):
    await asyncio.sleep(0)
    return x


def rows(stream, count):
    yield from range(count)


class Stopped(BaseException):
    """As a Ctrl-C has it, which would end the tests."""


ENDS = {
    "call": (),
    "stop": (Stopped,),
    "close the connections": (ConnectionLost,),
    "close": (ConnectionLost, RPCClosed),
}


# Python has nobody to whom to raise what is raised in a `__del__`, and says so; it closes the socket then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("does", ENDS)
async def test_calls_of_one_thread(does):
    async def conversation(at):
        between = []

        def come_in():
            if does == "call":
                between.append(remote.later(x="between"))
            if does == "stop":
                raise Stopped
            if does == "close the connections":
                remote.close_streams()
            if does == "close":
                remote.close_rpc()

        def converse():
            lost = 0
            for call, expected in [
                (lambda: remote.later(x=1), 1),
                (lambda: remote.rows(count=300), [*range(300)]),
                (lambda: [*remote.rows.each(count=300)], [*range(300)]),
                (lambda: next(remote.rows.each(count=300)), 0),
                (lambda: remote.later(x=bytes(3_000_000), timeout=60), bytes(3_000_000)),
                (lambda: remote.later(x=2), 2),
            ]:
                try:
                    assert call() == expected
                except ENDS[does]:
                    lost += 1
            return lost

        def use():
            with at.comes_in(come_in):
                return converse()

        server = Server({"later": later, "rows": rows})
        server.listen(0, "127.0.0.1")
        with SyncClient(ip="127.0.0.1", port=server.port) as remote:
            lost = await in_a_thread(use)
            if does == "stop":
                # Of a selector that wasn't closed yet.
                gc.collect()
            assert lost <= (does != "call") or does == "close"
            assert between == ["between"] * len(between)
        await server.shutdown()

    await at_each_line(does, ENDS, conversation, "client/synchronous", "client/blocking", "client/dialing")
