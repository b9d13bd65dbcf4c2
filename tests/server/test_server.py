"""``Server``: a ``TCPServer`` that is meant to be subclassed, and handlers of every kind."""

import asyncio
import socket

import pytest
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.tcpserver import TCPServer

from fastcore import (
    ConnectionPool,
    RemoteError,
    Server,
    connect,
    read,
    register_error,
    rpc,
    send_recv,
    write,
)
from helpers.surface import HANDLERS, OurError, serving


def test_it_is_a_tcp_server():
    assert issubclass(Server, TCPServer)


async def test_before_listening_it_has_no_port_and_says_what_to_do():
    with pytest.raises(OSError, match=r"\.listen"):
        Server({}).port  # noqa: B018


async def test_listen_without_a_port_takes_the_default():
    class Fixed(Server):
        default_port = 0

    server = Fixed({})
    server.listen(address="127.0.0.1")
    assert server.port > 1024
    server.stop()


# Tornado leaves the socket that it couldn't bind to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_taken_port_raises():
    with serving() as server, pytest.raises(OSError, match="in use"):
        Server({}).listen(server.port, "127.0.0.1")


async def test_it_listens_twice_and_stops_twice_and_keeps_its_first_port():
    server = Server(HANDLERS)
    server.listen(0, "127.0.0.1")
    first = server.port
    server.listen(0, "127.0.0.1")
    ports = {sock.getsockname()[1] for sock in server._sockets.values()}
    assert len(ports) == 2
    for port in ports:
        assert await send_recv(ip="127.0.0.1", port=port, op="ping", close=True) == b"pong"
    server.stop()
    server.stop()
    assert server.port == first


async def test_bind_and_start_and_add_sockets_serve_too():
    bound = Server(HANDLERS)
    bound.bind(0, "127.0.0.1")
    bound.start()
    added = Server(HANDLERS)
    added.add_sockets(bind_sockets(0, "127.0.0.1"))
    for server in (bound, added):
        assert await send_recv(ip="127.0.0.1", port=server.port, op="ping", close=True) == b"pong"
        server.stop()


async def test_a_stopped_server_leaves_open_connections_alive():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await send_recv(stream, op="ping")
    assert await send_recv(stream, op="ping") == b"pong"
    stream.close()


def test_it_can_listen_before_the_loop_runs():
    loop = IOLoop()
    server = Server(HANDLERS)
    server.listen(0, "127.0.0.1")
    try:
        call = lambda: send_recv(ip="127.0.0.1", port=server.port, op="ping", close=True)  # noqa: E731
        assert loop.run_sync(call, timeout=30) == b"pong"
    finally:
        server.stop()
        loop.close(all_fds=True)
        asyncio.set_event_loop(None)


async def test_a_subclass_sets_attributes_first_and_defines_its_own_identity_handlers_and_port():
    class Scheduler(Server):
        def __init__(self, **kwargs):
            self._port = 0
            self.status = None
            self.handlers = {"status": self.get_status}
            super().__init__(handlers=self.handlers, **kwargs)

        @property
        def port(self):
            return next(iter(self._sockets.values())).getsockname()[1]

        def get_status(self, stream):
            return self.status

        def identity(self, stream):
            return {"type": type(self).__name__, "id": self.id, "workers": []}

    with serving(Scheduler()) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.identity() == {"type": "Scheduler", "id": server.id, "workers": []}
            assert await send_recv(ip="127.0.0.1", port=server.port, op="status", close=True) is None


async def test_a_subclass_overrides_handle_stream():
    class Counting(Server):
        connections = 0

        async def handle_stream(self, stream, address):
            self.connections += 1
            await super().handle_stream(stream, address)

    with serving(Counting(HANDLERS)) as server:
        assert await send_recv(ip="127.0.0.1", port=server.port, op="ping", close=True) == b"pong"
        assert server.connections == 1


async def test_identity_tells_class_and_id():
    with serving() as server:
        identity = await send_recv(ip="127.0.0.1", port=server.port, op="identity", close=True)
    assert identity == {"type": "Server", "id": server.id}


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


async def test_a_builtin_exception_arrives_as_itself_with_peer_op_and_remote_traceback():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(ZeroDivisionError) as raised:
                await remote.divide(x=1, y=0)
    note = "".join(raised.value.__notes__)
    assert "divide" in note
    assert f"127.0.0.1:{server.port}" in note
    assert "return x / y" in note


async def test_another_exception_arrives_as_remote_error_until_it_is_registered():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(RemoteError, match="OurError") as raised:
                await remote.fail()
            assert raised.value.type_name == "OurError"
            assert raised.value.remote_args == ("ours", 1)
            register_error(OurError)
            with pytest.raises(OurError) as known:
                await remote.fail()
            assert known.value.args == ("ours", 1)


async def test_a_loop_given_by_an_old_program_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="io_loop"):
        server = Server(HANDLERS, io_loop=IOLoop.current())
    with serving(server):
        where = {"ip": "127.0.0.1", "port": server.port}
        with pytest.warns(DeprecationWarning, match="io_loop"):
            connecting = connect(**where, io_loop=IOLoop.current())
        with pytest.warns(DeprecationWarning, match="io_loop"):
            remote = rpc(**where, io_loop=IOLoop.current())
        with pytest.warns(DeprecationWarning, match="io_loop"):
            pool = ConnectionPool(io_loop=IOLoop.current())
        stream = await connecting
        assert await remote.ping() == await pool(**where).ping() == b"pong"
        for end in (stream.close, remote.close_rpc, pool.close):
            end()


async def test_an_op_that_python_2_sent_as_bytes_is_found():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": b"ping"})
        assert await read(stream) == b"pong"
        stream.close()


async def test_a_server_in_a_with_block_stops_at_its_end():
    async with Server(HANDLERS) as server:
        server.listen(0, "127.0.0.1")
        port = server.port
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", port))
