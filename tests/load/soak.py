"""Messages for a long time, connects and disconnects beside them: do memory and descriptors stay flat?

    python tests/load/soak.py [--seconds 600] [--messages 10000000]

The server is a process of its own. Samples every tenth of the time; ends with 1 if RSS
or descriptors grew after the first three tenths, or the server logged an error of its own.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from load import new_server

from fastcore import connect, read, rpc, write

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.server_process import figures_of, server_process

#: Allowed growth of RSS, of what it was after the first tenths.
GROWTH = 1.05
STREAMS = 4
BATCH = 100


async def talk(port: int, goes_on: Callable[[], bool], counted: list[int]) -> None:
    """Send messages in batches over one connection, and check the answers."""
    stream = await connect("127.0.0.1", port)
    number = 0
    while goes_on():
        for question in range(number, number + BATCH):
            write(stream, {"op": "echo", "question": question, "padding": b"p" * (question % 50)})
        for question in range(number, number + BATCH):
            assert await read(stream) == [question, b"p" * (question % 50)]
        number += BATCH
        # A question and an answer are two messages.
        counted[0] += 2 * BATCH
    stream.close()


async def come_and_go(port: int, goes_on: Callable[[], bool], counted: list[int]) -> None:
    """Connect, call once, leave: in order, or in the middle of a call."""
    while goes_on():
        async with rpc(ip="127.0.0.1", port=port) as remote:
            call = remote.echo(question=1, padding=b"p" * 1000)
            if counted[0] % 3:
                assert await call == [1, b"p" * 1000]
            else:
                call.cancel()
        counted[0] += 1
        await asyncio.sleep(0.002)


async def soak(port: int, pid: int, seconds: float, messages: int) -> bool:
    sent, visits = [0], [0]
    begun = time.monotonic()

    def goes_on() -> bool:
        return time.monotonic() - begun < seconds or sent[0] < messages

    talking = [asyncio.ensure_future(talk(port, goes_on, sent)) for _ in range(STREAMS)]
    visiting = asyncio.ensure_future(come_and_go(port, goes_on, visits))
    server, client = psutil.Process(pid), psutil.Process()
    samples = []
    while goes_on():
        await asyncio.sleep(max(seconds / 10, 0.1))
        sample = [
            server.memory_info().rss / 2**20,
            server.num_fds(),
            client.memory_info().rss / 2**20,
            client.num_fds(),
        ]
        samples.append(sample)
        print(
            f"{time.monotonic() - begun:6.0f} s  {sent[0]:12,} messages  {visits[0]:8,} visits  "
            "server {:.1f} MiB, {} descriptors;  client {:.1f} MiB, {} descriptors".format(*sample),
            flush=True,
        )
    await asyncio.gather(*talking, visiting)
    await figures_of(port)
    warm = samples[min(3, len(samples) - 1)]
    last = samples[-1]
    # A visit may be under way at one sample and not at the other.
    return all(
        end <= start * GROWTH + slack for start, end, slack in zip(warm, last, (2, 4, 2, 4), strict=True)
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--messages", type=int, default=10_000_000, help="at least so many")
    options = parser.parse_args(arguments)
    with server_process(new_server) as server:
        flat = asyncio.run(soak(server.port, server.pid, options.seconds, options.messages))
    for complaint in server.complaints:
        print("the server:", complaint)
    flat = flat and not server.complaints
    print("flat" if flat else "NOT FLAT")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
