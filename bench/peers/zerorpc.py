"""zerorpc: greenlets for many calls in flight, a streamed response for the updates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import zerorpc

from bench.peers import HOST

URL = f"tcp://{HOST}"


class Methods:
    """The handlers, in zerorpc's own spelling."""

    def add(self, x: int, y: int) -> int:
        return x + y

    def echo(self, data: bytes) -> bytes:
        return data

    @zerorpc.stream
    def updates(self, count: int) -> Iterator[object]:
        for i in range(count):
            yield {"op": "update", "key": "task-12345", "n": i}


def serve(announce: Callable[[int], None]) -> None:
    server = zerorpc.Server(Methods(), heartbeat=None)
    (bound,) = server.bind(f"{URL}:0")
    announce(int(bound.addr.rpartition(":")[2]))
    server.run()


class Connection:
    """A client; zerorpc streams answers, not requests, so the updates come the other way."""

    def __init__(self, port: int) -> None:
        self.client = zerorpc.Client(f"{URL}:{port}", timeout=None, heartbeat=None)
        self.pending: deque[Any] = deque()

    def ask(self, x: int, y: int) -> None:
        self.pending.append(self.client.add(x, y, **{"async": True}))

    def answer(self) -> Any:
        return self.pending.popleft().get()

    def echo(self, data: bytes) -> Any:
        return self.client.echo(data)

    def stream(self, count: int) -> int:
        return sum(1 for _ in self.client.updates(count))

    parts = stream


connect = Connection
