"""What the tests of the classic surface share: a server with handlers of every kind."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tornado import gen

from fastcore import Server, pingpong, write


class OurError(Exception):
    """An exception that only the server knows."""


def add(stream, x, y):
    return x + y


def echo(stream, x):
    return x


async def later(stream, seconds=0.01, x="done"):
    await asyncio.sleep(seconds)
    return x


@gen.coroutine
def tornado_later(stream, x):
    yield gen.sleep(0.01)
    raise gen.Return(x)


def future(stream, x):
    result = asyncio.get_running_loop().create_future()
    result.get_loop().call_later(0.01, result.set_result, x)
    return result


@gen.coroutine
def count(stream, n):
    for i in range(n):
        yield write(stream, i)


def divide(stream, x, y):
    return x / y


def fail(stream):
    raise OurError("ours", 1)


def unserializable(stream):
    return object()


HANDLERS = {
    "ping": pingpong,
    "add": add,
    "echo": echo,
    "later": later,
    "tornado_later": tornado_later,
    "future": future,
    "count": count,
    "divide": divide,
    "fail": fail,
    "unserializable": unserializable,
}


@contextmanager
def serving(server: Server | None = None, **options: Any) -> Iterator[Server]:
    """A server that listens on a free port of this machine alone."""
    server = server or Server(HANDLERS, **options)
    server.listen(0, "127.0.0.1")
    try:
        yield server
    finally:
        server.stop()
