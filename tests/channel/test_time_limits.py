"""When a message takes too long, and what is not taken for one."""

import asyncio

import pytest

from fastcore import ConnectionLost, connect, read, write
from fastcore.transport.tornado import channel_of
from helpers.wire import frame, served, stranger_at

MIB = 2**20


async def test_half_a_message_that_came_before_anybody_asked_is_given_up_after_a_time():
    async def talk(reader, writer):
        writer.write(frame("half")[:-1])
        await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        stream = await connect(*server.sockets[0].getsockname(), message_timeout=0.2)
        while not channel_of(stream).unread:
            await asyncio.sleep(0.001)
        with pytest.raises(ConnectionLost, match="message_timeout"):
            await asyncio.wait_for(read(stream), 5)


async def test_many_messages_in_a_row_are_not_one_that_takes_long():
    async with served(message_timeout=0.2) as server, stranger_at(server) as stranger:
        one = frame({"op": "add", "x": 1, "y": 2})
        for _ in range(40):
            # Each turn ends in the middle of a message.
            stranger.say(one[20:], one[:20]) if _ else stranger.say(one[:20])
            if _:
                assert await stranger.hears() == 3
            await asyncio.sleep(0.015)


async def test_nobody_looks_at_the_time_when_a_message_is_finished():
    channels = []
    async with (
        served({"hello": lambda stream: channels.append(channel_of(stream))}) as server,
        stranger_at(server) as stranger,
    ):
        message = frame({"op": "hello"})
        stranger.say(message)
        assert await stranger.hears() is None
        assert not channels[0].is_watched()
        stranger.say(message[:20])
        while not channels[0].is_watched():
            await asyncio.sleep(0.001)
        stranger.say(message[20:])
        assert await stranger.hears() is None
        assert not channels[0].is_watched()


async def test_silence_between_messages_is_no_message_that_takes_long():
    async with served(message_timeout=0.05) as server, stranger_at(server) as stranger:
        assert await stranger.is_served()
        await asyncio.sleep(0.3)
        assert await stranger.is_served()


async def test_messages_that_wait_for_a_handler_are_not_taken_for_slow_ones():
    go_on = asyncio.Event()

    async def busy(stream):
        await go_on.wait()

    async with served({"busy": busy}, message_timeout=0.05) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "busy"}), frame({"op": "add", "x": 1, "y": 2}))
        await asyncio.sleep(0.3)
        go_on.set()
        assert await stranger.hears() is None
        assert await stranger.hears() == 3


async def test_nobody_looks_at_the_time_when_the_client_has_caught_up():
    channels = []

    def big(stream):
        channels.append(channel_of(stream))
        return b"x" * 20 * MIB

    async with served({"big": big}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "big"})
        while not (channels and channels[0].is_full):
            await asyncio.sleep(0.001)
        assert channels[0].is_watched()
        await read(stream)
        # Whether all of it has been acknowledged shows when there is something else to do.
        await write(stream, {"op": "identity"})
        await read(stream)
        assert not channels[0].is_watched()
        stream.close()
