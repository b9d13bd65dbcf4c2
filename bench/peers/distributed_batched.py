"""What ``distributed`` itself uses where speed matters: BatchedSend, and to_serialize for bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from distributed.batched import BatchedSend
from distributed.comm import Comm
from distributed.core import Server, rpc
from distributed.core import connect as open_comm
from distributed.protocol import to_serialize

from bench.peers import HOST

run = asyncio.run
ENOUGH = 10_000


def echo(data: bytes) -> object:
    return to_serialize(data)


async def sink(comm: Comm) -> int:
    count = 0
    while True:
        for message in await comm.read():
            if message["op"] == "flush":
                return count
            count += 1


async def serve(announce: Callable[[int], None]) -> None:
    server = Server({"echo": echo, "sink": sink})
    await server.listen(f"tcp://{HOST}:0")
    announce(server.port)
    await asyncio.Event().wait()


class Connection:
    """An rpc for the echoes, a BatchedSend with the scheduler's interval for the updates."""

    def __init__(self, port: int) -> None:
        self.address = f"tcp://{HOST}:{port}"
        self.remote = rpc(self.address)

    def echo(self, data: bytes) -> Awaitable[Any]:
        return self.remote.echo(data=to_serialize(data))

    async def stream(self, count: int) -> int:
        comm = await open_comm(self.address)
        await comm.write({"op": "sink"})
        batched = BatchedSend(interval="2ms")
        batched.start(comm)
        for i in range(count):
            batched.send({"op": "update", "key": "task-12345", "n": i})
            # BatchedSend never pushes back: without a pause the whole stream would wait in memory.
            while len(batched.buffer) > ENOUGH:
                await asyncio.sleep(0)
        batched.send({"op": "flush"})
        received: int = await comm.read()
        await batched.close()
        return received


async def connect(port: int) -> Connection:
    return Connection(port)
