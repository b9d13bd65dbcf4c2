"""The floor for a client that blocks: a socket and msgpack, by hand, with fastcore's server."""

from __future__ import annotations

from typing import Any

import msgpack

from bench.peers.blocking import ROOM, dial
from bench.peers.fastcore_sync import serve

__all__ = ["connect", "serve"]

SENTINEL = b"7d629535c4f3a6963f566af7d3e3a2d2"
pack = msgpack.Packer().pack


class Connection:
    """One call after the other, each with its number."""

    def __init__(self, port: int) -> None:
        self.sock = dial(port)
        self.number = 0

    def add(self, x: int, y: int) -> Any:
        self.number += 1
        header = pack({"call": self.number})
        request = pack({"op": "add", "x": x, "y": y})
        self.sock.sendall(len(header).to_bytes(4, "little") + header + request + SENTINEL)
        data = b""
        while not data.endswith(SENTINEL):
            received = self.sock.recv(ROOM)
            if not received:
                raise ConnectionError("the server has gone")
            data += received
        end = 4 + int.from_bytes(data[:4], "little")
        if msgpack.unpackb(data[4:end])["call"] != self.number:
            raise ValueError("the answer of another call")
        return msgpack.unpackb(data[end : -len(SENTINEL)])


connect = Connection
