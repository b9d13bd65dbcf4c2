"""Who doesn't read costs a bounded amount of memory, and slows nobody else."""

import asyncio
import gc
import time
from contextlib import AsyncExitStack

import pytest

from fastcore import connect, read, rpc, write
from fastcore.compressions import Compression, compressions
from fastcore.transport.tornado import channel_of
from helpers.certificates import client_context, server_context
from helpers.support import until
from helpers.wire import frame, served, stranger_at

# Here it matters how fast either end is.
pytestmark = pytest.mark.slow_under_valgrind

MESSAGE = b"x" * 100_000
MIB = 2**20


@pytest.fixture(params=["tcp", "tls"])
def security(request):
    """Keywords for the server, and for the client."""
    if request.param == "tcp":
        return {}, {}
    return {"ssl_options": server_context()}, {"ssl_options": client_context()}


class Flood:
    """A handler that streams without end, as fast as ``write`` lets it."""

    def __init__(self):
        self.written = 0
        self.stuck = asyncio.Event()
        self.stream = None

    async def __call__(self, stream):
        self.stream = stream
        while True:
            written = write(stream, MESSAGE)
            if not written.done():
                self.stuck.set()
            await written
            self.written += 1


async def test_a_stream_to_a_client_that_does_not_read_stops_at_the_high_water_mark(security):
    on_server, on_client = security
    flood = Flood()
    async with served({"flood": flood}, **on_server) as server:
        stream = await connect("127.0.0.1", server.port, **on_client)
        await write(stream, {"op": "flood", "reply": False})
        await flood.stuck.wait()
        # Whatever the kernel takes, it takes a moment; then it stands still.
        await stands_still(lambda: flood.written)
        assert channel_of(flood.stream).held < MIB
        async with rpc(ip="127.0.0.1", port=server.port, **on_client) as other:
            assert await other.add(x=1, y=2) == 3
        before = flood.written
        for _ in range(before + 10):
            assert await read(stream) == MESSAGE
        assert flood.written > before
        stream.close()


async def test_a_client_that_does_not_read_its_answers_is_asked_no_further_questions(security):
    on_server, on_client = security
    answered = 0

    def big(stream):
        nonlocal answered
        answered += 1
        return MESSAGE

    async with served({"big": big}, **on_server) as server:
        stream = await connect("127.0.0.1", server.port, **on_client)
        for _ in range(5000):
            write(stream, {"op": "big"})
        await stands_still(lambda: answered)
        assert answered < 1000
        for _ in range(5000):
            assert len(await read(stream)) == len(MESSAGE)
        stream.close()


async def test_messages_that_nobody_takes_stop_the_sender_and_not_the_memory(security):
    """The handler runs; what the client sends in the meantime waits, most of it on its side."""
    on_server, on_client = security
    streams, go_on = [], asyncio.Event()

    async def busy(stream):
        streams.append(stream)
        await go_on.wait()

    async with served({"busy": busy}, **on_server) as server:
        stream = await connect("127.0.0.1", server.port, **on_client)
        await write(stream, {"op": "busy", "reply": False})
        sent = [write(stream, {"op": "add", "x": MESSAGE, "y": b"", "reply": False}) for _ in range(500)]
        await stands_still(lambda: sum(future.done() for future in sent))
        assert not sent[-1].done()
        assert channel_of(streams[0]).held < MIB
        go_on.set()
        await asyncio.gather(*sent)
        write(stream, {"op": "add", "x": 1, "y": 2})
        assert await read(stream) == 3
        stream.close()


async def test_after_a_read_given_up_messages_stop_the_sender_and_not_the_memory(security):
    on_server, on_client = security
    flood = Flood()
    async with served({"flood": flood}, **on_server) as server:
        stream = await connect("127.0.0.1", server.port, **on_client)
        await write(stream, {"op": "flood", "reply": False})
        read(stream).cancel()
        await flood.stuck.wait()
        await stands_still(lambda: flood.written)
        assert channel_of(stream).held < MIB
        for _ in range(flood.written + 10):
            assert await read(stream) == MESSAGE
        stream.close()


async def test_a_client_that_never_reads_is_dropped_after_a_time():
    flood = Flood()
    async with served({"flood": flood}, write_timeout=0.3) as server, stranger_at(server) as stranger:
        stranger.writer.transport.pause_reading()
        stranger.say(frame({"op": "flood"}))
        await flood.stuck.wait()
        while not flood.stream.closed():
            await asyncio.sleep(0.01)
        assert server.stats()["errors"]["write_timeout"] == 1


