"""``Server``: a ``TCPServer`` that is meant to be subclassed."""

import socket

import pytest
from tornado.tcpserver import TCPServer

from fastcore import Server, connect, rpc, send_recv
from helpers.surface import HANDLERS, serving


def test_it_is_a_tcp_server():
    assert issubclass(Server, TCPServer)


async def test_a_stopped_server_leaves_open_connections_alive():
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        await send_recv(stream, op="ping")
    assert await send_recv(stream, op="ping") == b"pong"
    stream.close()


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


async def test_a_server_in_a_with_block_stops_at_its_end():
    async with Server(HANDLERS) as server:
        server.listen(0, "127.0.0.1")
        port = server.port
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", port))
