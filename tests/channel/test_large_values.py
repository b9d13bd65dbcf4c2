"""Large binary values over sockets: sent from the caller's memory, which it may change at once."""

import asyncio
import io
import socket
from types import SimpleNamespace

from tornado.iostream import IOStream

from fastcore import connect, read, rpc, write
from fastcore._socket import Socket
from fastcore._values import LARGE
from fastcore._wire import IN_PLACE
from helpers.toy_transport import toy_pair
from helpers.wire import served


def unconnected_stream(server):
    """A stream whose connection is still being made."""
    stream = IOStream(socket.socket())
    stream.connect(("127.0.0.1", server.port))
    return stream


async def test_a_value_may_change_as_soon_as_its_writer_goes_on():
    async with served({"echo": lambda stream, data: data}) as server:
        stream = unconnected_stream(server)
        for fill in range(5):
            data = bytearray([fill]) * IN_PLACE
            await write(stream, {"op": "echo", "data": data})
            data[:] = b"\xff" * len(data)
            assert await read(stream) == bytes([fill]) * IN_PLACE
        stream.close()


async def test_values_of_one_turn_arrive_as_they_were_written():
    async with served({"echo": lambda stream, data: data}) as server:
        stream = await connect("127.0.0.1", server.port)
        data = bytearray(IN_PLACE)
        for fill in range(20):
            data[:] = bytes([fill]) * len(data)
            future = write(stream, {"op": "echo", "data": data})
            if not future.done():
                await future
        assert [(await read(stream))[-1] for _ in range(20)] == [*range(20)]
        stream.close()


async def test_a_message_of_a_thousand_values_arrives_whole():
    values = [bytes([number % 256]) * IN_PLACE for number in range(1_100)]
    handlers = {"count": lambda stream, values: len(values)}
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        assert await remote.count(values=values) == 1_100


async def turns_to_receive(values):
    """Receive a message that is all there; give how many bytes each turn of the loop received of it."""
    one, another = toy_pair(pieces=2**24, writable_values=True)
    another.channel.write(values)
    sent = io.BytesIO(b"".join(one.incoming.get_nowait() for _ in another.sends))
    await asyncio.sleep(0)  # and nobody else looks for it
    channel = one.channel
    channel.opened(Socket(SimpleNamespace(recv_into=sent.readinto, send=one.send)))
    message = channel.read()
    turns = []

    def receive():
        before = sent.tell()
        channel.receive()
        turns.append(sent.tell() - before)
        if not message.done():
            channel.loop.call_soon(receive)

    channel.loop.call_soon(receive)
    assert await message == values
    # A reader may go on in the middle of that turn.
    await asyncio.sleep(0)
    return [size for size in turns if size]


async def test_the_values_of_a_message_take_no_turn_each():
    assert len(await turns_to_receive([bytes([number]) * LARGE for number in range(3)])) == 1


async def test_a_very_large_message_leaves_the_others_their_turns():
    turns = await turns_to_receive([bytes(LARGE)] * 40)
    assert max(turns) < 2**21
