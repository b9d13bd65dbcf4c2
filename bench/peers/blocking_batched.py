"""The floor for a stream of messages: many packed into one buffer, unpacked by one Unpacker."""

from __future__ import annotations

import socket
from collections.abc import Callable

import msgpack

from bench.peers import HOST
from bench.peers.blocking import dial

CHUNK = 65536


def serve(announce: Callable[[int], None]) -> None:
    listener = socket.create_server((HOST, 0))
    announce(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        unpacker = msgpack.Unpacker()
        updates = 0
        while data := sock.recv(CHUNK):
            unpacker.feed(data)
            for message in unpacker:
                if message["op"] == "update":
                    updates += 1
                else:
                    sock.sendall(msgpack.packb(updates))
                    updates = 0


class Connection:
    """A stream of updates only."""

    def __init__(self, port: int) -> None:
        self.sock = dial(port)

    def stream(self, count: int) -> int:
        packer = msgpack.Packer(autoreset=False)
        for i in range(count):
            packer.pack({"op": "update", "key": "task-12345", "n": i})
            if i % 1024 == 0:
                self.sock.sendall(packer.getbuffer())
                packer.reset()
        packer.pack({"op": "flush"})
        self.sock.sendall(packer.getbuffer())
        received: int = msgpack.unpackb(self.sock.recv(CHUNK))
        return received

    messages = stream


connect = Connection
