"""What type checkers take, and what they refuse: each line that says so at its end, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol, assert_type

from tornado.iostream import IOStream

from fastcore import (
    CallDetails,
    ConnectionPool,
    RemoteCall,
    RemoteStream,
    Server,
    SyncClient,
    caller_of,
    remote_method,
    rpc,
    typed,
)

# ---- a Protocol: what a caller sees, in words


class Shop(Protocol):
    def add(self, *, x: int, y: int) -> RemoteCall[int]: ...
    def find(self, *, name: str, limit: int = 10, timeout: float | None = None) -> RemoteCall[list[str]]: ...
    def rows(self, *, count: int) -> RemoteStream[str]: ...
    async def price(self, *, name: str) -> float: ...


async def by_protocol() -> None:
    async with rpc("127.0.0.1:8786") as remote:
        shop = typed(remote, Shop)
        assert_type(shop, Shop)
        assert_type(await shop.add(x=1, y=2), int)
        assert_type(await shop.find(name="pen", timeout=1.5), list[str])
        assert_type(await shop.rows(count=3), list[str])
        async for row in shop.rows(count=3):
            assert_type(row, str)
        assert_type(await shop.price(name="pen"), float)
        assert_type(await asyncio.gather(shop.add(x=1, y=2), shop.price(name="pen")), tuple[int, float])
        shop.add(x=1, y=2).cancel()
        shop.rows(count=3).cancel()

        await shop.ad(x=1, y=2)  # refused
        await shop.add(1, 2)  # refused
        await shop.add(x=1)  # refused
        await shop.add(x=1, y=2, z=3)  # refused
        await shop.add(x="1", y=2)  # refused
        await shop.add(x=1, y=2, timeout=1)  # refused
        await shop.rows(count="3")  # refused
        name: str = await shop.add(x=1, y=2)  # refused
        async for part in shop.price(name="pen"):  # refused
            print(part)
        print(name)


async def by_pool() -> None:
    pool = ConnectionPool()
    shop = typed(pool("127.0.0.1:8786"), Shop)
    assert_type(await shop.add(x=1, y=2), int)
    typed("127.0.0.1:8786", Shop)  # refused


class Blocking(Protocol):
    def add(self, *, x: int, y: int) -> int: ...


def without_a_loop() -> None:
    with SyncClient("127.0.0.1:8786", token="correct horse") as client:
        shop = typed(client, Blocking)
        assert_type(shop.add(x=1, y=2), int)
        shop.add(1, 2)  # refused
        shop.ad(x=1, y=2)  # refused


# ---- the handlers themselves: their signatures are written down once


def add(stream: IOStream, *, x: int, y: int) -> int:
    return x + y


async def price(stream: IOStream, *, name: str, taxed: bool = True) -> float:
    return 1.5


def rows(stream: IOStream, *, count: int) -> Iterator[str]:
    yield "row"


async def ticks(stream: IOStream) -> AsyncIterator[int]:
    yield 1


class Counter(Server):
    def increment(self, stream: IOStream, *, by: int = 1) -> int:
        return by

    async def later(self, stream: IOStream, *, by: int = 1) -> int:
        return by

    async def each(self, stream: IOStream) -> AsyncIterator[int]:
        yield 1


class Handlers:
    add = remote_method(add)
    price = remote_method(price)
    rows = remote_method(rows)
    ticks = remote_method(ticks)
    increment = remote_method(Counter.increment)
    later = remote_method(Counter.later)
    each = remote_method(Counter.each)


async def by_handlers() -> None:
    async with rpc("127.0.0.1:8786") as remote:
        shop = typed(remote, Handlers)
        assert_type(await shop.add(x=1, y=2), int)
        assert_type(await shop.price(name="pen"), float)
        assert_type(await shop.rows(count=3), list[str])
        async for tick in shop.ticks():
            assert_type(tick, int)
        assert_type(await shop.increment(by=2), int)
        assert_type(await shop.later(), int)
        assert_type(await shop.each(), list[int])

        await shop.ad(x=1, y=2)  # refused
        await shop.add(1, 2)  # refused
        await shop.add(x=1)  # refused
        await shop.price(name=1)  # refused
        await shop.increment(to=1)  # refused
        text: str = await shop.increment()  # refused
        print(text)


# ---- what else is written by hand


class Known(rpc):
    """A subclass stays one in its own `with`."""


async def others() -> None:
    async with Known("127.0.0.1:8786", token="correct horse", middleware=[timing]) as known:
        assert_type(known, Known)
        await known.anything(x=1)
    async with Counter({}, token={"ada": "correct horse"}, middleware=[timing]) as counter:
        assert_type(counter, Counter)
        counter.listen(0, "127.0.0.1")
    Server({}, token=5)  # refused
    Server({}, middleware=[add])  # refused


@contextmanager
def timing(call: CallDetails) -> Iterator[None]:
    assert call.stream is not None
    print(caller_of(call.stream))
    yield
