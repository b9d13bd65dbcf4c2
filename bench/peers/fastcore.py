"""fastcore by its public surface: a Server, rpc for calls, read and write for the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.iostream import IOStream

from bench.peers import HOST
from fastcore import Server, read, rpc, write
from fastcore import connect as open_stream

run = asyncio.run


def add(stream: IOStream, x: int, y: int) -> int:
    return x + y


def echo(stream: IOStream, data: bytes) -> bytes:
    return data


async def sink(stream: IOStream) -> int:
    count = 0
    while (await read(stream))["op"] == "update":
        count += 1
    return count


async def serve(announce: Callable[[int], None]) -> None:
    server = Server({"add": add, "echo": echo, "sink": sink})
    server.listen(0, HOST)
    announce(server.port)
    await asyncio.Event().wait()


class Connection:
    """An rpc for the calls, a stream of its own for the updates."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.remote = rpc(ip=HOST, port=port)

    def add(self, x: int, y: int) -> Awaitable[Any]:
        return self.remote.add(x=x, y=y)

    def echo(self, data: bytes) -> Awaitable[Any]:
        return self.remote.echo(data=data)

    async def stream(self, count: int) -> int:
        stream = await open_stream(HOST, self.port)
        await write(stream, {"op": "sink"})
        for i in range(count):
            await write(stream, {"op": "update", "key": "task-12345", "n": i})
        await write(stream, {"op": "flush"})
        received: int = await read(stream)
        stream.close()
        return received


async def connect(port: int) -> Connection:
    return Connection(port)
