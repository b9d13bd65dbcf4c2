"""``read`` and ``write``: any stream, to its end, and no message lost."""

import asyncio
import os
import socket
import time
from datetime import timedelta

import msgpack
import pytest
from tornado import gen
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient

from fastcore import ConnectionLost, connect, read, send_recv, write
from fastcore.transport.tornado import channel_of
from helpers.streams import stream_pair
from helpers.support import until
from helpers.surface import serving
from helpers.wire import SENTINEL, frame


async def test_a_stream_that_the_caller_made_serves():
    with serving() as server:
        stream = await TCPClient().connect("127.0.0.1", server.port)
        await write(stream, {"op": "add", "x": 1, "y": 2})
        assert await read(stream) == 3
        stream.close()


async def test_a_socketpair_serves():
    one, another = stream_pair()
    await write(one, [b"bytes", "text", None, 1.5])
    assert await read(another) == [b"bytes", "text", None, 1.5]
    one.close()
    another.close()


async def test_messages_received_before_the_end_are_delivered_then_the_end():
    one, another = stream_pair()
    for n in range(3):
        write(one, n)
    one.close()
    assert [await read(another) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StreamClosedError):
        await read(another)
    another.close()


async def test_a_cancelled_read_loses_nothing():
    one, another = stream_pair()
    given_up = read(another)
    await asyncio.sleep(0)
    given_up.cancel()
    write(one, "kept")
    assert await read(another) == "kept"
    one.close()
    another.close()


async def test_a_read_that_timed_out_loses_nothing():
    one, another = stream_pair()
    with pytest.raises(gen.TimeoutError):
        await gen.with_timeout(timedelta(milliseconds=10), read(another))
    write(one, "kept")
    assert await read(another) == "kept"
    one.close()
    another.close()


def by_tornado(reading):
    return gen.with_timeout(timedelta(milliseconds=10), reading)


async def by_asyncio(reading):
    async with asyncio.timeout(0.01):
        return await reading


@pytest.mark.parametrize("given_up_after_a_while", [by_tornado, by_asyncio])
async def test_a_read_given_up_in_the_turn_in_which_its_message_arrives_loses_nothing(given_up_after_a_while):
    one, another = socket.socketpair()
    stream = IOStream(another)
    reading = asyncio.ensure_future(given_up_after_a_while(read(stream)))
    await asyncio.sleep(0)
    one.sendall(frame("first"))
    time.sleep(0.02)
    # The loop finds both now, the message and that the time is over.
    try:
        messages = [await reading]
    except (TimeoutError, gen.TimeoutError):
        messages = []
    one.sendall(frame("second"))
    while len(messages) < 2:
        messages.append(await read(stream))
    assert messages == ["first", "second"]
    one.close()
    stream.close()


async def test_what_one_turn_writes_to_two_streams_arrives_in_one_turn_whatever_was_written_before():
    (one, its_reader), (another, other_reader) = stream_pair(), stream_pair()
    order = []

    async def keep(name, stream):
        order.append((name, await read(stream)))

    write(another, "before")
    assert await read(other_reader) == "before"
    await asyncio.sleep(0.01)
    both = [asyncio.create_task(keep("one", its_reader)), asyncio.create_task(keep("another", other_reader))]
    await asyncio.sleep(0)
    write(one, 1)
    write(another, 2)
    await both[0]
    assert sorted(order) == [("another", 2), ("one", 1)]
    await both[1]
    for stream in (one, its_reader, another, other_reader):
        stream.close()


async def test_what_is_written_after_its_socket_was_closed_reaches_nobody_else():
    theirs, ours = socket.socketpair()
    others, another = socket.socketpair()
    stream = IOStream(ours)
    channel_of(stream)
    number = ours.fileno()
    ours.close()
    os.dup2(others.fileno(), number)
    with theirs, others, another:
        another.setblocking(False)
        with pytest.raises(ConnectionLost):
            await write(stream, "a secret")
        with pytest.raises(BlockingIOError):
            another.recv(100)
    os.close(number)


async def test_two_readers_at_once_are_refused():
    one, another = stream_pair()
    first = read(another)
    with pytest.raises(RuntimeError, match="two readers"):
        await read(another)
    write(one, "for the first")
    assert await first == "for the first"
    one.close()
    another.close()


async def test_the_close_callback_runs_when_the_peer_closes():
    closed = asyncio.Event()
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        stream.set_close_callback(closed.set)
        await write(stream, {"op": "close"})
        assert await read(stream) == "OK"
        await closed.wait()
        assert stream.closed()


async def test_a_close_that_comes_with_the_last_message_is_seen_with_it():
    one, another = stream_pair()
    reading = read(another)
    write(one, "last")
    one.close()
    assert await reading == "last"
    assert another.closed()


