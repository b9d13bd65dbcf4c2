"""rpyc, with Nagle's delay and compression off on both ends and no time limit on a call."""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import rpyc
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream
from rpyc.utils.server import ThreadedServer

from bench.peers import HOST

CONFIG = {"sync_request_timeout": None}
IN_FLIGHT = 256
# Random bytes don't shrink: to compress them first would measure zlib.
Channel.COMPRESSION_THRESHOLD = sys.maxsize


class Service(rpyc.Service):
    """The handlers, in rpyc's own spelling."""

    updates = 0

    def exposed_add(self, x: int, y: int) -> int:
        return x + y

    def exposed_echo(self, data: bytes) -> bytes:
        return data

    def exposed_update(self, key: str, n: int) -> None:
        self.updates += 1

    def exposed_flush(self) -> int:
        count, self.updates = self.updates, 0
        return count


def serve(announce: Callable[[int], None]) -> None:
    server = ThreadedServer(Service, hostname=HOST, port=0, protocol_config=CONFIG)
    # rpyc has no option for the accepted sockets: they inherit this one.
    server.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    announce(server.port)
    server.start()


class Connection:
    """``rpyc.async_`` calls, since many may be in flight."""

    def __init__(self, port: int) -> None:
        stream = SocketStream.connect(HOST, port, nodelay=True)
        self.root = rpyc.connect_stream(stream, config=CONFIG).root
        self.echo = self.root.echo
        self.later = rpyc.async_(self.root.add)
        self.pending: deque[Any] = deque()

    def ask(self, x: int, y: int) -> None:
        self.pending.append(self.later(x, y))

    def answer(self) -> Any:
        pending = self.pending.popleft()
        pending.wait()
        return pending.value

    def stream(self, count: int) -> Any:
        update = rpyc.async_(self.root.update)
        for i in range(count):
            pending = update("task-12345", i)
            if i % IN_FLIGHT == 0:
                pending.wait()
        return self.root.flush()


connect = Connection
