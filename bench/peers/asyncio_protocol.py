"""asyncio, a Protocol written by hand: length-prefixed msgpack, one Future per call, no RPC layer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from bench.peers import HOST
from bench.peers.prefixed import Decoder, encode

run = asyncio.run


class Peer(asyncio.Protocol):
    """What both ends share: the transport, whole messages, and a pause when it is full."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.room: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self.decoder.feed(data):
            self.received(message)

    def received(self, message: Any) -> None:
        raise NotImplementedError

    def pause_writing(self) -> None:
        self.room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self.room is not None and not self.room.done():
            self.room.set_result(None)
        self.room = None


class Server(Peer):
    """Answers in the order of the messages."""

    updates = 0

    def received(self, message: Any) -> None:
        op = message["op"]
        if op == "update":
            self.updates += 1
        elif op == "add":
            self.transport.write(encode(message["x"] + message["y"]))
        elif op == "echo":
            self.transport.write(encode(message["data"]))
        elif op == "flush":
            self.transport.write(encode(self.updates))
            self.updates = 0


class Connection(Peer):
    """One call at a time."""

    reply: asyncio.Future[Any]

    def received(self, message: Any) -> None:
        self.reply.set_result(message)

    def ask(self, message: object) -> asyncio.Future[Any]:
        self.reply = asyncio.get_running_loop().create_future()
        self.transport.write(encode(message))
        return self.reply

    def add(self, x: int, y: int) -> asyncio.Future[Any]:
        return self.ask({"op": "add", "x": x, "y": y})

    def echo(self, data: bytes) -> asyncio.Future[Any]:
        return self.ask({"op": "echo", "data": data})

    async def stream(self, count: int) -> int:
        for i in range(count):
            self.transport.write(encode({"op": "update", "key": "task-12345", "n": i}))
            if self.room is not None:
                await self.room
        received: int = await self.ask({"op": "flush"})
        return received


async def serve(announce: Callable[[int], None]) -> None:
    server = await asyncio.get_running_loop().create_server(Server, HOST, 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def connect(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, HOST, port)
    return connection
