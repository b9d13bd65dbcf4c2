"""Handlers of every kind, and what a request may ask for besides."""

import pytest
from tornado.iostream import StreamClosedError

from fastcore import Server, connect, read, rpc, send_recv, write
from helpers.surface import serving


@pytest.mark.parametrize("handler", ["echo", "future", "tornado_later", "later"])
async def test_a_handler_returns_a_value_a_future_or_either_kind_of_coroutine(handler):
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await getattr(remote, handler)(x=[1, {"a": b"b"}]) == [1, {"a": b"b"}]


async def test_a_handler_gets_the_keywords_without_op_close_and_reply():
    seen = []

    def handler(stream, **kwargs):
        seen.append(kwargs)

    with serving(Server({"handler": handler})) as server:
        stream = await connect("127.0.0.1", server.port)
        await send_recv(stream, op="handler", x=1, close=True)
    assert seen == [{"x": 1}]


async def test_a_handler_reads_and_writes_the_stream_itself():
    async def sum_up(stream, n):
        return sum([await read(stream) for _ in range(n)])

    with serving(Server({"sum": sum_up})) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "sum", "n": 3})
        for n in (1, 2, 3):
            await write(stream, n)
        assert await read(stream) == 6
        stream.close()


async def test_a_handler_closes_the_stream_itself():
    server = Server({"hang_up": lambda stream: stream.close()})
    with serving(server), pytest.raises(StreamClosedError):
        await send_recv(ip="127.0.0.1", port=server.port, op="hang_up")


async def test_op_close_answers_ok_and_closes():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "close"})
        assert await read(stream) == "OK"
        with pytest.raises(StreamClosedError):
            await read(stream)


async def test_close_true_closes_after_the_reply():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "ping", "close": True})
        assert await read(stream) == b"pong"
        with pytest.raises(StreamClosedError):
            await read(stream)


async def test_reply_false_sends_none():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "echo", "x": 1, "reply": False})
        await write(stream, {"op": "echo", "x": 2})
        assert await read(stream) == 2
        stream.close()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"op": "divide", "x": 1, "y": 0}, "ZeroDivisionError"),
        ({"op": "no such"}, "no such"),
        ({"op": "add", "z": 1}, "unexpected keyword"),
        ({"x": 1}, "op"),
        ([1, 2], "dict"),
        (b"bytes", "dict"),
        ({"op": "unserializable"}, "TypeError"),
    ],
)
async def test_what_goes_wrong_gets_an_error_reply_and_the_connection_goes_on(message, told):
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, message)
        reply = await read(stream)
        assert reply["status"] == "uncaught-error"
        assert told in str(reply["exception"])
        assert await send_recv(stream, op="ping") == b"pong"
        stream.close()
