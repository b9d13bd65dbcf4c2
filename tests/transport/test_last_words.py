"""What was said last: heard by a peer that still sends, and for one that has left nothing is waited for."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tornado.iostream import IOStream

from fastcore.transport import tornado
from fastcore.transport.tornado import channel_of
from helpers.support import until
from helpers.wire import SENTINEL, frame

#: More than two sockets hold.
MUCH = bytes(2_000_000)

told = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system doesn't tell what has arrived"
)


@asynccontextmanager
async def met() -> AsyncIterator[tuple[IOStream, socket.socket]]:
    """A stream, and the bare socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as theirs:
        for sock in (listening, theirs):
            for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, size, 2**16)
        theirs.connect(listening.getsockname())
        ours, _ = listening.accept()
        theirs = socket.socket(fileno=theirs.detach())
    theirs.setblocking(False)
    ours.setblocking(False)
    stream = IOStream(ours)
    with theirs:
        yield stream, theirs
    stream.close()


async def all_said(sock: socket.socket) -> bytes:
    said = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, 2**16):
        said += data
    return bytes(said)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """For as long as no test says otherwise, the peer may take its time."""
    monkeypatch.setattr(tornado, "_LAST_WORDS", 3600.0)


async def test_the_peer_hears_the_end_and_it_is_over_when_it_has_left_too():
    async with met() as (stream, theirs):
        channel = channel_of(stream)
        channel.farewell("goodbye")
        assert await all_said(theirs) == frame("goodbye")
        assert not channel.is_lost
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: stream.closed())


async def test_a_peer_that_sends_on_is_not_reset_and_hears_it():
    async with met() as (stream, theirs):
        channel_of(stream).farewell("goodbye")
        await asyncio.get_running_loop().sock_sendall(theirs, MUCH)
        assert await all_said(theirs) == frame("goodbye")
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: stream.closed())


async def test_a_peer_that_sends_on_while_it_does_not_read_hears_it_behind_the_rest():
    async with met() as (stream, theirs):
        channel = channel_of(stream)
        channel.send(MUCH)
        channel.farewell("goodbye")
        assert channel.is_full
        said = await all_said(theirs)
        assert said.endswith(frame("goodbye"))
        assert len(said) > len(MUCH) + len(frame("goodbye"))


async def test_a_peer_that_is_reset_is_not_waited_for():
    async with met() as (stream, theirs):
        channel_of(stream).farewell("goodbye")
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        await until(lambda: stream.closed())


async def test_a_peer_that_does_nothing_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(tornado, "_LAST_WORDS", 0.05)
    async with met() as (stream, theirs):
        channel_of(stream).farewell("goodbye")
        await until(lambda: stream.closed())
        assert await all_said(theirs) == frame("goodbye")


@told
async def test_what_was_said_before_it_is_closed_arrives_though_the_peer_sends_on():
    """To close a socket that has received more resets the connection, and drops what is still on its way."""
    async with met() as (stream, theirs):
        channel = channel_of(stream)
        channel.send(MUCH)
        channel.close_when_arrived()
        assert channel.is_full
        asyncio.get_running_loop().call_later(
            0.05, channel.close_when_arrived
        )  # asked once more, it is the same
        sending = asyncio.get_running_loop().sock_sendall(theirs, MUCH)
        _, said = await asyncio.gather(sending, all_said(theirs))
        assert said.endswith(MUCH + SENTINEL)
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: stream.closed())


@told
async def test_a_peer_that_takes_its_time_gets_all_of_it_and_one_that_takes_nothing_more_is_left(monkeypatch):
    monkeypatch.setattr(tornado, "_LAST_WORDS", 0.1)
    async with met() as (stream, theirs):
        channel = channel_of(stream)
        channel.send(MUCH)
        channel.close_when_arrived()
        loop = asyncio.get_running_loop()
        missing = len(MUCH)
        while missing > 0:
            # It is alive, and says so.
            await loop.sock_sendall(theirs, b"x")
            missing -= len(await loop.sock_recv(theirs, 2**15))
            await asyncio.sleep(0.005)
    async with met() as (stream, _):
        channel = channel_of(stream)
        channel.send(MUCH[: 2**16])
        channel.close_when_arrived()
        await until(lambda: stream.closed())


@told
async def test_where_all_has_arrived_the_connection_is_closed_at_once():
    async with met() as (stream, theirs):
        channel = channel_of(stream)
        channel.send("hello")
        assert await asyncio.get_running_loop().sock_recv(theirs, 2**16) == frame("hello")
        await until(lambda: channel.transport._acknowledgements.arrived() is None)
        channel.close_when_arrived()
        assert stream.closed()
