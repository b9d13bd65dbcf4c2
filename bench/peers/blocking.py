"""The floor in Python: blocking sockets, msgpack and memory that is kept, a selector on the server."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Any

import msgpack

from bench.peers import HOST
from bench.peers.prefixed import pack

ROOM = 128 * 1024


def dial(port: int) -> socket.socket:
    """Open a connection without Nagle's delay."""
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Wire:
    """Length-prefixed messages over a socket, received into memory that is used again."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.room = memoryview(bytearray(ROOM))
        self.filled = 0

    def send(self, message: object) -> None:
        payload: bytes = pack(message)
        prefix = len(payload).to_bytes(4, "little")
        if len(payload) < ROOM:
            self.sock.sendall(prefix + payload)
        else:
            self.sock.sendall(prefix)
            self.sock.sendall(payload)

    def receive(self) -> list[Any] | None:
        """Take what one system call gives: the messages it completes, None at the end."""
        size = self.sock.recv_into(self.room[self.filled :])
        end = self.filled + size
        messages, start, wanted = [], 0, 4
        while end - start >= 4:
            stop = start + 4 + int.from_bytes(self.room[start : start + 4], "little")
            if stop > end:
                wanted = stop - start
                break
            messages.append(msgpack.unpackb(self.room[start + 4 : stop]))
            start = stop
        rest = self.room[start:end]
        if wanted > len(self.room):
            self.room = memoryview(bytearray(wanted))
        if start or wanted > end:
            self.room[: len(rest)] = rest
        self.filled = len(rest)
        return messages if size else None


def serve(announce: Callable[[int], None]) -> None:
    listener = socket.create_server((HOST, 0), backlog=1024)
    announce(listener.getsockname()[1])
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    accepted, _ = listener.accept()
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(accepted, selectors.EVENT_READ, Client(accepted))
                elif not key.data.serve():
                    selector.unregister(key.fileobj)


class Client(Wire):
    """One client, on the server's side."""

    updates = 0

    def serve(self) -> bool:
        """Answer what has arrived; False when the client has gone."""
        messages = self.receive()
        for message in messages or ():
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
        return messages is not None


class Connection(Wire):
    """One call at a time."""

    def __init__(self, port: int) -> None:
        super().__init__(dial(port))

    def answer(self) -> Any:
        while not (messages := self.receive()):
            if messages is None:
                raise ConnectionError("the floor's server has gone")
        return messages[0]

    def ask(self, x: int, y: int) -> None:
        self.send({"op": "add", "x": x, "y": y})

    def add(self, x: int, y: int) -> Any:
        self.ask(x, y)
        return self.answer()

    def echo(self, data: bytes) -> Any:
        self.send({"op": "echo", "data": data})
        return self.answer()

    def stream(self, count: int) -> Any:
        for i in range(count):
            self.send({"op": "update", "key": "task-12345", "n": i})
        self.send({"op": "flush"})
        return self.answer()


connect = Connection
