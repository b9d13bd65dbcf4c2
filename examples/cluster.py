"""A server in each worker of a Dask cluster, and handlers that run as its tasks: python cluster.py

Two workers on this machine, each a process; one of them is killed in the middle.
Needs `pip install 'fastcore-rpc[dask]'`.
"""

import asyncio
import os
import signal
import time
from collections import Counter

from distributed import Client, LocalCluster
from tornado.iostream import IOStream

import fastcore.dask
from fastcore import Server, rpc


def add(stream: IOStream, x: int, y: int) -> int:  # a handler as ever; it runs in the worker's event loop
    return x + y


async def nap(stream: IOStream, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


def whoami(stream: IOStream) -> int:
    return os.getpid()


def primes(stream: IOStream, below: int) -> int:  # this one computes for a while, so it belongs into a task
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))


async def in_the_workers(client: Client) -> None:
    print("a server in each worker:")
    await client.register_plugin(fastcore.dask.ServerPlugin({"add": add, "nap": nap, "whoami": whoami}))
    for worker, address in (await fastcore.dask.addresses(client)).items():
        print(f"    {address} in {worker}")

    async with fastcore.dask.rpc(client) as remote:
        print("    1 + 2 =", await remote.add(x=1, y=2))
        answered = Counter(await asyncio.gather(*[remote.whoami() for _ in range(1000)]))
        print("    1000 calls, by process:", dict(answered))

        processes = await remote.on_all.whoami()
        worker, process = processes.popitem()
        print(f"    4 calls that take a second; process {process} is killed meanwhile")
        calls = [remote.nap(seconds=1) for _ in range(4)]
        await asyncio.sleep(0.2)
        os.kill(process, signal.SIGKILL)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            print("     ", result if isinstance(result, str) else f"{type(result).__name__}: {result}")
        answered = Counter(await asyncio.gather(*[remote.whoami() for _ in range(1000)]))
        print("    1000 calls go to who is left:", dict(answered))
        while len(processes := await remote.on_all.whoami()) < 2:
            await asyncio.sleep(0.1)
        print("    and the worker that came in its place has a server too:", [*processes.values()])


async def as_tasks(client: Client) -> None:
    print("the handlers of one server, as tasks:")
    tasks = fastcore.dask.on_cluster(client, {"primes": primes})
    async with Server({"add": add, **tasks}) as server:
        server.listen(0, "127.0.0.1")
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            print("    1 + 2 =", await remote.add(x=1, y=2))
            start = time.perf_counter()
            found = await asyncio.gather(*[remote.primes(below=30_000) for _ in range(8)])
            print(f"    8 calls to primes: {found[0]} each, {time.perf_counter() - start:.2f} s together")


async def main() -> None:
    async with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", asynchronous=True) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        await in_the_workers(client)
        await as_tasks(client)


if __name__ == "__main__":
    asyncio.run(main())
