"""A client that blocks, and what it calls."""

import asyncio
from typing import Any

from fastcore import SyncClient


def client(server: Any, **options: Any) -> SyncClient:
    return SyncClient(ip="127.0.0.1", port=server.port, **options)


class Handlers:
    """What is called, and what became of it."""

    def __init__(self) -> None:
        self.ended = 0
        self.given = 0

    def boom(self, stream):
        raise KeyError("x")

    def rows(self, stream, count, size=0):
        try:
            for number in range(count):
                self.given += 1
                yield {"n": number, "padding": b"p" * size}
        finally:
            self.ended += 1

    async def nap(self, stream, seconds):
        try:
            await asyncio.sleep(seconds)
            return "slept"
        finally:
            self.ended += 1

    def echo(self, stream, x):
        return x

    @property
    def all(self):
        return {name: getattr(self, name) for name in ("boom", "rows", "nap", "echo")}
