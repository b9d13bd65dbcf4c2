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
# Where the bytes of an answer begin in the memory that is lent for it: START and LENGTH there.
BEFORE = 48


def compiled(*flags: str) -> ctypes.CDLL:
    """Compile the floor and load it; the file is gone when this returns."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "echo.so")
        command = ["cc", "-O2", "-shared", "-fPIC", *flags, "-o", library, "-x", "c", SOURCE]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library))


def serve(announce: Callable[[int], None], *flags: str) -> None:
    floor = compiled(*flags)
    listener = socket.create_server((HOST, 0))
    announce(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        floor.serve(sock.fileno())
        sock.close()


class Connection:
    """Echoes only; the memory for the answer is kept from one call to the next."""

    def __init__(self, port: int, *flags: str) -> None:
        self.floor = compiled(*flags)
        self.sock = dial(port)
        self.memory = bytearray()

    def echo(self, data: bytes) -> memoryview:
        size = BEFORE + len(data)
        if len(self.memory) != size:
            self.memory = bytearray(size)
        memory = (ctypes.c_char * size).from_buffer(self.memory)
        if self.floor.echo(self.sock.fileno(), data, ctypes.c_uint64(len(data)), memory):
            raise ConnectionError("the C floor lost its connection")
        return memoryview(self.memory)[BEFORE:]


connect = Connection
