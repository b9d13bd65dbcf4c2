"""What may be done from a thread that isn't the loop's: closing."""

import asyncio
import threading

import pytest

from fastcore import ConnectionLost, connect, read, write
from helpers.support import in_a_thread
from helpers.wire import served


async def never(stream):
    await asyncio.sleep(3600)


async def read_on(stream):
    while True:
        await read(stream)


async def test_a_stream_closed_elsewhere_is_closed_at_once_and_its_reader_told():
    async with served({"never": never}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "never"})
        reading = read(stream)
        assert await in_a_thread(lambda: stream.close() or stream.closed())
        with pytest.raises(ConnectionLost):
            await reading


async def test_messages_written_before_are_sent():
    arrived = asyncio.Event()
    async with served({"arrive": lambda stream: arrived.set()}) as server:
        stream = await connect("127.0.0.1", server.port)
        for _ in range(10):
            write(stream, {"op": "identity", "reply": False})
        write(stream, {"op": "arrive", "reply": False})
        await in_a_thread(stream.close)
        await arrived.wait()


async def test_streams_closed_elsewhere_while_messages_fly_break_nothing():
    async with served() as server:
        for _ in range(50):
            stream = await connect("127.0.0.1", server.port)
            closer = threading.Thread(target=stream.close)
            writes = [write(stream, {"op": "add", "x": number, "y": 1}) for number in range(100)]
            closer.start()
            writes += [write(stream, {"op": "add", "x": number, "y": 1}) for number in range(100)]
            await asyncio.wait(writes)
            with pytest.raises(ConnectionLost):
                await read_on(stream)
            closer.join(30)
