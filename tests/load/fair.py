"""An honest client beside peers that send nothing but wrong calls, as fast as they can.

    python tests/load/fair.py [--loop uvloop] [--processes 8] [--nice 19] [--kind "unknown op"]

The server, the client and the attackers are processes of their own. For each kind of wrong call
it says how long 1,000 honest calls took, and what a refused one costs the server. Ends with 1 if
the median was over 5 ms, or the worst over 50 ms.
"""

import argparse
import asyncio
import logging
import os
import select
import socket
import statistics
import struct
import sys
import time
import zlib
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import msgpack
import psutil

from fastcore import SENTINEL, Server, rpc

CONNECTIONS = 8
MEDIAN, WORST = 0.005, 0.050


def frame(payload: bytes, **header: object) -> bytes:
    packed = msgpack.packb(header) if header else b""
    return struct.pack("<I", len(packed)) + packed + payload + SENTINEL


def call(op: str, **keywords: object) -> bytes:
    return msgpack.packb({"op": op, **keywords})


GOOD = frame(call("add", x=1, y=2))
BOMB = zlib.compress(b"\xdd\x00\x98\x96\x80" + b"\x90" * 10**7, 9)
COLLIDING = msgpack.packb({number << 40: 0 for number in range(20_000)})

#: One wrong call of each kind, as bytes. Numbered ones are handled side by side.
ATTACKS = {
    "unknown op": frame(call("no such"), call=1),
    "unknown op, no number": frame(call("no such")),
    "wrong keyword": frame(call("add", z=1), call=1),
    "no request": frame(msgpack.packb([1, 2, 3])),
    "no MessagePack": frame(b"\xc1", call=1),
    "no header": frame(b"\xc1").replace(b"\0\0\0\0", b"\x02\0\0\0\xc1\xc1", 1),
    "too deep": frame(b"\x91" * 5_000 + b"\xc0", call=1),
    "too many values": frame(b"\xdd\x00\x2d\xc6\xc0" + b"\xc0" * 3_000_000, call=1),
    "claims too much": frame(b"\xdd\xff\xff\xff\xff" * 900, call=1),
    "a bomb": frame(BOMB, call=1, compression="zlib"),
    "colliding keys": frame(COLLIDING, call=1),
    "a length over the limit": frame(b"", call=1, length=2**40),
    "an op of 10 KB": frame(call("x\n" * 5_000), call=1),
    "a thousand keywords": frame(call("add", **{f"keyword {number}": 0 for number in range(1000)}), call=1),
    "an answer that can't be sent": frame(call("odd"), call=1),
    "a handler that raises": frame(call("fail"), call=1),
    "a deep handler that raises": frame(call("deep"), call=1),
    "a call that is given up": frame(call("wait"), call=1) + frame(b"\xc0", cancel=1),
    "parts that are given up": frame(call("rows"), call=1) + frame(b"\xc0", cancel=1),
}


def serve(pipe: Connection, uses_uvloop: bool) -> None:
    """Answer until the pipe ends; tell, when asked, the CPU time and what was refused."""
    # The log is written, as it is where a server is in use.
    logging.basicConfig(filename=os.devnull, level=logging.INFO)

    def deep(stream, depth=50):
        return deep(stream, depth - 1) if depth else [][0]

    async def wait(stream):
        await asyncio.sleep(3600)

    handlers = {
        "add": lambda stream, x, y: x + y,
        "odd": lambda stream: [{"value": object()}],
        "fail": lambda stream: [][0],
        "deep": deep,
        "wait": wait,
        "rows": lambda stream: (number for number in range(10**6)),
    }

    async def main():
        server = Server(handlers)
        server.listen(0, "127.0.0.1")
        pipe.send(server.port)
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def tell():
            try:
                pipe.recv()
            except EOFError:
                loop.remove_reader(pipe.fileno())
                done.set_result(None)
            else:
                pipe.send((time.process_time(), server.stats()["messages"]["in"]))

        loop.add_reader(pipe.fileno(), tell)
        await done

    if uses_uvloop:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


def attack(port: int, data: bytes, connections: int, nice: int) -> None:
    """Send the same bytes over and over, and drop what is answered; connect anew where it ends."""
    os.nice(nice)
    # Where one is short, many go with one system call.
    block = data * max(1, 65_536 // len(data))
    left: dict[socket.socket, memoryview] = {}

    def connect() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        # What comes first has to be a message.
        left[sock] = memoryview(GOOD)

    for _ in range(connections):
        connect()
    while True:
        readable, writable, _ = select.select(left, left, [])
        for sock in {*readable, *writable}:
            try:
                if sock in readable and not sock.recv(2**20):
                    raise ConnectionResetError
                if sock in writable:
                    left[sock] = left[sock][sock.send(left[sock]) :] or memoryview(block)
            except BlockingIOError:
                pass
            except OSError:
                del left[sock]
                sock.close()
                try:
                    connect()
                except ConnectionRefusedError:
                    # The measurement is over.
                    return


def measure(pipe: Connection, port: int, calls: int) -> None:
    """Make honest calls, and tell what each took."""

    async def main() -> list[float]:
        async with rpc(ip="127.0.0.1", port=port, timeout=60) as remote:
            for _ in range(10):
                await remote.add(x=1, y=2)
            took = []
            for number in range(calls):
                begun = time.perf_counter()
                assert await remote.add(x=number, y=1) == number + 1
                took.append(time.perf_counter() - begun)
            return took

    pipe.send(asyncio.run(main()))


def one_kind(kind: str, options: argparse.Namespace) -> bool:
    """Measure beside one kind of attack; whether it was fair."""
    context = get_context("spawn")
    here, there = context.Pipe()
    started: list[BaseProcess] = []

    def start(target, *arguments):
        started.append(context.Process(target=target, args=arguments, daemon=True))
        started[-1].start()

    def figures():
        here.send(None)
        return here.recv()

    try:
        start(serve, there, options.loop == "uvloop")
        there.close()
        port = here.recv()
        each = CONNECTIONS // options.processes
        for _ in range(options.processes):
            start(attack, port, ATTACKS[kind], each, options.nice)
        while figures()[1] < 50:
            time.sleep(0.05)
        before = figures()
        mine, clients = context.Pipe()
        start(measure, clients, port, options.calls)
        took = sorted(mine.recv())
        after = figures()
    finally:
        here.close()
        for process in started:
            process.kill()
            process.join()
    median, worst = statistics.median(took), took[-1]
    refused = max(after[1] - before[1] - len(took), 1)
    fair = median < MEDIAN and worst < WORST
    print(
        f"{kind:30} median {median * 1e3:7.2f} ms, 99 % {took[int(0.99 * len(took))] * 1e3:7.2f} ms, worst "
        f"{worst * 1e3:7.2f} ms; a refused call: {(after[0] - before[0]) / refused * 1e6:8.0f} us of CPU"
        f"{'' if fair else '   NOT FAIR'}",
        flush=True,
    )
    return fair


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8, choices=[1, 2, 4, 8], help="that attack")
    parser.add_argument("--nice", type=int, default=0, help="of those that attack")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--kind", choices=ATTACKS, help="one kind only")
    options = parser.parse_args(arguments)
    print(f"load average before: {psutil.getloadavg()[0]:.1f}; {CONNECTIONS} connections attack")
    kinds = [options.kind] if options.kind else ATTACKS
    fair = [one_kind(kind, options) for kind in kinds]
    print("all is well" if all(fair) else "NOT FAIR")
    return 0 if all(fair) else 1


if __name__ == "__main__":
    sys.exit(main())
