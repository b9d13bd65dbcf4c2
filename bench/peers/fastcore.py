"""fastcore by its public surface: a Server, rpc for calls, read and write for the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from tornado.iostream import IOStream

from bench.peers import HOST
from fastcore import Server, messages, read, rpc, write
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


async def sink_messages(stream: IOStream) -> int:
    count = 0
    async for message in messages(stream):
        if message["op"] != "update":
            break
        count += 1
    return count


def updates(stream: IOStream, count: int) -> Iterator[object]:
    for i in range(count):
        yield {"op": "update", "key": "task-12345", "n": i}


async def updates_async(stream: IOStream, count: int) -> AsyncIterator[object]:
    for i in range(count):
        yield {"op": "update", "key": "task-12345", "n": i}


HANDLERS: dict[str, Callable[..., Any]] = {
    "add": add,
    "echo": echo,
    "sink": sink,
    "sink_messages": sink_messages,
    "updates": updates,
    "updates_async": updates_async,
}


async def serve(announce: Callable[[int], None]) -> None:
    server = Server(HANDLERS)
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

    async def parts(self, count: int) -> int:
        return await count_of(self.remote.updates(count=count))

    async def parts_async(self, count: int) -> int:
        return await count_of(self.remote.updates_async(count=count))

    async def stream(self, count: int) -> int:
        return await self.write_to("sink", count)

    async def messages(self, count: int) -> int:
        return await self.write_to("sink_messages", count)

    async def write_to(self, op: str, count: int) -> int:
        stream = await open_stream(HOST, self.port)
        await write(stream, {"op": op})
        for i in range(count):
            await write(stream, {"op": "update", "key": "task-12345", "n": i})
        await write(stream, {"op": "flush"})
        received: int = await read(stream)
        stream.close()
        return received


async def count_of(answers: AsyncIterable[object]) -> int:
    count = 0
    async for _ in answers:
        count += 1
    return count


async def connect(port: int) -> Connection:
    return Connection(port)
