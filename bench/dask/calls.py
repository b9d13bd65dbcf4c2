"""What a call costs that goes into a Dask cluster: python -m bench.dask.calls

Two workers on this machine, one thread each. The ways take turns, round by round; each figure is the
median of its rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from distributed import Client, LocalCluster

import fastcore.dask
from fastcore import Server, rpc


def add(stream, x, y):
    return x + y


def plus(x, y):
    return x + y


def work(stream, seconds):
    """Take a while, as something does that computes, but without taking the processor from others."""
    time.sleep(seconds)
    return seconds


class Adder:
    """The same as an actor of Dask's."""

    def add(self, x, y):
        return x + y


async def seconds_of(call: Callable[[], Awaitable[object]], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        await call()
    return (time.perf_counter() - start) / times


async def measure(rounds: int) -> dict[str, list[float]]:
    async with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", asynchronous=True) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        await client.register_plugin(fastcore.dask.ServerPlugin({"add": add}))
        worker, address = next(iter((await fastcore.dask.addresses(client)).items()))
        actor = await client.submit(Adder, actor=True, workers=[worker])
        handlers = fastcore.dask.on_cluster(client, {"work": work})
        async with (
            fastcore.dask.rpc(client) as workers,
            rpc(address) as one,
            Server(handlers) as server,
        ):
            server.listen(0, "127.0.0.1")
            async with rpc(ip="127.0.0.1", port=server.port) as remote:
                ways: dict[str, tuple[Callable[[], Awaitable[object]], int]] = {
                    "into one worker's server, by fastcore.rpc": (lambda: one.add(x=1, y=2), 300),
                    "into whichever is free, by fastcore.dask.rpc": (lambda: workers.add(x=1, y=2), 300),
                    "a method of a Dask actor": (lambda: actor.add(1, 2), 50),
                    "a Dask task": (lambda: client.submit(plus, 1, 2, pure=False), 20),
                    "a handler as a task, 0 ms": (lambda: remote.work(seconds=0), 20),
                    "a handler as a task, 50 ms": (lambda: remote.work(seconds=0.05), 4),
                    "a handler as a task, 200 ms": (lambda: remote.work(seconds=0.2), 2),
                }
                taken: dict[str, list[float]] = {name: [] for name in ways}
                for call, times in ways.values():
                    await seconds_of(call, times)
                for _ in range(rounds):
                    for name, (call, times) in ways.items():
                        taken[name].append(await seconds_of(call, times))
                return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    taken = asyncio.run(measure(parser.parse_args().rounds))
    for name, seconds in taken.items():
        print(f"{name:48} {statistics.median(seconds) * 1e6:10,.0f} us   (least {min(seconds) * 1e6:,.0f})")


if __name__ == "__main__":
    main()