async def test_a_client_that_reads_slowly_is_not_dropped():
    async with served({"big": lambda stream: b"x" * 2 * MIB}, write_timeout=0.5) as server:
        stream = await connect("127.0.0.1", server.port)
        writing = [write(stream, {"op": "big"}) for _ in range(20)]
        await asyncio.gather(*writing)
        for _ in range(20):
            await asyncio.sleep(0.06)
            assert len(await read(stream)) == 2 * MIB
        stream.close()


async def test_memory_comes_back_after_a_flood():
    flood = Flood()
    async with served({"flood": flood}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "flood", "reply": False})
        await flood.stuck.wait()
        stream.close()
        while server.stats()["running"]:
            await asyncio.sleep(0.001)
        gc.collect()
        assert server.stats()["buffers"] == 0


async def test_a_wait_that_ends_where_a_message_ends_ends(security):
    """What was received before the pause is whole messages, to the byte."""
    on_server, on_client = security
    streams, go_on = [], asyncio.Event()

    async def busy(stream):
        streams.append(stream)
        await go_on.wait()

    async with served({"busy": busy}, max_waiting=1000, **on_server) as server:
        stream = await connect("127.0.0.1", server.port, **on_client)
        write(stream, {"op": "busy"})
        while not streams:
            await asyncio.sleep(0.001)
        for number in range(100):
            write(stream, {"op": "add", "x": number, "y": 0})
        while channel_of(streams[0]).unread < 1000:
            await asyncio.sleep(0.001)
        go_on.set()
        assert await read(stream) is None
        assert [await read(stream) for _ in range(100)] == [*range(100)]
        write(stream, {"op": "add", "x": 1, "y": 2})
        assert await read(stream) == 3
        stream.close()


async def test_messages_that_wait_are_bounded_by_a_keyword():
    streams, go_on = [], asyncio.Event()

    async def busy(stream):
        streams.append(stream)
        await go_on.wait()

    async with served({"busy": busy}, max_waiting=10_000) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "busy", "reply": False})
        for number in range(10_000):
            write(stream, {"op": "add", "x": number, "y": 0})
        while not streams:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        # What one system call gave may come on top.
        assert channel_of(streams[0]).unread < 10_000 + 2**18
        go_on.set()
        assert [await read(stream) for _ in range(10_000)] == [*range(10_000)]
        stream.close()


def work(milliseconds):
    """Keep the processor busy, however many others want it."""
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        pass


async def test_requests_that_come_faster_than_they_are_answered_wait_outside():
    handled = []

    def slow(stream, data):
        work(0.3)
        handled.append(server.stats()["buffers"])

    async with served({"slow": slow}, max_waiting=50_000) as server, stranger_at(server) as stranger:
        request = frame({"op": "slow", "data": bytes(1000), "reply": False})
        stranger.say(request * 2000, frame({"op": "add", "x": 1, "y": 2}))
        assert await stranger.hears() == 3
    assert len(handled) == 2000
    # What one system call gave may come on top, and the memory that it is in is twice that.
    assert max(handled) < 2 * (50_000 + 2**18)


async def test_who_is_served_quickly_has_his_turn_between_those_who_take_long():
    answered = []

    def slow(stream):
        work(2)
        answered.append("slow")

    def quick(stream):
        answered.append("quick")

    async with (
        served({"slow": slow, "quick": quick}) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
        AsyncExitStack() as strangers,
    ):
        await remote.quick()
        for _ in range(6):
            stranger = await strangers.enter_async_context(stranger_at(server))
            stranger.say(frame({"op": "slow", "reply": False}) * 40)
        # When all of them are known to take long.
        await until(lambda: answered.count("slow") >= 30)
        answered.clear()
        while answered.count("slow") < 100:
            await remote.quick()
    # In each turn there is one, and not many of each of the six.
    assert answered.count("quick") > 10


async def test_a_compressed_message_stays_so_until_its_turn_comes(monkeypatch):
    decompressed = []

    def decompress(data, limit):
        decompressed.append(data)
        return bytes(data)

    go_on = asyncio.Event()
    begun = asyncio.Event()

    async def busy(stream):
        begun.set()
        await go_on.wait()

    monkeypatch.setitem(compressions, "counted", Compression(bytes, decompress))
    async with served({"busy": busy}) as server, stranger_at(server) as stranger:
        message = {"op": "add", "x": 1, "y": 2}
        stranger.say(frame({"op": "busy"}), frame(message), frame(message, compression="counted"))
        await begun.wait()
        assert not decompressed
        go_on.set()
        assert [await stranger.hears() for _ in range(3)] == [None, 3, 3]
        assert decompressed


async def stands_still(figure) -> None:
    """Wait until a figure that is above zero hasn't moved for 50 looks."""
    last, looks = figure(), 0
    while looks < 50:
        await asyncio.sleep(0.004)
        now = figure()
        looks = looks + 1 if now == last and now else 0
        last = now
