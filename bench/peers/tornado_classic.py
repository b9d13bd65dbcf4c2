"""Plain Tornado: the same wire format as fastcore's, by ``read_until`` and coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.tcpclient import TCPClient
from tornado.tcpserver import TCPServer

from bench.peers import HOST

run = asyncio.run
SENTINEL = b"7d629535c4f3a6963f566af7d3e3a2d2"
LIMIT = 4 * 2**30


async def read(stream: IOStream) -> Any:
    frame = await stream.read_until(SENTINEL)
    header = int.from_bytes(frame[:4], "little")
    return msgpack.unpackb(memoryview(frame)[4 + header : -len(SENTINEL)], strict_map_key=False)


async def write(stream: IOStream, message: object) -> None:
    await stream.write(bytes(4) + msgpack.packb(message) + SENTINEL)


async def add(stream: IOStream, x: int, y: int) -> int:
    return x + y


async def echo(stream: IOStream, data: bytes) -> bytes:
    return data


async def sink(stream: IOStream) -> int:
    count = 0
    while (await read(stream))["op"] == "update":
        count += 1
    return count


HANDLERS: dict[str, Callable[..., Any]] = {"add": add, "echo": echo, "sink": sink}


class Server(TCPServer):
    """Looks the op up, calls the handler with the message's keywords, writes what it returns."""

    async def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        stream.set_nodelay(True)
        try:
            while True:
                message = await read(stream)
                handler = HANDLERS[message.pop("op")]
                await write(stream, await handler(stream, **message))
        except StreamClosedError:
            pass


async def serve(announce: Callable[[int], None]) -> None:
    server = Server(max_buffer_size=LIMIT)
    (listener,) = bind_sockets(0, HOST)
    server.add_socket(listener)
    announce(listener.getsockname()[1])
    await asyncio.Event().wait()


class Connection:
    """One call at a time."""

    def __init__(self, stream: IOStream) -> None:
        self.tcp = stream

    async def ask(self, message: object) -> Any:
        await write(self.tcp, message)
        return await read(self.tcp)

    async def add(self, x: int, y: int) -> Any:
        return await self.ask({"op": "add", "x": x, "y": y})

    async def echo(self, data: bytes) -> Any:
        return await self.ask({"op": "echo", "data": data})

    async def stream(self, count: int) -> int:
        await write(self.tcp, {"op": "sink"})
        for i in range(count):
            await write(self.tcp, {"op": "update", "key": "task-12345", "n": i})
        received: int = await self.ask({"op": "flush"})
        return received


async def connect(port: int) -> Connection:
    stream = await TCPClient().connect(HOST, port, max_buffer_size=LIMIT)
    stream.set_nodelay(True)
    return Connection(stream)
