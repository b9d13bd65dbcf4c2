"""The other side dies: whoever reads or writes learns who was lost."""

import socket
import struct

import pytest
from tornado.iostream import IOStream

from fastcore import ConnectionLost, connect, read, write
from fastcore.transport.tornado import channel_of
from helpers.wire import frame, served


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    return theirs, ours


@pytest.mark.parametrize("message", ["small", "x" * 100_000, b"x" * 100_000])
async def test_a_write_to_a_peer_that_has_reset_the_connection_fails(message):
    theirs, ours = tcp_pair()
    stream = IOStream(ours)
    channel_of(stream)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(ConnectionLost, match=r"127.0.0.1:"):
        await write(stream, message)


async def test_a_connection_closed_under_a_reader_of_ours_says_who_was_lost():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        reading = read(stream)
        stream.close()
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{server.port}"):
            await reading
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{server.port}"):
            await write(stream, "more")


async def test_who_reads_the_last_message_sees_that_the_stream_is_closed_with_it():
    theirs, ours = socket.socketpair()
    with theirs:
        theirs.sendall(frame("first") + frame("last"))
    stream = IOStream(ours)
    assert await read(stream) == "first"
    assert await read(stream) == "last"
    assert stream.closed()
    with pytest.raises(ConnectionLost):
        await read(stream)


async def test_what_a_peer_said_before_it_died_is_read_although_a_write_has_failed():
    theirs, ours = tcp_pair()
    stream = IOStream(ours)
    channel_of(stream)
    theirs.sendall(frame("last words"))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(ConnectionLost):
        await write(stream, "more")
    assert await read(stream) == "last words"
    with pytest.raises(ConnectionLost):
        await read(stream)
