"""Receiving 256 MiB over loopback TCP, beside `recv_into` a buffer that is there already.

``into memory in use`` receives again and again into one buffer whose pages were touched
before: no program that keeps what it receives has that. ``into fresh memory`` is a new
bytearray each time. ``with a length`` and ``without a length`` are the engine, which
takes fresh memory each time and gives it back.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from multiprocessing import get_context

import pytest

from fastcore._framing import SENTINEL, MessageBuffer

MB = 1024 * 1024
SIZE = 256 * MB
HEADER = b"\1\0\0\0h"

PIECES = {"64 KiB": 64 * 1024, "256 KiB": 256 * 1024, "1 MiB": MB}


def serve(listener: socket.socket) -> None:
    """Send a message for each byte that comes: H with a header, P without, R the payload alone."""
    block = memoryview(bytes(range(256)) * 4096)
    with listener, listener.accept()[0] as connection:
        while kind := connection.recv(1):
            connection.sendall({b"H": HEADER, b"P": bytes(4), b"R": b""}[kind])
            for _ in range(SIZE // len(block)):
                connection.sendall(block)
            connection.sendall(b"" if kind == b"R" else SENTINEL)


@pytest.fixture(scope="module")
def connection() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = get_context("spawn").Process(target=serve, args=(listener,))
        sender.start()
        with socket.create_connection(listener.getsockname(), timeout=60) as connection:
            connection.setblocking(True)
            yield connection
        sender.join(60)


def receive_into(target: bytearray, connection: socket.socket, piece: int) -> int:
    connection.send(b"R")
    view = memoryview(target)
    received = 0
    while received < SIZE:
        received += connection.recv_into(view[received : received + piece])
    return received


USED = bytearray(SIZE)


def into_memory_in_use(connection: socket.socket, piece: int) -> int:
    return receive_into(USED, connection, piece)


def into_fresh_memory(connection: socket.socket, piece: int) -> int:
    return receive_into(bytearray(SIZE), connection, piece)


def through_buffer(kind: bytes, connection: socket.socket, piece: int) -> int:
    connection.send(kind)
    buffer = MessageBuffer(lambda header: SIZE)
    while (message := buffer.next_message()) is None:
        memory = buffer.prepare(piece)
        buffer.commit(connection.recv_into(memory, min(piece, len(memory))))
    return len(message[1])


def with_a_length(connection: socket.socket, piece: int) -> int:
    return through_buffer(b"H", connection, piece)


def without_a_length(connection: socket.socket, piece: int) -> int:
    return through_buffer(b"P", connection, piece)


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize(
    "way",
    [into_memory_in_use, into_fresh_memory, with_a_length, without_a_length],
    ids=lambda way: way.__name__,
)
def test_receive(benchmark, connection: socket.socket, way: Callable[[socket.socket, int], int], piece: int):
    benchmark.group = f"receive 256 MiB in pieces of {piece:,} bytes"
    assert benchmark.pedantic(way, (connection, piece), rounds=7, warmup_rounds=1) == SIZE
