"""A server under a hail of inputs over real sockets, with healthy clients beside it.

    python tests/fuzz/server.py [--inputs 1000000] [--seed 1]

Inputs are valid requests that were bent, cut, joined and garbled. The server is a
process of its own. Ends with 1 if a healthy client got a wrong answer or waited for
longer than 5 seconds, if the server ended, logged an error of its own, or kept
connections, descriptors or memory.
"""

import argparse
import asyncio
import random
import struct
import sys
import time
import zlib
from pathlib import Path

import msgpack

from fastcore import Server, rpc

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.server_process import figures_of, server_process

SENTINEL = b"7d629535c4f3a6963f566af7d3e3a2d2"
STRANGERS = 8
#: Inputs sent over one connection, at most.
BATCH = 200


def add(stream, x, y):
    return x + y


async def slow(stream, x=0):
    await asyncio.sleep(0)
    return x


def new_server() -> Server:
    return Server({"add": add, "slow": slow}, max_buffer_size=2**20, message_timeout=5)


class Inputs:
    """An endless supply of inputs; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def value(self, depth: int = 3) -> object:
        chance = self.chance
        kind = chance.randrange(14)
        if depth and kind == 0:
            return [self.value(depth - 1) for _ in range(chance.randrange(5))]
        if depth and kind == 1:
            return {self.key(): self.value(depth - 1) for _ in range(chance.randrange(5))}
        return chance.choice(
            (
                None,
                True,
                False,
                0,
                -1,
                2**63,
                -(2**63),
                float("nan"),
                float("inf"),
                "",
                "text",
                SENTINEL.decode(),
                b"",
                SENTINEL,
                chance.randbytes(chance.randrange(50)),
                msgpack.ExtType(chance.randrange(128), chance.randbytes(chance.randrange(20))),
                msgpack.Timestamp(chance.randrange(2**34), chance.randrange(10**9)),
            )
        )

    def key(self) -> object:
        keys = ("x", "y", "op", "close", "reply", "stream", "self", "", b"x", 0, None, float("nan"))
        return self.chance.choice(keys)

    def request(self) -> object:
        chance = self.chance
        if chance.random() < 0.2:
            return self.value()
        ops = ("add", "slow", "identity", "no such", "stop", "__init__", "_wait")
        request: dict[object, object] = {"op": chance.choice(ops) if chance.random() < 0.9 else self.value(1)}
        if isinstance(request["op"], dict | list):
            request["op"] = None
        if chance.random() < 0.5:
            request |= {"x": self.value(1), "y": self.value(1)}
        for _ in range(chance.choice((0, 0, 1, 3))):
            request[self.key()] = self.value(2)
        return request

    def one(self) -> bytes:
        chance = self.chance
        payload = msgpack.packb(self.request())
        header: dict[str, object] = {}
        if chance.random() < 0.2:
            header["length"] = chance.choice((len(payload), 0, -1, 2**64 - 1, "x", chance.randrange(10**7)))
        if chance.random() < 0.1:
            header["compression"] = chance.choice(("zlib", "lz4", "snappy", "rot13", 7, None))
            if chance.random() < 0.5:
                payload = zlib.compress(payload)
        packed = msgpack.packb(header) if header or chance.random() < 0.1 else b""
        data = bytearray(struct.pack("<I", len(packed)) + packed + payload)
        if chance.random() < 0.4:
            for _ in range(chance.choice((1, 1, 2, 10))):
                data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        if chance.random() < 0.1:
            data += chance.randbytes(chance.randrange(200))
        if chance.random() < 0.97:
            data += SENTINEL
        return bytes(data)


async def stranger(port: int, inputs: Inputs, left: list[int]) -> None:
    """Connect, send some inputs, leave somehow; over and over."""
    chance = inputs.chance
    while left[0] > 0:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        count = min(left[0], chance.choice((1, 10, BATCH)))
        left[0] -= count
        reading = asyncio.ensure_future(_read_all(reader))
        try:
            data = b"".join(inputs.one() for _ in range(count))
            cut = chance.randrange(len(data) + 1)
            writer.write(data[:cut])
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            writer.write(data[cut:])
            if chance.random() < 0.9:
                writer.write(SENTINEL * 2)
                writer.write_eof()
                await reading
        except OSError:
            pass
        finally:
            reading.cancel()
            writer.transport.abort()


async def _read_all(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(2**20):
            pass
    except ConnectionError:
        pass


async def healthy(port: int, left: list[int], slowest: list[float]) -> int:
    """Call, check and time, as long as there are strangers."""
    calls = 0
    async with rpc(ip="127.0.0.1", port=port) as remote:
        while left[0] > 0:
            begun = time.perf_counter()
            assert await remote.add(x=calls, y=1, timeout=5) == calls + 1
            slowest[0] = max(slowest[0], time.perf_counter() - begun)
            calls += 1
            await asyncio.sleep(0.001)
    return calls


async def fuzz(port: int, inputs: int, seed: int) -> bool:
    left, slowest = [inputs], [0.0]
    before = await figures_of(port)
    begun = time.perf_counter()
    strangers = [stranger(port, Inputs(seed + number), left) for number in range(STRANGERS)]
    *_, calls, calls_too = await asyncio.gather(
        *strangers, healthy(port, left, slowest), healthy(port, left, slowest)
    )
    seconds = time.perf_counter() - begun
    after = await figures_of(port)
    print(f"{inputs:,} inputs in {seconds:.0f} s over {after['connections']['ever']:,} connections")
    print(f"healthy clients: {calls + calls_too:,} calls, all right, the slowest took {slowest[0]:.3f} s")
    print(f"refused or failed: {after['errors']}")
    print(f"server: descriptors {before['descriptors']} -> {after['descriptors']}")
    print(f"server: RSS {before['rss'] / 2**20:.1f} -> {after['rss'] / 2**20:.1f} MiB")
    return after["descriptors"] <= before["descriptors"] and after["rss"] < before["rss"] + 30 * 2**20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with server_process(new_server) as server:
        fine = asyncio.run(fuzz(server.port, options.inputs, options.seed))
    for complaint in server.complaints:
        print("the server:", complaint)
    fine = fine and not server.complaints
    print("all is well" if fine else "SOMETHING IS WRONG")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
