"""asyncio streams, length-prefixed msgpack, a coroutine per connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack

from bench.peers import HOST
from bench.peers.prefixed import encode

run = asyncio.run
LIMIT = 2**20


async def read(reader: asyncio.StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(4), "little")
    return msgpack.unpackb(await reader.readexactly(length))


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    updates = 0
    try:
        while True:
            message = await read(reader)
            op = message["op"]
            if op == "update":
                updates += 1
                continue
            if op == "add":
                writer.write(encode(message["x"] + message["y"]))
            elif op == "echo":
                writer.write(encode(message["data"]))
            elif op == "flush":
                writer.write(encode(updates))
                updates = 0
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def serve(announce: Callable[[int], None]) -> None:
    server = await asyncio.start_server(handle, HOST, 0, limit=LIMIT)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class Connection:
    """One call at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, message: object) -> Any:
        self.writer.write(encode(message))
        await self.writer.drain()
        return await read(self.reader)

    async def add(self, x: int, y: int) -> Any:
        return await self.ask({"op": "add", "x": x, "y": y})

    async def echo(self, data: bytes) -> Any:
        return await self.ask({"op": "echo", "data": data})

    async def stream(self, count: int) -> int:
        for i in range(count):
            self.writer.write(encode({"op": "update", "key": "task-12345", "n": i}))
            await self.writer.drain()
        received: int = await self.ask({"op": "flush"})
        return received


async def connect(port: int) -> Connection:
    return Connection(*await asyncio.open_connection(HOST, port, limit=LIMIT))
