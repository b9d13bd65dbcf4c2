"""What an owner does while it is given a message: it comes back in, reads, listens, leaves."""

import asyncio
import socket

import pytest
from tornado.iostream import IOStream

from fastcore import ConnectionLost, read, rpc, write
from fastcore.compressions import Compression, compressions
from fastcore.transport.tornado import channel_of
from helpers.owners import Bystander
from helpers.support import until
from helpers.wire import fake_server, frame, served


class Somebody(Bystander):
    """An owner that does something with each message, and notes when that begins and ends."""

    def __init__(self, channel, does, goes_on=True):
        self.channel = channel
        self.does = does
        self.goes_on = goes_on
        self.told = []
        channel.own(self)

    def on_message(self, message, header):
        self.told.append(("begin", message))
        self.does(message)
        self.told.append(("end", message))
        return self.goes_on

    def on_error(self, error, header):
        self.told.append(error)
        return True


@pytest.fixture
def ends():
    """The two ends of a connection."""
    sockets = socket.socketpair()
    streams = []

    def make():
        streams.extend(map(IOStream, sockets))
        return streams

    yield make
    for stream in streams:
        stream.close()


async def test_who_listens_while_given_a_message_is_given_the_next_one_after_that(ends):
    one, another = ends()
    somebody = Somebody(channel_of(another), lambda _: somebody.channel.listen())
    for number in range(3):
        write(one, number)
    somebody.channel.listen()
    await until(lambda: len(somebody.told) == 6)
    assert somebody.told == [(what, number) for number in range(3) for what in ("begin", "end")]


async def test_who_listens_while_given_a_message_goes_on_whatever_it_answers(ends):
    one, another = ends()

    def does(number):
        if number < 2:
            somebody.channel.listen()

    somebody = Somebody(channel_of(another), does, goes_on=False)
    for number in range(4):
        write(one, number)
    somebody.channel.listen()
    await until(lambda: len(somebody.told) == 6)
    await asyncio.sleep(0)
    assert somebody.told[-1] == ("end", 2)
    assert not somebody.channel.is_listening


async def test_who_leaves_a_read_of_his_own_and_goes_on_is_refused(ends):
    one, another = ends()
    reads = []
    somebody = Somebody(channel_of(another), lambda _: reads.append(read(another)))
    write(one, "first")
    somebody.channel.listen()
    await until(another.closed)
    with pytest.raises(ConnectionLost) as caught:
        await reads[0]
    assert "two readers at once" in str(caught.value.real_error)


async def test_who_listens_while_a_read_waits_is_refused(ends):
    _, another = ends()
    somebody = Somebody(channel_of(another), print)
    reader = read(another)
    somebody.channel.listen()
    with pytest.raises(ConnectionLost) as caught:
        await reader
    assert "two readers at once" in str(caught.value.real_error)
    assert another.closed()


async def test_nothing_is_lent_by_nobody(ends):
    one, another = ends()
    somebody = Somebody(channel_of(another), print)
    somebody.channel.disown(somebody)
    assert not somebody.channel.is_lent
    write(one, "for who reads")
    assert await read(another) == "for who reads"


async def test_a_read_while_a_message_is_being_decoded_gets_the_next_one(ends, monkeypatch):
    one, another = ends()
    inside = []

    def decompress(data, limit):
        if not inside:
            inside.append(read(another))
            assert not inside[0].done()
        return zlib.decompress(data, limit)

    zlib = compressions["zlib"]
    monkeypatch.setitem(compressions, "zlib", Compression(zlib.compress, decompress))
    channel_of(one, compression="zlib")
    for number in range(3):
        write(one, [number] * 10_000)
    await until(lambda: channel_of(another).unread)
    assert (await read(another))[0] == 0
    assert (await inside[0])[0] == 1
    assert (await read(another))[0] == 2


async def test_a_handler_that_reads_by_hand_beside_calls_hears_that_its_client_has_gone():
    heard = []

    async def reads(stream):
        heard.append("begun")
        try:
            await read(stream)
        except ConnectionLost as error:
            heard.append(error)

    async with served({"reads": reads}, cancel_handlers=False) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            call = remote.reads()
            await until(lambda: heard)
        await until(lambda: len(heard) == 2)
        assert isinstance(heard[1], ConnectionLost)
        with pytest.raises(ConnectionLost):
            await call


async def test_a_connection_on_which_a_request_was_answered_before_it_was_sent_is_not_used_again():
    async with fake_server() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.put(data=bytes(50_000_000))
        stranger = await server.next()
        stranger.reader._transport.pause_reading()
        stranger.say(frame("too large"))
        assert await call == "too large"
        assert not remote.streams
        call = remote.put(data=1)
        stranger = await server.next()
        stranger.say(frame("stored"))
        assert await call == "stored"
        assert len(remote.streams) == 1


def test_a_call_that_is_given_up_from_another_loop_closes_its_connection():
    async def never(stream):
        await asyncio.get_running_loop().create_future()

    async def begins():
        at = await serving.__aenter__()
        remote = rpc(ip="127.0.0.1", port=at.port)
        await remote.add(x=1, y=2)
        call = remote.never()
        await until(lambda: at.stats()["running"])
        return remote, call, *remote.streams

    async def gives_up():
        assert call.cancel()

    serving = served({"never": never})
    with asyncio.Runner() as runner:
        remote, call, stream = runner.run(begins())
        asyncio.run(gives_up())
        # Its server couldn't be told otherwise, and the loop can't be asked to do it.
        assert stream.closed()
        remote.close_rpc()
        runner.run(serving.__aexit__(None, None, None))
