"""What a message costs, counted and not timed: system calls, Futures, turns of the loop, copies."""

import asyncio
import gc
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

import fastcore
from fastcore import connect, read, rpc, write
from fastcore._socket import Socket
from fastcore.transport.tornado import channel_of
from helpers.wire import served

CALLS = 50
OURS = str(Path(fastcore.__file__).parent)


class Counted:
    """Counts the calls of a channel's socket functions."""

    def __init__(self, channel):
        self.calls = Counter()
        self.source = channel.socket.source
        channel.opened(Socket(self, gathers=True))

    def __getattr__(self, name):
        return self.counting(name, getattr(self.source, name))

    def counting(self, name, function):
        def counted(*arguments):
            self.calls[name] += 1
            return function(*arguments)

        return counted

    def total(self):
        return sum(self.calls.values())


async def echoing():
    """Handlers, and a place where the server's channel is found."""
    channels = []

    def echo(stream, data):
        channels.append(channel_of(stream))
        return data

    return {"echo": echo}, channels


async def test_a_call_takes_two_system_calls_at_each_end():
    handlers, channels = await echoing()
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.echo(data=1)
        ours, theirs = Counted(channel_of(next(iter(remote.streams)))), Counted(channels[0])
        for number in range(CALLS):
            assert await remote.echo(data=number) == number
    assert ours.total() == theirs.total() == 2 * CALLS


class Frames:
    """Counts the calls of Python functions of fastcore's, by name."""

    def __enter__(self):
        self.calls = Counter()
        sys.setprofile(self.count)
        return self.calls

    def __exit__(self, *exc_info):
        sys.setprofile(None)

    def count(self, frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.calls[frame.f_code.co_qualname] += 1


async def test_a_call_takes_seven_functions_of_ours_in_both_ends():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for _ in range(2):
            # The first one makes the connection, and learns whether the server numbers its answers.
            await remote.add(x=1, y=2)
        with Frames() as frames:
            for number in range(CALLS):
                await remote.add(x=1, y=number)
    assert frames.total() <= 7 * CALLS, frames


@pytest.mark.parametrize("calls", [50, 1000])
async def test_calls_that_wait_for_connections_cost_each_the_same_however_many_they_are(calls):
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        with Frames() as frames:
            await asyncio.gather(*(remote.add(x=1, y=number) for number in range(calls)))
    # Beside what is done once.
    assert frames.total() <= 60 * calls + 1000, frames


async def test_calls_that_share_a_connection_take_nine_functions_each_at_most():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port, share=1) as remote:
        await remote.add(x=1, y=2)
        with Frames() as frames:
            await asyncio.gather(*(remote.add(x=1, y=number) for number in range(CALLS)))
    assert frames.total() <= 9 * CALLS, frames


async def test_answers_that_come_together_take_one_turn_of_the_loop(monkeypatch):
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip("uvloop lets nobody count")
    if loop.get_debug():
        pytest.skip("so slow that a turn's share of the time is used up earlier")
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.add(x=1, y=2)

        async def calls():
            for number in range(20):
                assert await remote.add(x=1, y=number) == 1 + number

        call_soon = loop.call_soon

        def counted(callback, *arguments, **options):
            callbacks[getattr(callback, "__qualname__", repr(callback))] += 1
            return call_soon(callback, *arguments, **options)

        # When the machine does something else meanwhile, a turn's share of the time is used up earlier.
        rounds = []
        for _ in range(5):
            callbacks = Counter()
            rounds.append(callbacks)
            monkeypatch.setattr(loop, "call_soon", counted)
            await asyncio.gather(*(calls() for _ in range(CALLS)))
            monkeypatch.undo()
    # Beside the first step and the end of each task.
    assert min(map(Counter.total, rounds)) < 6 * CALLS, rounds


def count_futures():
    return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())


async def test_a_call_makes_one_future_and_its_server_none():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.add(x=1, y=2)
        gc.collect()
        gc.disable()
        try:
            before = count_futures()
            kept = []
            for number in range(CALLS):
                kept.append(remote.add(x=1, y=number))
                await kept[-1]
            # The Futures of the calls are kept; any other that lived on would be one too many.
            assert count_futures() - before <= len(kept) == CALLS
        finally:
            gc.enable()


async def test_small_messages_of_one_turn_leave_together():
    handlers, _ = await echoing()
    async with served(handlers) as server:
        stream = await connect("127.0.0.1", server.port)
        counted = Counted(channel_of(stream))
        for number in range(200):
            write(stream, {"op": "echo", "data": number})
        assert [await read(stream) for _ in range(200)] == list(range(200))
        assert counted.calls["send"] + counted.calls["sendmsg"] <= 3
        stream.close()


async def test_a_lone_message_leaves_at_once():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        counted = Counted(channel_of(stream))
        write(stream, {"op": "add", "x": 1, "y": 2})
        assert counted.calls["send"] == 1
        assert await read(stream) == 3
        stream.close()


async def test_a_large_value_is_copied_neither_in_nor_out():
    size = 32 * 2**20
    data = bytes(size)
    handlers, _ = await echoing()
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.echo(data=b"")
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            answer = await remote.echo(data=data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer == data
    # The value that the handler gets, and the answer; both ends are in this process.
    assert peak - before < 2.1 * size


async def test_a_tight_loop_of_reads_lets_others_have_their_turn():
    async with served({"flood": flood}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "flood", "count": 20_000})
        turns = asyncio.get_running_loop().create_task(count_turns())
        for number in range(20_000):
            assert await read(stream) == number
        turns.cancel()
        stream.close()
        assert count_turns.seen > 20_000 / 512


async def test_a_tight_loop_of_writes_lets_others_have_their_turn():
    async with served({"drain": drain}) as server:
        stream = await connect("127.0.0.1", server.port)
        turns = asyncio.get_running_loop().create_task(count_turns())
        await write(stream, {"op": "drain", "count": 20_000})
        for number in range(20_000):
            await write(stream, number)
        seen = count_turns.seen
        assert await read(stream) == 20_000
        turns.cancel()
        stream.close()
        assert seen > 20_000 / 512


async def flood(stream, count):
    for number in range(count):
        await write(stream, number)
    return "done"


async def drain(stream, count):
    for _ in range(count):
        await read(stream)
    return count


async def count_turns():
    count_turns.seen = 0
    while True:
        await asyncio.sleep(0)
        count_turns.seen += 1
