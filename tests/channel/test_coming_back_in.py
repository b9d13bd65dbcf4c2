"""Whoever runs in the middle of ours may call anything of the same connection.

The collector, at every allocation that may start it; signal handlers, as often as there is time. In
between they write, read, call, give up and close, and messages stay whole and in order.
"""

import asyncio
import os
import random
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress

import msgpack
import pytest

from fastcore import ConnectionLost, Server, connect, read, rpc, write
from fastcore.transport.tornado import channel_of
from helpers.certificates import client_context, server_context
from helpers.support import in_a_thread, until
from helpers.torture import TIMES, Somebody, collecting, signalled
from helpers.wire import SENTINEL, frame

SIZES = [0, 10, 500, 5_000, 20_000, 70_000, 300_000]
#: ``make torture`` has more of them.
SEEDS = range(int(os.environ.get("FASTCORE_SEEDS", "2")))
WAYS = {"collector": collecting, "signals": signalled}


KINDS = {"plain": (None, None), "TLS": (server_context(), client_context())}


def taken_apart(data):
    """Messages out of their bytes, and how many bytes of a last one there are."""
    messages = []
    at = 0
    while len(data) - at > 4:
        (size,) = struct.unpack_from("<I", data, at)
        start = at + 4 + size
        header = msgpack.unpackb(data[at + 4 : start]) if size else {}
        end = start + header["length"] if "length" in header else data.find(SENTINEL, start)
        if end < 0 or end + len(SENTINEL) > len(data):
            break
        assert data[end : end + len(SENTINEL)] == SENTINEL
        messages.append(msgpack.unpackb(data[start:end]))
        at = end + len(SENTINEL)
    return messages, len(data) - at


def body(number, size):
    return bytes([number % 251]) * size


@asynccontextmanager
async def collecting_peer(context, *, size):
    """A peer that keeps all bytes that come; it reads so many at a time.

    In a thread: loops differ in what they do with bytes that come over TLS just before the end.
    """
    data = bytearray()

    def take(server):
        with suppress(ConnectionError, ssl.SSLError):
            peer, _ = server.accept()
            with context.wrap_socket(peer, server_side=True) if context else peer as peer:
                while part := peer.recv(size):
                    data.extend(part)

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1], data, in_a_thread(lambda: take(server))


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_messages_written_in_between_are_whole_and_in_order(kind, way, closes, seed):
    servers, clients = KINDS[kind]
    chance = random.Random(seed)
    written = {"outside": 0, "inside": 0}
    futures = []
    was_closed = False

    def put(who, sizes, chance):
        number, size = written[who], chance.choice(sizes)
        written[who] += 1
        value = body(number, size)
        more = [bytearray(value), memoryview(value)] if chance.random() < 0.2 else []
        futures.append(write(stream, [who, number, size, value, *more]))
        return futures[-1]

    def come_in(chance):
        nonlocal was_closed
        if closes and somebody.times == TIMES // 2:
            was_closed = True
            stream.close()
        elif chance.random() < 0.3:
            put("inside", SIZES[: chance.choice([4, 7])], chance)

    somebody = Somebody(come_in, seed)
    size = 1_000 if seed % 2 else 1_000_000
    async with collecting_peer(servers, size=size) as (port, data, ended):
        stream = await connect("127.0.0.1", port, ssl_options=clients)
        with WAYS[way](somebody):
            for _ in range(200):
                future = put("outside", SIZES, chance)
                if chance.random() < 0.3:
                    with suppress(ConnectionLost):
                        await future
        ends = await asyncio.gather(*futures, return_exceptions=True)
        await until(lambda: was_closed or not channel_of(stream).unsent)
        stream.close()
        await ended
    messages, rest = taken_apart(bytes(data))
    for who, count in written.items():
        numbers = [message[1] for message in messages if message[0] == who]
        # Where it was closed, what hadn't left is lost; and from there on all of it.
        assert numbers == [*range(len(numbers) if was_closed else count)]
    assert all(value == body(number, size) for _, number, size, *values in messages for value in values)
    if not was_closed:
        assert (rest, ends, somebody.errors) == (0, [None] * len(ends), [])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_messages_read_in_between_come_once_and_in_order(kind, way, seed):
    servers, clients = KINDS[kind]
    chance = random.Random(seed)
    sizes = [chance.choice(SIZES) for _ in range(300)]
    data = b"".join(frame([number, size, body(number, size)]) for number, size in enumerate(sizes))

    async def give(reader, writer):
        with suppress(ConnectionError):
            for at in range(0, len(data), 50_000):
                writer.write(data[at : at + 50_000])
                await writer.drain()
            await reader.read()
        writer.close()
        ended.set()

    ended = asyncio.Event()
    inside = []

    def come_in(chance):
        what = chance.random()
        if what < 0.3:
            inside.append(read(stream))
        elif what < 0.5 and inside:
            inside[-1].cancel()

    somebody = Somebody(come_in, seed)
    taken = []
    async with await asyncio.start_server(give, "127.0.0.1", 0, ssl=servers) as server:
        stream = await connect(*server.sockets[0].getsockname(), ssl_options=clients)
        with WAYS[way](somebody):
            while len(taken) + len(inside) < len(sizes) // 2:
                with suppress(RuntimeError):  # somebody else reads
                    taken.append(await read(stream))
                await asyncio.sleep(0)
        got = [
            each.result() for each in inside if each.done() and not each.cancelled() and not each.exception()
        ]
        got += [await each for each in inside if not each.done()]
        for numbers in (taken, got):
            assert [number for number, *_ in numbers] == sorted(number for number, *_ in numbers)
        left = len(sizes) - len(taken) - len(got)
        taken += got + [await read(stream) for _ in range(left)]
        assert sorted(number for number, *_ in taken) == [*range(len(sizes))]
        assert all(value == body(number, size) for number, size, value in taken)
        assert not somebody.errors
        stream.close()
        await ended.wait()


