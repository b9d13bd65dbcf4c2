"""``rpc``: any name is a remote call, and every stream comes back or is closed."""

import asyncio
import functools
import gc
import struct
from contextlib import asynccontextmanager, suppress

import msgpack
import pytest

import fastcore
from fastcore import BadMessage, ConnectionLost, FrameTooLarge, RPCClosed, Server, connect, rpc, write
from fastcore.transport.tornado import channel_of
from helpers.classic_server import classic_server
from helpers.support import until
from helpers.surface import serving
from helpers.wire import SENTINEL, frame, raw_frame


@pytest.mark.parametrize(
    "address",
    [
        {"arg": "127.0.0.1:8887"},
        {"arg": b"127.0.0.1:8887"},
        {"arg": ("127.0.0.1", 8887)},
        {"arg": (b"127.0.0.1", 8887)},
        {"ip": "127.0.0.1", "port": 8887},
        {"ip": b"127.0.0.1", "port": 8887},
        {"addr": "127.0.0.1:8887"},
        {"addr": b"127.0.0.1:8887"},
    ],
)
def test_an_address_comes_in_any_form(address):
    remote = rpc(**address)
    assert (remote.ip, remote.port, remote.address) == ("127.0.0.1", 8887, "127.0.0.1:8887")


def test_an_ipv6_address_stands_in_brackets():
    remote = rpc("[::1]:8887")
    assert (remote.ip, remote.port, remote.address) == ("::1", 8887, "[::1]:8887")


def test_it_is_a_class():
    assert isinstance(fastcore.rpc, type)


def test_a_stream_alone_is_an_address_too():
    async def main():
        with serving() as server:
            stream = await connect("127.0.0.1", server.port)
            remote = rpc(stream=stream)
            assert remote.port == server.port
            assert await remote.ping() == b"pong"
            assert list(remote.streams) == [stream]
            remote.close_rpc()

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["close", "add", "get", "call", "connect", "active", "open", "cancel", "send"]
)
async def test_any_name_is_a_remote_call(name):
    with serving(Server({name: lambda stream, x: x})) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            if name == "close":
                assert await remote.close(close=True) == "OK"
            else:
                assert await getattr(remote, name)(x=1) == 1


def test_a_name_with_an_underscore_is_never_one():
    remote = rpc("127.0.0.1:8887")
    for name in ("_private", "__len__", "__wrapped__"):
        with pytest.raises(AttributeError):
            getattr(remote, name)


async def test_streams_tells_which_are_free():
    with serving() as server:
        remote = rpc(ip="127.0.0.1", port=server.port)
        assert remote.streams == {}
        await remote.ping()
        assert list(remote.streams.values()) == [True]
        call = remote.later()
        assert list(remote.streams.values()) == [False]
        await call
        assert list(remote.streams.values()) == [True]
        remote.close_rpc()


async def test_overlapping_calls_take_a_stream_each_where_they_do_not_share_and_leave_it_for_reuse():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=0) as remote:
            await asyncio.gather(*[remote.later() for _ in range(5)])
            streams = set(remote.streams)
            assert len(streams) == 5
            for _ in range(20):
                await remote.ping()
            assert set(remote.streams) == streams


async def test_a_stream_comes_back_after_an_error_of_the_handler():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            await remote.ping()
            before = set(remote.streams)
            with pytest.raises(ZeroDivisionError):
                await remote.divide(x=1, y=0)
            assert set(remote.streams) == before
            assert all(remote.streams.values())


