"""The floor for large messages: ``echo.c.in``, compiled here and called through ctypes."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.peers import HOST
from bench.peers.blocking import dial

SOURCE = Path(__file__).with_name("echo.c.in")


def compiled() -> ctypes.CDLL:
    """Compile the floor and load it; the file is gone when this returns."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "echo.so")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, "-x", "c", SOURCE], check=True)
        return ctypes.CDLL(str(library))


def serve(announce: Callable[[int], None]) -> None:
    floor = compiled()
    listener = socket.create_server((HOST, 0))
    announce(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        floor.serve(sock.fileno())
        sock.close()


class Connection:
    """Echoes only; the memory for the answer is kept from one call to the next."""

    def __init__(self, port: int) -> None:
        self.floor = compiled()
        self.sock = dial(port)
        self.room = bytearray()

    def echo(self, data: bytes) -> bytearray:
        if len(self.room) != len(data):
            self.room = bytearray(len(data))
        answer = (ctypes.c_char * len(data)).from_buffer(self.room)
        size = ctypes.c_uint64(len(data))
        if self.floor.echo(self.sock.fileno(), data, size, answer):
            raise ConnectionError("the C floor lost its connection")
        return self.room


connect = Connection
