"""pyzmq on asyncio: the same sockets as the blocking peer's, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from bench.peers import HOST

run = asyncio.run
URL = f"tcp://{HOST}"


async def serve(announce: Callable[[int], None]) -> None:
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.REP)
    announce(socket.bind_to_random_port(URL))
    while True:
        message = msgpack.unpackb(await socket.recv())
        op = message["op"]
        if op == "add":
            await socket.send(msgpack.packb(message["x"] + message["y"]))
        elif op == "echo":
            await socket.send(msgpack.packb(message["data"]), copy=False)
        elif op == "sink":
            with context.socket(zmq.PULL) as updates:
                await socket.send(msgpack.packb(updates.bind_to_random_port(URL)))
                count = 0
                while msgpack.unpackb(await updates.recv())["op"] == "update":
                    count += 1
            await socket.recv()
            await socket.send(msgpack.packb(count))


class Connection:
    """A REQ socket: one call at a time."""

    def __init__(self, port: int) -> None:
        self.context = zmq.asyncio.Context.instance()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.connect(f"{URL}:{port}")

    async def ask(self, message: object, copy: bool = True) -> Any:
        await self.socket.send(msgpack.packb(message), copy=copy)
        return msgpack.unpackb(await self.socket.recv())

    async def add(self, x: int, y: int) -> Any:
        return await self.ask({"op": "add", "x": x, "y": y})

    async def echo(self, data: bytes) -> Any:
        return await self.ask({"op": "echo", "data": data}, copy=False)

    async def stream(self, count: int) -> Any:
        port = await self.ask({"op": "sink"})
        with self.context.socket(zmq.PUSH) as updates:
            updates.connect(f"{URL}:{port}")
            for i in range(count):
                await updates.send(msgpack.packb({"op": "update", "key": "task-12345", "n": i}))
            await updates.send(msgpack.packb({"op": "flush"}))
            return await self.ask({"op": "count"})


async def connect(port: int) -> Connection:
    return Connection(port)
