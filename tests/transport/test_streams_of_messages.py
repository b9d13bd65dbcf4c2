"""`async for message in messages(stream)`."""

import asyncio
import socket
import struct
import sys

import pytest

from fastcore import BadMessage, ConnectionLost, connect, messages, read, write
from helpers.wire import frame, served


async def count(stream, to):
    for number in range(to):
        await write(stream, number)
    stream.close()


async def collect(stream):
    return [message async for message in messages(stream)]


async def test_it_gives_each_message_and_ends_with_the_connection():
    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 1000})
        assert await collect(stream) == list(range(1000))


async def test_it_may_be_left_and_gone_on_with():
    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 10})
        async for message in messages(stream):
            if message == 4:
                break
        assert await read(stream) == 5
        assert await collect(stream) == [6, 7, 8, 9]


async def test_half_a_message_is_no_ordinary_end():
    async def hang_up(stream):
        stream.socket.send(frame("whole") + frame("half")[:10])
        stream.close()

    async with served({"hang_up": hang_up}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "hang_up"})
        assert await read(stream) == "whole"
        with pytest.raises(ConnectionLost, match="in the middle of a message"):
            await collect(stream)


async def test_a_broken_connection_is_no_ordinary_end():
    def reset(stream):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()

    async with served({"reset": reset}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "reset"})
        with pytest.raises(ConnectionLost, match="reset"):
            await collect(stream)


async def test_what_is_no_message_ends_the_loop_and_not_the_stream():
    def mumble(stream):
        stream.socket.send(b"\0\0\0\0\xc1" + frame(None)[-32:] + frame("next"))

    async with served({"mumble": mumble}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "mumble", "reply": False})
        with pytest.raises(BadMessage):
            await collect(stream)
        assert await read(stream) == "next"
        stream.close()


async def echoed(server, *values):
    """A stream from which these can be read."""
    stream = await connect("127.0.0.1", server.port)
    for value in values:
        await write(stream, {"op": "echo", "data": value})
    return stream


def echo(stream, data):
    return data


async def test_one_given_up_loses_nothing():
    async with served({"echo": echo}) as server:
        stream = await echoed(server)
        iterator = messages(stream)
        for number in range(100):
            waiting = asyncio.ensure_future(anext(iterator))
            await asyncio.sleep(0)
            write(stream, {"op": "echo", "data": number})
            for _ in range(number % 7):
                await asyncio.sleep(0)
            if waiting.done() or not waiting.cancel():
                assert waiting.result() == number
            else:
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert await anext(iterator) == number
        stream.close()


async def test_one_may_have_a_time_limit():
    async with served({"echo": echo}) as server:
        stream = await echoed(server)
        iterator = messages(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(iterator), 0.01)
        write(stream, {"op": "echo", "data": 1})
        assert await asyncio.wait_for(anext(iterator), 5) == 1
        stream.close()


async def test_one_whose_coroutine_was_closed_is_read_by_the_next():
    async with served({"echo": echo}) as server:
        stream = await echoed(server)
        iterator = messages(stream)

        async def first():
            return await anext(iterator)

        coroutine = first()
        coroutine.send(None)
        coroutine.close()
        write(stream, {"op": "echo", "data": 1})
        assert await anext(iterator) == 1
        stream.close()


async def test_two_at_once_are_refused():
    async with served({"echo": echo}) as server:
        stream = await echoed(server)
        iterator = messages(stream)
        waiting = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        for other in (anext(iterator), read(stream), anext(messages(stream))):
            with pytest.raises(RuntimeError, match="two readers at once"):
                await other
        write(stream, {"op": "echo", "data": 1})
        assert await waiting == 1
        stream.close()


async def test_after_its_end_it_stays_at_its_end():
    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 2})
        iterator = messages(stream)
        assert [message async for message in iterator] == [0, 1]
        assert [message async for message in iterator] == []
        assert await anext(iterator, "over") == "over"


async def test_closed_it_gives_no_more_and_the_stream_does():
    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 2})
        iterator = messages(stream)
        assert await anext(iterator) == 0
        await iterator.aclose()
        assert await anext(iterator, "over") == "over"
        assert await read(stream) == 1


@pytest.mark.parametrize("value", [None, [], [1], {"a": 1}], ids=repr)
async def test_whatever_a_message_is_it_is_given(value):
    async with served({"echo": echo}) as server:
        stream = await echoed(server, value, value)
        iterator = messages(stream)
        # The second one is here already by then.
        assert await anext(iterator, "over") == value
        assert await anext(iterator, "over") == value
        stream.close()


async def test_under_a_profiler_it_gives_the_same():
    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 1000})
        # The interpreter resumes what is awaited in another way then.
        sys.setprofile(lambda *event: None)
        try:
            assert await collect(stream) == list(range(1000))
        finally:
            sys.setprofile(None)


async def test_a_tight_loop_lets_others_have_their_turn():
    turns = 0

    async def take_turns():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with served({"count": count}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "to": 20_000})
        other = asyncio.ensure_future(take_turns())
        assert await collect(stream) == list(range(20_000))
        other.cancel()
    assert turns > 20_000 / 512


async def test_what_is_here_already_is_given_without_waiting():
    def say(stream):
        stream.socket.send(frame(1) + frame(2) + frame(3))

    async with served({"say": say}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "say", "reply": False})
        iterator = messages(stream)
        assert await anext(iterator) == 1
        for number in (2, 3):
            with pytest.raises(StopIteration) as given:
                next(anext(iterator).__await__())
            assert given.value.value == number
        stream.close()


async def test_a_stranger_is_refused_at_once():
    with pytest.raises(TypeError, match="messages go over a tornado"):
        messages("a stream")


async def test_it_ends_with_a_connection_that_ends_while_it_waits():
    """A task throws the error of a Future that it waited for, so that it comes another way."""
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        said = messages(stream)
        waiting = asyncio.ensure_future(anext(said, "the end"))
        await asyncio.sleep(0)
        await server.shutdown(deadline=0)
        assert await waiting == "the end"
