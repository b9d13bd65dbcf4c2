"""Messages leave in the order of the calls, whenever the loop gets round to what."""

import asyncio

import pytest

from fastcore import BadMessage, ConnectionLost, connect, read, write
from fastcore.transport.tornado import channel_of
from helpers.wire import frame, raw_frame, served


async def test_what_waits_for_the_end_of_its_turn_is_not_overtaken_after_a_receive():
    async with served({"ping": lambda stream: "pong"}) as server:
        stream = await connect("127.0.0.1", server.port)
        channel = channel_of(stream)
        for number in range(10):
            # The first leaves at once, the second waits for the end of the turn ...
            write(stream, {"op": "add", "x": number, "y": 0})
            write(stream, {"op": "add", "x": number, "y": 100})
            # ... and a loop may receive before that.
            channel.receive()
            write(stream, {"op": "add", "x": number, "y": 200})
            answers = [await read(stream) for _ in range(3)]
            assert answers == [number, number + 100, number + 200]
        stream.close()


async def test_ten_thousand_questions_get_their_answers_in_order():
    async def later(stream, number):
        await asyncio.sleep(0)
        return number

    async with served({"later": later}, max_waiting=10_000) as server:
        stream = await connect("127.0.0.1", server.port)
        for number in range(10_000):
            if number % 100:
                write(stream, {"op": "add", "x": number, "y": 0})
            else:
                write(stream, {"op": "later", "number": number})
        assert [await read(stream) for _ in range(10_000)] == [*range(10_000)]
        stream.close()


async def test_messages_and_errors_that_arrive_together_come_one_by_one_in_their_order():
    no_message = raw_frame(b"\xc1")

    async def talk(_, writer):
        writer.write(b"".join([frame(1), frame(2), no_message, no_message, frame(3), frame(4), no_message]))
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        stream = await connect(*server.sockets[0].getsockname())
        for expected in (1, 2, BadMessage, BadMessage, 3, 4, BadMessage, ConnectionLost):
            if isinstance(expected, int):
                assert await read(stream) == expected
            else:
                with pytest.raises(expected):
                    await read(stream)


async def test_messages_that_arrived_together_go_to_whom_reads_when_their_turn_comes():
    async def two(stream):
        return [await read(stream), await read(stream)]

    async with served({"two": two}) as server:
        stream = await connect("127.0.0.1", server.port)
        question = {"op": "add", "x": 1, "y": 2}
        for message in (question, {"op": "two"}, "one", "two", question):
            write(stream, message)
        assert [await read(stream) for _ in range(3)] == [3, ["one", "two"], 3]
        stream.close()


async def test_writes_that_somebody_keeps_are_futures_of_their_own():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        for _ in range(3):
            await write(stream, {"op": "add", "x": 1, "y": 2})
        kept = [write(stream, {"op": "add", "x": 1, "y": 2}) for _ in range(3)]
        assert len({id(future) for future in kept}) == 3
        finished, _ = await asyncio.wait(kept)
        assert len(finished) == 3
        assert [await read(stream) for _ in range(6)] == [3] * 6
        stream.close()
