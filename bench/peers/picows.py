"""picows: one WebSocket message for each of ours, packed by msgpack, on uvloop where installed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)

from bench.peers import HOST

try:
    from uvloop import run
except ImportError:
    from asyncio import run

__all__ = ["connect", "run", "serve"]

pack = msgpack.Packer().pack
LIMIT = 2**32


class Listener(WSListener):
    """What both ends share: whole messages, and a pause when the transport is full."""

    transport: WSTransport
    room: asyncio.Future[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def send(self, message: object) -> None:
        self.transport.send(WSMsgType.BINARY, pack(message))

    def pause_writing(self) -> None:
        self.room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self.room is not None and not self.room.done():
            self.room.set_result(None)
        self.room = None


class Server(Listener):
    """Answers in the order of the messages."""

    updates = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.BINARY:
            return
        message = msgpack.unpackb(frame.get_payload_as_memoryview())
        op = message["op"]
        if op == "update":
            self.updates += 1
        elif op == "add":
            self.send(message["x"] + message["y"])
        elif op == "echo":
            self.send(message["data"])
        elif op == "flush":
            self.send(self.updates)
            self.updates = 0


class Connection(Listener):
    """One call at a time."""

    reply: asyncio.Future[Any]

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self.reply.set_result(msgpack.unpackb(frame.get_payload_as_memoryview()))

    def ask(self, message: object) -> asyncio.Future[Any]:
        self.reply = asyncio.get_running_loop().create_future()
        self.send(message)
        return self.reply

    def add(self, x: int, y: int) -> asyncio.Future[Any]:
        return self.ask({"op": "add", "x": x, "y": y})

    def echo(self, data: bytes) -> asyncio.Future[Any]:
        return self.ask({"op": "echo", "data": data})

    async def stream(self, count: int) -> int:
        for i in range(count):
            self.send({"op": "update", "key": "task-12345", "n": i})
            if self.room is not None:
                await self.room
        received: int = await self.ask({"op": "flush"})
        return received


def accept(request: WSUpgradeRequest) -> Server:
    return Server()


async def serve(announce: Callable[[int], None]) -> None:
    server = await ws_create_server(accept, HOST, 0, max_frame_size=LIMIT)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def connect(port: int) -> Connection:
    _, listener = await ws_connect(Connection, f"ws://{HOST}:{port}", max_frame_size=LIMIT)
    connection: Connection = listener
    return connection
