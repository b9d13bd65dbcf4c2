"""Messages leave in the order of the calls, whenever the loop gets round to what."""

import asyncio

from wire import served

from fastcore import connect, read, write
from fastcore.channel import channel_of


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
