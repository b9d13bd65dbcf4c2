"""The client process of a pair: drives one peer through one workload, prints the figures as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from types import ModuleType
from typing import Any

from bench.measure import Meter, forget_peak, memory
from bench.peers import PEERS
from bench.server import pin, settle_memory


class Wrong(Exception):
    """A peer answered something else than it was asked."""


def expect(answer: object, right: object) -> None:
    """Stop at an answer that isn't right: a figure of it would mean nothing."""
    if answer != right:
        raise Wrong("an answer is not what the workload asked for")


class Memory:
    """How far the memory of both processes rises from here on."""

    def __init__(self, meter: Meter) -> None:
        self.pids = {"client_peak": meter.client, "server_peak": meter.server}
        self.before = {name: memory(pid)[0] for name, pid in self.pids.items()}
        for pid in self.pids.values():
            forget_peak(pid)

    def figures(self) -> dict[str, float]:
        """Bytes above the start, at the highest."""
        return {name: memory(pid)[1] - self.before[name] for name, pid in self.pids.items()}


def echo_figures(meter: Meter, size: int, peak: Memory) -> dict[str, float]:
    """What an echo run says: throughput counts the bytes of both ways."""
    figures = meter.figures(meter.count)
    figures["mb_s"] = 2e-6 * size * figures["rate"]
    figures["cpu_ns_per_kib"] = 1e3 * figures["cpu_us"] / (size / 1024)
    return figures | peak.figures()


class Awaited:
    """Drives a peer that has an event loop: a method for each kind of workload."""

    def __init__(self, peer: ModuleType, port: int, amount: int, meter: Meter) -> None:
        self.peer = peer
        self.port = port
        self.amount = amount
        self.meter = meter

    async def connect(self, connections: int) -> list[Any]:
        return [await self.peer.connect(self.port) for _ in range(connections)]

    async def add(self, connection: Any, count: int) -> None:
        for _ in range(count):
            expect(await connection.add(1, 2), 3)

    async def calls(self) -> dict[str, float]:
        connections = await self.connect(self.amount)
        for count in self.meter.runs():
            await asyncio.gather(*(self.add(connection, count) for connection in connections))
        return self.meter.figures(self.meter.count * self.amount)

    busy = calls

    async def shared(self) -> dict[str, float]:
        (connection,) = await self.connect(1)
        for count in self.meter.runs():
            await asyncio.gather(*(self.add(connection, count) for _ in range(self.amount)))
        return self.meter.figures(self.meter.count * self.amount)

    async def many(self, method: str) -> dict[str, float]:
        (connection,) = await self.connect(1)
        for count in self.meter.runs():
            expect(await getattr(connection, method)(count), count)
        return self.meter.figures(self.meter.count)

    async def stream(self) -> dict[str, float]:
        return await self.many("stream")

    async def parts(self) -> dict[str, float]:
        return await self.many("parts")

    async def parts_async(self) -> dict[str, float]:
        return await self.many("parts_async")

    async def messages(self) -> dict[str, float]:
        return await self.many("messages")

    async def echo(self) -> dict[str, float]:
        (connection,) = await self.connect(1)
        expect(await connection.echo(b"small"), b"small")
        peak = Memory(self.meter)
        data = os.urandom(self.amount)
        expect(await connection.echo(data) == data, True)
        for count in self.meter.runs():
            for _ in range(count):
                expect(len(await connection.echo(data)), self.amount)
        return echo_figures(self.meter, self.amount, peak)

    sizes = echo

    async def idle(self) -> dict[str, float]:
        (connection,) = await self.connect(1)
        for count in self.meter.runs():
            await self.add(connection, count)
        alone = self.meter.figures(self.meter.count)
        before, _ = memory(self.meter.server)
        quiet = await self.connect(self.amount)
        for each in quiet:
            await self.add(each, 1)
        after, _ = memory(self.meter.server)
        self.meter.count = 0
        for count in self.meter.runs():
            await self.add(connection, count)
        beside = self.meter.figures(self.meter.count)
        growth = {
            "idle_bytes": (after - before) / self.amount,
            "slowdown": beside["cpu_us"] / alone["cpu_us"],
        }
        return beside | growth


class Blocking:
    """Drives a peer that blocks, in the same way."""

    def __init__(self, peer: ModuleType, port: int, amount: int, meter: Meter) -> None:
        self.peer = peer
        self.port = port
        self.amount = amount
        self.meter = meter

    def calls(self) -> dict[str, float]:
        connections = [self.peer.connect(self.port) for _ in range(self.amount)]
        for count in self.meter.runs():
            for _ in range(count):
                for connection in connections:
                    connection.ask(1, 2)
                for connection in connections:
                    expect(connection.answer(), 3)
        return self.meter.figures(self.meter.count * self.amount)

    def blocks(self) -> dict[str, float]:
        connection = self.peer.connect(self.port)
        for count in self.meter.runs():
            for _ in range(count):
                expect(connection.add(1, 2), 3)
        return self.meter.figures(self.meter.count)

    def shared(self) -> dict[str, float]:
        connection = self.peer.connect(self.port)
        for count in self.meter.runs():
            for _ in range(count):
                for _ in range(self.amount):
                    connection.ask(1, 2)
                for _ in range(self.amount):
                    expect(connection.answer(), 3)
        return self.meter.figures(self.meter.count * self.amount)

    def many(self, method: str) -> dict[str, float]:
        connection = self.peer.connect(self.port)
        for count in self.meter.runs():
            expect(getattr(connection, method)(count), count)
        return self.meter.figures(self.meter.count)

    def stream(self) -> dict[str, float]:
        return self.many("stream")

    def parts(self) -> dict[str, float]:
        return self.many("parts")

    def messages(self) -> dict[str, float]:
        return self.many("messages")

    def echo(self) -> dict[str, float]:
        connection = self.peer.connect(self.port)
        expect(connection.echo(b"small"), b"small")
        peak = Memory(self.meter)
        data = os.urandom(self.amount)
        expect(connection.echo(data) == data, True)
        for count in self.meter.runs():
            for _ in range(count):
                expect(len(connection.echo(data)), self.amount)
        return echo_figures(self.meter, self.amount, peak)

    sizes = echo


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("kind")
    parser.add_argument("amount", type=int)
    parser.add_argument("port", type=int)
    parser.add_argument("server", type=int, help="the server's process id")
    parser.add_argument("--core", type=int, default=-1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=0)
    options = parser.parse_args()
    pin(options.core)
    settle_memory()
    peer = PEERS[options.peer].module()
    meter = Meter(os.getpid(), options.server, options.seconds, options.count)
    with_loop = hasattr(peer, "run")
    driver = (Awaited if with_loop else Blocking)(peer, options.port, options.amount, meter)
    work = getattr(driver, options.kind)()
    figures = peer.run(work) if with_loop else work
    print(json.dumps(figures), flush=True)
    # The figures are out: how each peer takes itself down is neither measured nor of interest.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