async def test_a_call_given_up_half_way_closes_its_stream_to_a_classic_server():
    async with (
        classic_server(later=asyncio.sleep, echo=lambda x: x) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await remote.echo(x=1) == 1
        [stream] = remote.streams
        call = remote.later(delay=30)
        call.cancel()
        assert stream.closed()
        assert await remote.echo(x="mine") == "mine"
        assert stream not in remote.streams


async def test_a_call_given_up_half_way_leaves_its_stream_to_the_others_where_calls_have_numbers():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            await remote.ping()
            [stream] = remote.streams
            call = remote.later(seconds=30)
            call.cancel()
            assert await remote.echo(x="mine") == "mine"
            assert remote.streams == {stream: True}
            await until(lambda: server.stats()["running"] == 0)


async def test_a_call_lives_on_when_its_rpc_is_dropped():
    with serving() as server:
        calls = [rpc(ip="127.0.0.1", port=server.port).later(x=n, close=True) for n in range(3)]
        gc.collect()
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert await rpc(ip="127.0.0.1", port=server.port).ping() == b"pong"


async def test_calls_after_close_rpc_raise_rpc_closed():
    with serving() as server:
        remote = rpc(ip="127.0.0.1", port=server.port)
        await remote.ping()
        [stream] = remote.streams
        assert remote.status == "running"
        remote.close_rpc()
        assert remote.status == "closed"
        assert stream.closed()
        with pytest.raises(RPCClosed) as raised:
            await remote.ping()
        assert isinstance(raised.value, IOError)


async def test_close_streams_leaves_it_usable():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            await remote.ping()
            [stream] = remote.streams
            remote.close_streams()
            assert stream.closed()
            assert not remote.streams
            assert await remote.ping() == b"pong"


async def test_after_the_remote_close_a_call_has_a_new_connection():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            for _ in range(10):
                assert await remote.close() == "OK"
                assert not remote.streams
                assert await remote.ping() == b"pong"


async def test_a_timeout_of_the_call_itself():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(TimeoutError, match="later"):
                await remote.later(seconds=30, timeout=0.05)
            assert await remote.ping() == b"pong"


def test_its_repr_tells_where_it_leads_and_how_it_is():
    remote = rpc("127.0.0.1:8887")
    assert "127.0.0.1:8887" in repr(remote)
    assert "running" in repr(remote)


async def test_errors_of_a_unix_socket_name_it_too(tmp_path):
    path = tmp_path / "server.sock"

    async def hang_up(stream):
        await asyncio.sleep(0)
        stream.close()

    server = Server({"hang_up": hang_up})
    server.listen(f"unix:{path}")
    async with server, rpc(f"unix:{path}") as remote:
        with pytest.raises(ConnectionLost, match=f"unix:{path}.*'hang_up'"):
            await remote.hang_up()


@pytest.mark.parametrize("is_over", [False, True], ids=["under way", "over"])
async def test_iterating_over_one_answer_is_refused_whenever_it_comes(is_over):
    handlers = {"one": lambda stream: 5, "list": lambda stream: [1, 2], "none": lambda stream: None}
    with serving(Server(handlers)) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:

            async def answers(call):
                if is_over:
                    await asyncio.wait([call])
                return [answer async for answer in call]

            assert await answers(remote.list()) == [1, 2]
            assert await answers(remote.none()) == []
            with pytest.raises(TypeError, match="one answer"):
                await answers(remote.one())


@pytest.mark.parametrize("together", [True, False])
async def test_what_a_classic_server_says_unasked_is_nobodys_answer(together):
    asked = talking = 0

    async def talk(reader, writer):
        nonlocal asked, talking
        talking += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(SENTINEL):
                asked += 1
                if together:
                    writer.write(frame(asked) + frame("unasked"))
                else:
                    writer.write(frame(asked))
                    await writer.drain()
                    writer.write(frame("unasked"))
        writer.close()
        talking -= 1

    def has_come(stream):
        return stream.closed() or channel_of(stream).unread

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        ip, port = server.sockets[0].getsockname()
        streams = set()
        async with rpc(ip=ip, port=port) as remote:
            for number in range(1, 4):
                assert await remote.ask() == number
                [stream] = remote.streams
                streams.add(stream)
                # Until it is there, nobody can know.
                await until(functools.partial(has_come, stream))
        assert len(streams) == 3
        await until(lambda: not talking)


async def test_what_a_handler_writes_beside_its_answer_is_dropped_and_logged_with_advice(caplog):
    async def aside(stream):
        await write(stream, "an aside")
        return "the answer"

    with serving(Server({"aside": aside})) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert [await remote.aside() for _ in range(3)] == ["the answer"] * 3
    lines = [line for line in caplog.messages if "'an aside'" in line]
    assert lines
    assert f"127.0.0.1:{server.port}" in lines[0]
    assert "connect, write and read" in lines[0]


async def test_a_request_that_cannot_be_packed_leaves_its_connection_to_the_next():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port, limit=1, share=0, timeout=5) as remote:
            for reply in (True, False):
                for _ in range(3):
                    with pytest.raises(TypeError):
                        await remote.echo(x=object(), reply=reply)
                assert await remote.echo(x=1) == 1
            assert list(remote.streams.values()) == [True]


