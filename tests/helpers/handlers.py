"""Handlers that many tests call: they wait for the test, give many answers, keep what they are called for."""

import asyncio

from fastcore import caller_of
from helpers.support import until


class Gates:
    """Handlers that wait until the test lets them go on, and tell how they ended."""

    def __init__(self):
        self.begun = []
        self.ended = []
        self.gates = {}

    async def wait(self, stream, key):
        self.begun.append(key)
        gate = self.gates[key] = asyncio.get_running_loop().create_future()
        try:
            await gate
        except asyncio.CancelledError:
            self.ended.append((key, "cancelled"))
            raise
        self.ended.append((key, "answered"))
        return key

    async def opens(self, *keys):
        for key in keys:
            await until(lambda key=key: key in self.gates)
            self.gates.pop(key).set_result(None)

    @property
    def handlers(self):
        return {"wait": self.wait}


def rows(stream, n):
    yield from range(n)


async def async_rows(stream, n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


def gives_rows(stream, n):
    return rows(stream, n)


async def gives_rows_later(stream, n):
    await asyncio.sleep(0)
    return async_rows(stream, n)


#: One of each kind.
STREAMS = {"rows": rows, "async_rows": async_rows, "gives": gives_rows, "gives_later": gives_rows_later}


class RecordingHandlers(dict):
    """Handlers that keep what they were called for."""

    def __init__(self) -> None:
        self.called: list[str] = []
        super().__init__(add=self.add, whoami=self.whoami, identity=self.identity)

    def add(self, stream, x, y):
        self.called.append("add")
        return x + y

    def whoami(self, stream):
        self.called.append("whoami")
        return caller_of(stream)

    def identity(self, stream):
        self.called.append("identity")
        return "me"
