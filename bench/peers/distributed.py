"""The ``distributed.core`` of today: Server, rpc, and a Comm for the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from distributed.comm import Comm
from distributed.core import Server, rpc
from distributed.core import connect as open_comm

from bench.peers import HOST

run = asyncio.run


def add(x: int, y: int) -> int:
    return x + y


def echo(data: bytes) -> bytes:
    return data


async def sink(comm: Comm) -> int:
    count = 0
    while (await comm.read())["op"] == "update":
        count += 1
    return count


async def serve(announce: Callable[[int], None]) -> None:
    server = Server({"add": add, "echo": echo, "sink": sink})
    await server.listen(f"tcp://{HOST}:0")
    announce(server.port)
    await asyncio.Event().wait()


class Connection:
    """An rpc for the calls, a Comm of its own for the updates."""

    def __init__(self, port: int) -> None:
        self.address = f"tcp://{HOST}:{port}"
        self.remote = rpc(self.address)

    def add(self, x: int, y: int) -> Awaitable[Any]:
        return self.remote.add(x=x, y=y)

    def echo(self, data: bytes) -> Awaitable[Any]:
        return self.remote.echo(data=data)

    async def stream(self, count: int) -> int:
        comm = await open_comm(self.address)
        await comm.write({"op": "sink"})
        for i in range(count):
            await comm.write({"op": "update", "key": "task-12345", "n": i})
        await comm.write({"op": "flush"})
        received: int = await comm.read()
        await comm.close()
        return received


async def connect(port: int) -> Connection:
    return Connection(port)
