"""asyncio, a Protocol written by hand with an id in each message: many calls share a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bench.peers import HOST
from bench.peers.asyncio_protocol import Peer
from bench.peers.prefixed import encode

run = asyncio.run


class Server(Peer):
    """Says in each answer whose it is."""

    def received(self, message: Any) -> None:
        if message["op"] == "add":
            self.transport.write(encode((message["id"], message["x"] + message["y"])))


class Connection(Peer):
    """One table, id -> Future."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, asyncio.Future[Any]] = {}
        self.next = 0

    def received(self, message: Any) -> None:
        number, answer = message
        self.calls.pop(number).set_result(answer)

    def add(self, x: int, y: int) -> asyncio.Future[Any]:
        self.next += 1
        reply = self.calls[self.next] = asyncio.get_running_loop().create_future()
        self.transport.write(encode({"op": "add", "x": x, "y": y, "id": self.next}))
        return reply


async def serve(announce: Callable[[int], None]) -> None:
    server = await asyncio.get_running_loop().create_server(Server, HOST, 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def connect(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, HOST, port)
    return connection