async def test_work_starts_when_called_not_when_awaited():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        for n in range(100):
            write(stream, {"op": "echo", "x": n})
        assert [await read(stream) for _ in range(100)] == list(range(100))
        stream.close()


@pytest.mark.parametrize("message", [object(), {"op": object()}, {1: {2: {object()}}}, 2**80])
async def test_write_holds_its_error_in_the_future(message):
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        future = write(stream, message)
        with pytest.raises((TypeError, ValueError, OverflowError)):
            await future
        assert await send_recv(stream, op="ping") == b"pong"
        stream.close()


@pytest.mark.parametrize("stream", [(), None, "127.0.0.1:8786", object()])
async def test_write_and_read_hold_the_error_of_what_is_no_stream(stream):
    for future in (write(stream, 1), read(stream)):
        with pytest.raises((TypeError, AttributeError)):
            await future


async def test_write_to_a_closed_stream_is_a_failed_future():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        stream.close()
        future = write(stream, {"op": "ping"})
        with pytest.raises(IOError, match="closed"):
            await future


async def test_a_read_that_with_timeout_gave_up_on_may_be_waited_for_again():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        reading = read(stream)
        with pytest.raises(gen.TimeoutError):
            await gen.with_timeout(timedelta(seconds=0.01), reading)
        await write(stream, {"op": "echo", "x": 1})
        assert await reading == 1
        reading = read(stream)
        with pytest.raises(gen.TimeoutError):
            await gen.with_timeout(timedelta(seconds=0.01), reading)
        await write(stream, {"op": "echo", "x": 2})
        await until(lambda: channel_of(stream).unread > 0)
        assert await reading == 2
        stream.close()


async def test_a_stream_that_was_closed_before_its_first_message_says_so():
    for use in (read, lambda stream: write(stream, 1), lambda stream: send_recv(stream=stream, op="ping")):
        one, another = stream_pair()
        one.close()
        with pytest.raises(ConnectionLost):
            await use(one)
        another.close()


async def test_a_peer_that_falls_silent_is_found_by_the_system_unless_nobody_wants_that():
    with serving() as server:
        for seconds, is_on in ((10, True), (None, False)):
            stream = await connect("127.0.0.1", server.port, peer_timeout=seconds)
            assert bool(stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is is_on
            stream.close()


async def test_the_descriptor_of_a_stream_that_was_closed_while_it_was_full_serves_another():
    one, another = stream_pair()
    write(one, bytes(5_000_000))
    assert channel_of(one).is_full
    number = one.socket.fileno()
    one.close()
    sockets = [*socket.socketpair()]
    while sockets[-1].fileno() < number:
        sockets += socket.socketpair()
    at = [sock.fileno() for sock in sockets].index(number)
    again, its_peer = IOStream(sockets[at]), IOStream(sockets[at ^ 1])
    writing = write(again, bytes(5_000_000))
    assert await read(its_peer) == bytes(5_000_000)
    await writing
    write(its_peer, "an answer")
    assert await read(again) == "an answer"
    for thing in (another, again, its_peer, *sockets):
        thing.close()


def disguised(data: bytes | bytearray | memoryview) -> bytes:
    return bytes(data).translate(bytes(range(255, -1, -1)))


class DisguisedStream(IOStream):
    """A stream that does something to its bytes, by the methods that Tornado documents for that."""

    def read_from_fd(self, buffer):
        data = bytearray(len(buffer))
        size = super().read_from_fd(data)
        if size:
            buffer[:size] = disguised(data[:size])
        return size

    def write_to_fd(self, data):
        return super().write_to_fd(memoryview(disguised(data)))


class DisguisedSocket(socket.socket):
    """The same as a socket."""

    def recv_into(self, buffer, *arguments):
        size = super().recv_into(buffer, *arguments)
        buffer[:size] = disguised(buffer[:size])
        return size

    def send(self, data, *arguments):
        return super().send(disguised(data), *arguments)


@pytest.mark.parametrize("kind", ["stream", "socket"])
async def test_what_a_subclass_does_to_the_bytes_is_done_to_messages_too(kind):
    one, another = socket.socketpair()
    kinds = {
        "stream": DisguisedStream,
        "socket": lambda sock: IOStream(DisguisedSocket(fileno=sock.detach())),
    }
    stream = kinds[kind](one)
    another.setblocking(False)
    loop = asyncio.get_running_loop()
    for message in ("small", [bytes(100_000), bytes(100_000)]):
        write(stream, message)
        seen = b""
        while not disguised(seen).endswith(SENTINEL):
            seen += await loop.sock_recv(another, 2**20)
        assert msgpack.packb(message) in disguised(seen)
        await loop.sock_sendall(another, seen)
        assert await read(stream) == message
    stream.close()
    another.close()
