"""The floor for calls that share a connection: those in flight leave together, so do their answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import msgpack

from bench.peers import HOST
from bench.peers.blocking import dial

CHUNK = 65536


class Wire:
    """Messages over a socket: packed into one buffer, unpacked by one Unpacker."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unpacker = msgpack.Unpacker()
        self.packer = msgpack.Packer(autoreset=False)

    def send(self) -> None:
        """Send what was packed."""
        self.sock.sendall(self.packer.getbuffer())
        self.packer.reset()

    def receive(self) -> bool:
        """Take what one system call gives; False at the end."""
        data = self.sock.recv(CHUNK)
        self.unpacker.feed(data)
        return bool(data)


def serve(announce: Callable[[int], None]) -> None:
    listener = socket.create_server((HOST, 0))
    announce(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Wire(sock)
        while client.receive():
            for message in client.unpacker:
                if message["op"] == "add":
                    client.packer.pack((message["id"], message["x"] + message["y"]))
            client.send()


class Connection(Wire):
    """Many calls, asked for before the first answer is wanted."""

    def __init__(self, port: int) -> None:
        super().__init__(dial(port))
        self.calls: set[int] = set()
        self.next = 0
        self.is_sent = True

    def ask(self, x: int, y: int) -> None:
        self.next += 1
        self.calls.add(self.next)
        self.packer.pack({"op": "add", "x": x, "y": y, "id": self.next})
        self.is_sent = False

    def answer(self) -> Any:
        if not self.is_sent:
            self.send()
            self.is_sent = True
        while True:
            for number, answer in self.unpacker:
                self.calls.remove(number)
                return answer
            if not self.receive():
                raise ConnectionError("the floor's server has gone")


connect = Connection
