"""A network that loses, delays, reorders, repeats and garbles packets, or is cut."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("fcntl", reason="the network is one of Linux's namespaces")
from helpers.bad_network import BadNetwork, Inside, Troubles, bad_network
from helpers.support import Program

SERVER = """
import asyncio
from fastcore import Server

async def never(stream):
    await asyncio.Event().wait()

async def main():
    handlers = {"echo": lambda stream, value: value, "never": never}
    handlers["zeros"] = lambda stream, size: bytes(size)
    server = Server(handlers, peer_timeout=3)
    server.listen(8786, "10.98.0.1")
    print("ready")
    while not server.stats()["connections"]["ever"]:
        await asyncio.sleep(0.01)
    while server.stats()["connections"]["open"]:
        await asyncio.sleep(0.01)
    print("alone again")
    await asyncio.Event().wait()

asyncio.run(main())
"""

CALLS = """
import asyncio, random
from fastcore import rpc

async def main():
    chance = random.Random(1)
    async with rpc(ip="10.98.0.1", port=8786, timeout=20) as remote:
        async def call(number):
            value = chance.randbytes(chance.choice([0, 10, 1000, 100_000]))
            return await remote.echo(value=[number, value]) == [number, value]
        answers = []
        for _ in range(10):
            answers += await asyncio.gather(*map(call, range(20)))
    print(len(answers), all(answers))

asyncio.run(main())
"""

WAITS = """
import asyncio, sys, time
from fastcore import ConnectionLost, rpc

async def main():
    async with rpc(ip="10.98.0.1", port=8786, peer_timeout=3, timeout=1) as remote:
        await asyncio.gather(remote.echo(value=1), remote.echo(value=1))
        waits_for_an_answer = remote.never()
        await asyncio.sleep(0.1)
        print("waiting")
        await asyncio.to_thread(sys.stdin.readline)
        begun = time.monotonic()
        sends_into_the_void = remote.echo(value=b"x" * 1000)
        for call in (waits_for_an_answer, sends_into_the_void):
            try:
                await call
            except ConnectionLost as error:
                print(f"{time.monotonic() - begun:.0f} {error}")
        print("cut")
        await asyncio.to_thread(sys.stdin.readline)
        print(await remote.echo(value=2))

asyncio.run(main())
"""

COMPUTES = """
import sys, time
from fastcore import connect, read, write
import asyncio

async def main():
    stream = await connect("10.98.0.1", 8786, peer_timeout=3)
    for size in (SIZE, 10):
        await write(stream, {"op": "zeros", "size": size})
        # Nothing is read, and the machine is alive.
        time.sleep(5)
        print(len(await read(stream)))
    await write(stream, {"op": "zeros", "size": SIZE})
    time.sleep(3)
    print("stands still")
    sys.stdin.readline()

asyncio.run(main())
"""


@pytest.fixture
def network() -> Iterator[BadNetwork]:
    making = bad_network()
    try:
        network = making.__enter__()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces and TUN devices can't be made here: {error}")
    try:
        yield network
    finally:
        making.__exit__(None, None, None)


@pytest.mark.parametrize(
    "troubles",
    [
        Troubles(loss=0.05),
        Troubles(delay=(0.005, 0.02)),
        Troubles(repeat=0.2),
        Troubles(garble=0.02),
        Troubles(loss=0.02, repeat=0.05, garble=0.01, delay=(0.0, 0.01)),
    ],
    ids=str,
)
def test_every_answer_is_right_over_a_bad_network(network, troubles):
    network.suffers(troubles)
    # The same packet may be lost some times in a row, each time for twice as long.
    with Inside(network.server, SERVER.replace("peer_timeout=3", "peer_timeout=30")) as server:
        assert server.line() == "ready"
        with Inside(network.client, CALLS) as client:
            assert client.line(120) == "200 True", client.errors


def test_a_cut_is_found_in_the_time_that_was_set_and_survived(network):
    with Inside(network.server, SERVER) as server:
        assert server.line() == "ready"
        with Inside(network.client, WAITS, stdin=subprocess.PIPE) as client:
            assert client.line() == "waiting", client.errors
            network.is_cut()
            go_on(client)
            for op in ("never", "echo"):
                seconds, text = client.line().split(" ", 1)
                assert float(seconds) < 20
                assert "10.98.0.1:8786" in text
                assert f"'{op}'" in text
            assert client.line() == "cut"
            assert server.line() == "alone again"
            network.is_whole()
            go_on(client)
            assert client.line() == "2", client.errors
            assert client.process.stdin is not None
            client.process.stdin.close()


def test_who_is_alive_and_does_not_read_is_told_from_who_is_dead(network):
    sizes = (200_000, 20_000_000)
    with Inside(network.server, SERVER) as server, ExitStack() as stack:
        assert server.line() == "ready"
        programs = [COMPUTES.replace("SIZE", str(size)) for size in sizes]
        clients = [
            stack.enter_context(Inside(network.client, program, stdin=subprocess.PIPE))
            for program in programs
        ]
        for client, size in zip(clients, sizes, strict=True):
            assert client.line() == str(size), client.errors
            assert client.line() == "10", client.errors
            assert client.line() == "stands still", client.errors
        network.is_cut()
        begun = time.monotonic()
        assert server.line() == "alone again"
        assert time.monotonic() - begun < 20
        for client in clients:
            assert client.process.stdin is not None
            client.process.stdin.close()


def go_on(program: Program) -> None:
    assert program.process.stdin is not None
    program.process.stdin.write("go on\n")
    program.process.stdin.flush()
