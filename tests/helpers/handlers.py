"""Handlers that many tests call: those that wait for the test, and those of many answers."""

import asyncio

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
