"""What belongs to a connection ends with it: its last reference frees it, and not the collector."""

import asyncio
import gc
import logging
import socket
import struct
import weakref
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType

import pytest

from fastcore import ConnectionLost, ConnectionPool, connect, messages, read, rpc, write
from fastcore.transport import connecting
from fastcore.transport.tornado import channel_of
from helpers.certificates import THEIRS, client_context, server_context
from helpers.support import left_to_the_collector, until
from helpers.wire import served


@pytest.fixture(autouse=True)
def _no_collector():
    gc.collect()
    gc.disable()
    # Who keeps the log keeps errors, and with them the frames that they passed.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


async def slow(stream):
    await asyncio.sleep(60)


def rows(stream):
    yield from range(10**6)


async def rows_later(stream):
    for number in range(10**6):
        yield number
        await asyncio.sleep(0)


def fail(stream):
    raise ValueError("as it does")


async def flood(stream):
    while True:
        await write(stream, bytes(100_000))


async def by_hand(stream):
    return await read(stream)


HANDLERS = {
    "slow": slow,
    "rows": rows,
    "rows_later": rows_later,
    "fail": fail,
    "flood": flood,
    "by_hand": by_hand,
}


class Calls:
    """An rpc with all kinds of calls under way, some of them given up."""

    async def begin(self, port, ssl_options):
        self.remote = rpc(ip="127.0.0.1", port=port, ssl_options=ssl_options)
        assert await self.remote.add(x=1, y=2) == 3
        with suppress(ValueError):
            await self.remote.fail()
        with suppress(TimeoutError):
            await self.remote.slow(timeout=0.01)
        self.calls = [self.remote.slow(), self.remote.slow(), self.remote.rows(), self.remote.rows_later()]
        self.iterators = [aiter(call) for call in self.calls[2:]]
        assert [await anext(each) for each in self.iterators] == [0, 0]
        self.calls[0].cancel()
        self.streams = [*self.remote.streams]

    def close(self):
        self.remote.close_rpc()

    def forget(self):
        self.__dict__.clear()


class ByHand:
    """A stream, and what is done to it; with what is still to come of that."""

    def __init__(self, *requests, waits=None):
        self.requests = requests
        self.waits = waits

    async def begin(self, port, ssl_options):
        stream = await connect("127.0.0.1", port, ssl_options=ssl_options)
        self.streams = [stream]
        for op in ("fail", *self.requests):
            await write(stream, {"op": op})
            if op != "by_hand":
                await read(stream)
        if self.waits is not None:
            self.waiting = self.waits(stream)

    def close(self):
        self.streams[0].close()

    def forget(self):
        self.__dict__.clear()


CLIENTS = {
    "calls": Calls,
    "by hand": ByHand,
    "flooded": lambda: ByHand("flood"),
    "read from": lambda: ByHand("by_hand"),
    "waits": lambda: ByHand(waits=read),
    "iterates": lambda: ByHand(waits=lambda stream: messages(stream)),
}


def reset(streams):
    for stream in streams:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()


@pytest.mark.parametrize("security", ["plain", "TLS"])
@pytest.mark.parametrize("end", ["the client closes", "the server ends", "reset"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_connection_that_has_ended_is_freed_by_its_last_reference(client, end, security):
    at_server, at_client = (server_context(), client_context()) if security == "TLS" else (None, None)
    async with served(HANDLERS, ssl_options=at_server) as server:
        user = CLIENTS[client]()
        await user.begin(server.port, at_client)
        channels = [channel_of(stream) for stream in user.streams]
        of_server = server._connections
        left = [weakref.ref(each) for each in [*channels, *of_server, *of_server.values()]]
        if end == "the client closes":
            user.close()
        elif end == "reset":
            reset(user.streams)
        else:
            await server.shutdown(0.05)
            with suppress(ConnectionLost, asyncio.CancelledError):
                if client == "waits":
                    await user.waiting
            user.close()
        await until(lambda: not of_server and not server.stats()["running"])
        del channels
        user.forget()
        async with asyncio.timeout(5):
            await until(lambda: not [each for each in left if each() is not None])


async def untrusting(server):
    await connect("127.0.0.1", server.port, ssl_options=client_context(trusts=THEIRS))


async def calling(server):
    await rpc(ip="127.0.0.1", port=server.port, ssl_options=client_context(trusts=THEIRS)).add(x=1, y=2)


async def given_up(server):
    connecting = connect("127.0.0.1", server.port, ssl_options=client_context())
    await until(lambda: server.stats()["connections"]["open"])
    connecting.cancel()
    with suppress(asyncio.CancelledError):
        await connecting
    raise ConnectionLost("given up")


@pytest.mark.parametrize("connects", [untrusting, calling, given_up])
async def test_a_connection_that_never_came_about_is_freed_too(connects, monkeypatch):
    left = []

    def channel_of_stream(stream, *arguments, **options):
        channel = channel_of(stream, *arguments, **options)
        left.extend(map(weakref.ref, (stream, channel)))
        return channel

    monkeypatch.setattr(connecting, "channel_of", channel_of_stream)
    async with served(ssl_options=server_context()) as server:
        with pytest.raises(ConnectionLost):
            await connects(server)
        await until(lambda: left and not any(each() for each in left))


carried: ContextVar["Carried"] = ContextVar("carried")


class Carried:
    """What a program has in the context of a request of its own, in which it calls others."""


async def call_with_time_limits(server):
    remote = rpc(ip="127.0.0.1", port=server.port, idle_timeout=60, call_timeout=60, timeout=60)
    await remote.echo(x=1)
    await remote.echo(x=bytes(5_000_000), timeout=60)
    return remote


async def read_and_write(server):
    stream = await connect("127.0.0.1", server.port, timeout=60, message_timeout=60)
    await write(stream, {"op": "echo", "x": bytes(5_000_000)})
    await read(stream)
    return stream


@pytest.mark.parametrize("makes", [call_with_time_limits, read_and_write])
async def test_a_connection_keeps_nothing_of_the_context_in_which_it_was_made(makes):
    async def request():
        value = Carried()
        carried.set(value)
        return weakref.ref(value), await makes(server)

    async with served({"echo": lambda stream, x: x}) as server:
        value, kept = await asyncio.create_task(request())
        await until(lambda: value() is None)
        assert kept is not None


async def where_nobody_listens(pool, port):
    with suppress(ConnectionLost):
        await connect("127.0.0.1", port, timeout=0.05)


async def by_a_call(pool, port):
    async with rpc(ip="127.0.0.1", port=port, timeout=0.05) as remote:
        with suppress(ConnectionLost):
            await remote.add(x=1, y=2)


async def where_all_are_in_use(pool, port):
    with suppress(TimeoutError):
        await pool.connect("127.0.0.1", port, timeout=0.05)


@pytest.mark.parametrize("fails", [where_nobody_listens, by_a_call, where_all_are_in_use])
async def test_a_connection_that_could_not_be_had_leaves_nothing_to_the_collector(fails):
    async with served() as server:
        pool = ConnectionPool(limit=1)
        stream = await pool.connect("127.0.0.1", server.port)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            port = server.port if fails is where_all_are_in_use else silent.getsockname()[1]
            await fails(pool, port)
            gc.collect()
            await fails(pool, port)
        assert not left_to_the_collector(BaseException, FrameType, asyncio.Task, ConnectionPool)
        stream.close()
        pool.close()
