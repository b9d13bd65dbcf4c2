"""From socket to handler and back, server and client in one loop, beside the same by plain Tornado.

How both do in processes of their own, and beside their rivals: ``python -m bench run``.
"""

import asyncio
import gc
import os
import weakref
from collections.abc import Iterator

import pytest

from bench.peers import fastcore, tornado_classic

DATA = os.urandom(64 * 1024)
CALLS = 100
UPDATES = 10_000

pytestmark = [
    pytest.mark.parametrize("peer", [fastcore, tornado_classic], ids=["fastcore", "plain-tornado"]),
    # A peer serves until its process ends; here its sockets end with the loop.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner
    # The peer's sockets end here, and not in the middle of something else.
    gc.collect()


@pytest.fixture
def connection(runner, peer):
    async def start():
        port = asyncio.get_running_loop().create_future()
        server = asyncio.ensure_future(peer.serve(port.set_result))
        return await peer.connect(await port), server

    connection, server = runner.run(start())
    # Whoever keeps what a test was given doesn't keep the sockets.
    yield weakref.proxy(connection)
    server.cancel()


def test_round_trip(benchmark, runner, connection):
    async def calls():
        for _ in range(CALLS):
            result = await connection.add(1, 2)
        return result

    benchmark.group = f"{CALLS} small calls, one after the other"
    assert benchmark(lambda: runner.run(calls())) == 3


def test_echo(benchmark, runner, connection):
    async def calls():
        for _ in range(CALLS):
            result = await connection.echo(DATA)
        return result

    benchmark.group = f"{CALLS} echoes of 64 KiB"
    assert benchmark(lambda: runner.run(calls())) == DATA


def test_stream(benchmark, runner, connection):
    benchmark.group = f"{UPDATES:,} messages, one by one"
    assert benchmark(lambda: runner.run(connection.stream(UPDATES))) == UPDATES