class Host:
    """Handlers of each kind."""

    @staticmethod
    def echo(stream, x):
        return x

    @staticmethod
    async def later(stream, x):
        await asyncio.sleep(0)
        return x

    @staticmethod
    def rows(stream, x, count):
        for number in range(count):
            yield [number, x]

    @staticmethod
    async def rows_later(stream, x, count):
        for number in range(count):
            yield [number, x]
            await asyncio.sleep(0)

    @staticmethod
    def wrong(stream, x):
        raise ValueError(x)


HANDLERS = {name: getattr(Host, name) for name in ("echo", "later", "rows", "rows_later", "wrong")}


async def answers_rightly(call, op, x, count):
    """Wait for a call, and see that it ends as it must; those that somebody gave up needn't."""
    expected = [[number, x] for number in range(count)] if op.startswith("rows") else x
    try:
        if op.startswith("rows") and count % 2:
            answer = [each async for each in call]
        else:
            answer = await call
    except asyncio.CancelledError:
        answer = expected if call.cancelled() else "not given up"
    except ValueError as error:
        answer = str(error) if op == "wrong" else error
    assert answer == expected, op


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_calls_made_and_given_up_in_between_get_their_own_answers(kind, way, closes, seed):
    servers, clients = KINDS[kind]
    chance = random.Random(seed)
    calls = []
    was_closed = False

    def start(chance, sizes):
        op = chance.choice([*HANDLERS])
        size = chance.choice(sizes)
        x = f"call {len(calls)}" if op == "wrong" else body(len(calls), size)
        message = {"x": x}
        count = chance.randrange(40)
        if op.startswith("rows"):
            message["count"] = count = min(count, 10**6 // (size + 1))
        if chance.random() < 0.3:
            # Never reached; but asyncio can't set a timer in the middle of setting one.
            message["timeout"] = 600
        calls.append((getattr(remote, op)(**message), op, x, count))

    def come_in(chance):
        nonlocal was_closed
        what = chance.random()
        if closes and somebody.times == TIMES // 2:
            was_closed = True
            remote.close_streams()
        elif what < 0.05:
            start(chance, SIZES[:5])
        elif what < 0.1 and calls:
            chance.choice(calls[-20:])[0].cancel()

    somebody = Somebody(come_in, seed)
    server = Server(HANDLERS, ssl_options=servers, error_detail="message")
    server.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=server.port, ssl_options=clients, share=2) as remote:
        await remote.echo(x=0)
        with WAYS[way](somebody):
            for _ in range(100):
                start(chance, SIZES)
                if chance.random() < 0.3:
                    with suppress(asyncio.CancelledError, ConnectionLost, ValueError):
                        await calls[-1][0]
        for call in calls:
            with suppress(*[ConnectionLost] if was_closed else []):
                await answers_rightly(*call)
        assert await remote.echo(x="still there") == "still there"
        assert not somebody.errors
    await server.shutdown()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_calls_begun_in_between_that_get_no_connection_end_in_time(way, seed):
    async def never(stream):
        await asyncio.Event().wait()

    chance = random.Random(seed)
    calls = []

    def come_in(chance):
        if chance.random() < 0.5:
            calls.append(remote.never())
        else:
            # Where nobody waits any more, nobody looks after them; and then somebody waits again.
            for call in calls[1:]:
                call.cancel()

    somebody = Somebody(come_in, seed, times=300)
    server = Server({"never": never})
    server.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=server.port, limit=1, share=0, timeout=0.3) as remote:
        calls.append(remote.never())
        await until(lambda: server.stats()["running"])
        with WAYS[way](somebody):
            while somebody.times:
                come_in(chance)
                await asyncio.sleep(0)
        waiting = [*calls[1:], remote.never()]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} <= {TimeoutError, asyncio.CancelledError}
        assert not somebody.errors
        calls[0].cancel()
    await server.shutdown()