async def test_a_call_that_wants_no_answer_is_done_when_the_server_has_taken_it():
    may_read, over = asyncio.Event(), asyncio.Event()

    async def keep(reader, writer):
        await may_read.wait()
        while await reader.read(2**20):
            pass
        writer.close()
        over.set()

    async with await asyncio.start_server(keep, "127.0.0.1", 0) as server:
        ip, port = server.sockets[0].getsockname()
        async with rpc(ip=ip, port=port) as remote:
            # More than two kernels hold.
            call = remote.keep(data=bytes(30_000_000), reply=False)
            await until(lambda: any(channel_of(stream).is_full for stream in remote.streams))
            assert not call.done()
            may_read.set()
            assert await call is None
        await over.wait()


@asynccontextmanager
async def answering(answer):
    """The address of a server made by hand: what it answers depends on the op and the call's number."""
    talking = 0

    async def talk(reader, writer):
        nonlocal talking
        talking += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while request := await reader.readuntil(SENTINEL):
                (size,) = struct.unpack("<I", request[:4])
                header = msgpack.unpackb(request[4 : 4 + size])
                message = msgpack.unpackb(request[4 + size : -len(SENTINEL)])
                writer.write(answer(message["op"], header["call"]))
        writer.close()
        talking -= 1

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        ip, port = server.sockets[0].getsockname()
        yield f"{ip}:{port}"
        await until(lambda: not talking)


async def test_a_server_that_has_numbered_its_answers_gives_none_without_a_number():
    def answer(op, number):
        return frame(op, call=number) if op == "first" else frame("whose is this?")

    async with answering(answer) as address, rpc(address, share=1) as remote:
        assert await remote.first() == "first"
        with pytest.raises(ConnectionLost, match="a message that answers no call"):
            await remote.second()
        assert await remote.first() == "first"


async def test_an_answer_that_cannot_be_read_ends_its_call_and_no_other():
    held = []

    def answer(op, number):
        if op == "hold":
            held.append(number)
            return b""
        if op == "garble":
            return raw_frame(b"\xc1", msgpack.packb({"call": number}))
        released = b"".join(frame("released", call=number) for number in held)
        held.clear()
        return frame(op, call=number) + released

    async with answering(answer) as address, rpc(address, share=1) as remote:
        assert await remote.first() == "first"
        [stream] = remote.streams
        waiting = remote.hold()
        with pytest.raises(BadMessage):
            await remote.garble()
        assert not waiting.done()
        assert await remote.second() == "second"
        assert await waiting == "released"
        assert remote.streams == {stream: True}


async def test_an_answer_of_a_classic_server_that_cannot_be_read_ends_the_one_call():
    def answer(op, number):
        return raw_frame(b"\xc1") if op == "garble" else frame(op)

    async with answering(answer) as address, rpc(address) as remote:
        for _ in range(2):
            with pytest.raises(BadMessage):
                await remote.garble()
            assert await remote.first() == "first"
        assert list(remote.streams.values()) == [True]


async def test_an_answer_that_is_too_large_ends_all_calls_of_its_connection():
    def answer(op, number):
        return {"large": frame(bytes(100_000), call=number), "hold": b""}.get(op, frame(op, call=number))

    async with answering(answer) as address, rpc(address, share=1, max_buffer_size=1000) as remote:
        assert await remote.first() == "first"
        [stream] = remote.streams
        waiting = remote.hold()
        for call in (remote.large(), waiting):
            with pytest.raises(FrameTooLarge):
                await call
        assert stream.closed()
        assert await remote.first() == "first"
