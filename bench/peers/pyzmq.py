"""pyzmq, blocking: REQ and REP for the calls, PUSH and PULL for the stream, msgpack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import zmq

from bench.peers import HOST

URL = f"tcp://{HOST}"


def serve(announce: Callable[[int], None]) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    announce(socket.bind_to_random_port(URL))
    while True:
        message = msgpack.unpackb(socket.recv())
        op = message["op"]
        if op == "add":
            socket.send(msgpack.packb(message["x"] + message["y"]))
        elif op == "echo":
            socket.send(msgpack.packb(message["data"]), copy=False)
        elif op == "sink":
            with context.socket(zmq.PULL) as updates:
                socket.send(msgpack.packb(updates.bind_to_random_port(URL)))
                count = 0
                while msgpack.unpackb(updates.recv())["op"] == "update":
                    count += 1
            socket.recv()
            socket.send(msgpack.packb(count))


class Connection:
    """A REQ socket: one call at a time."""

    def __init__(self, port: int) -> None:
        self.context = zmq.Context.instance()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.connect(f"{URL}:{port}")

    def send(self, message: object) -> None:
        self.socket.send(msgpack.packb(message), copy=False)

    def answer(self) -> Any:
        return msgpack.unpackb(self.socket.recv())

    def ask(self, x: int, y: int) -> None:
        self.socket.send(msgpack.packb({"op": "add", "x": x, "y": y}))

    def echo(self, data: bytes) -> Any:
        self.send({"op": "echo", "data": data})
        return self.answer()

    def stream(self, count: int) -> Any:
        self.send({"op": "sink"})
        with self.context.socket(zmq.PUSH) as updates:
            updates.connect(f"{URL}:{self.answer()}")
            for i in range(count):
                updates.send(msgpack.packb({"op": "update", "key": "task-12345", "n": i}))
            updates.send(msgpack.packb({"op": "flush"}))
            self.send({"op": "count"})
            return self.answer()


connect = Connection
