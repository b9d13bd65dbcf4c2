"""Many connections, many calls, some cancelled, some cut off: is every answer right, and what stays?

    python tests/load/load.py [--connections 1000] [--calls 1000] [--largest 1048576]

The server is a process of its own. Says what it measured; ends with 1 if an answer was
wrong, memory grew in the second half by more than 5 %, a descriptor stayed open, or the
server logged an error of its own.
"""

import argparse
import asyncio
import gc
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from fastcore import ConnectionLost, Server, rpc

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.server_process import figures_of, server_process

CANCELLED, CUT_OFF = 0.05, 0.05


async def echo(stream, question, padding):
    if question % 3 == 0:
        await asyncio.sleep(0)
    return [question, padding]


def new_server() -> Server:
    return Server({"echo": echo})


async def one_client(port: int, seed: int, calls: int, largest: int, outcomes: Counter) -> None:
    """Make calls, one after the other, of which some are given up."""
    chance = random.Random(seed)
    blob = chance.randbytes(largest)
    async with rpc(ip="127.0.0.1", port=port, timeout=60) as remote:
        for number in range(calls):
            # As many small ones as large ones: sizes are even on a logarithmic scale.
            padding = memoryview(blob)[: int(largest ** chance.random())]
            question = seed * calls + number
            call = remote.echo(question=question, padding=padding)
            fate = chance.random()
            if fate < CANCELLED:
                await asyncio.sleep(0)
                call.cancel()
            elif fate < CANCELLED + CUT_OFF:
                await asyncio.sleep(0)
                for stream in remote.streams:
                    stream.close()
            try:
                answer = await call
            except asyncio.CancelledError:
                outcomes["cancelled"] += 1
            except ConnectionLost:
                outcomes["cut off"] += 1
            else:
                right = answer[0] == question and answer[1] == padding
                outcomes["right" if right else "WRONG"] += 1


async def load(port: int, connections: int, calls: int, largest: int) -> bool:
    """Two halves of the load; whether all is well after them."""
    outcomes: Counter = Counter()
    process = psutil.Process()
    begun = time.perf_counter()
    before = await figures_of(port)
    own_before = process.num_fds()
    rss, own_rss = [], []
    for half in range(2):
        seeds = range(half * connections, (half + 1) * connections)
        await asyncio.gather(*(one_client(port, seed, calls // 2, largest, outcomes) for seed in seeds))
        after = await figures_of(port)
        gc.collect()
        rss.append(after["rss"])
        own_rss.append(process.memory_info().rss)
    seconds = time.perf_counter() - begun
    total = sum(outcomes.values())
    server, client = ([f"{size / 2**20:.1f} MiB" for size in sizes] for sizes in (rss, own_rss))
    print(f"{total:,} calls over {connections:,} connections in {seconds:.0f} s: {dict(outcomes)}")
    print("server: RSS {} after the first half, {} at the end".format(*server))
    print("client: RSS {} after the first half, {} at the end".format(*client))
    print(f"the server's descriptors: {before['descriptors']} -> {after['descriptors']}")
    print(f"the client's descriptors: {own_before} -> {process.num_fds()}")
    print(f"bytes held in the server's buffers: {after['buffers']:,}")
    return (
        not outcomes["WRONG"]
        and rss[1] <= 1.05 * rss[0]
        and after["descriptors"] <= before["descriptors"]
        and process.num_fds() <= own_before
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=1000, help="on each connection")
    parser.add_argument("--largest", type=int, default=2**20, help="bytes")
    options = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with server_process(new_server) as server:
        fine = asyncio.run(load(server.port, options.connections, options.calls, options.largest))
    for complaint in server.complaints:
        print("the server:", complaint)
    fine = fine and not server.complaints
    print("all is well" if fine else "SOMETHING IS WRONG")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
