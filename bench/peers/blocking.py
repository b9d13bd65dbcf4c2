"""The floor in Python: blocking sockets and msgpack, a selector on the server, nothing else."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Any

from bench.peers import HOST
from bench.peers.prefixed import Decoder, encode

CHUNK = 65536


def dial(port: int) -> socket.socket:
    """Open a connection without Nagle's delay."""
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


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
                    selector.register(accepted, selectors.EVENT_READ, Session(accepted))
                elif not key.data.serve():
                    selector.unregister(key.fileobj)


class Session:
    """One client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = Decoder()
        self.updates = 0

    def serve(self) -> bool:
        """Answer what has arrived; False when the client has gone."""
        data = self.sock.recv(CHUNK)
        for message in self.decoder.feed(data):
            op = message["op"]
            if op == "update":
                self.updates += 1
            elif op == "add":
                self.sock.sendall(encode(message["x"] + message["y"]))
            elif op == "echo":
                self.sock.sendall(encode(message["data"]))
            elif op == "flush":
                self.sock.sendall(encode(self.updates))
                self.updates = 0
        return bool(data)


class Connection:
    """One call at a time."""

    def __init__(self, port: int) -> None:
        self.sock = dial(port)
        self.decoder = Decoder()

    def send(self, message: object) -> None:
        self.sock.sendall(encode(message))

    def answer(self) -> Any:
        while not (messages := self.decoder.feed(self.sock.recv(CHUNK))):
            pass
        return messages[0]

    def ask(self, x: int, y: int) -> None:
        self.send({"op": "add", "x": x, "y": y})

    def echo(self, data: bytes) -> Any:
        self.send({"op": "echo", "data": data})
        return self.answer()

    def stream(self, count: int) -> Any:
        for i in range(count):
            self.send({"op": "update", "key": "task-12345", "n": i})
        self.send({"op": "flush"})
        return self.answer()


connect = Connection
