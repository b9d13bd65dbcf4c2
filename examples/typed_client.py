"""Calls that mypy and pyright check: python typed_client.py

A Protocol says what the server's handlers take and give. At run time it is the rpc itself.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

from tornado.iostream import IOStream

from fastcore import RemoteCall, RemoteStream, Server, rpc, typed


class Shop(Protocol):
    """The shop, as its callers see it."""

    def price(self, *, name: str, count: int = 1) -> RemoteCall[float]: ...
    def names(self) -> RemoteStream[str]: ...


PRICES = {"pen": 1.5, "ink": 4.0}


def price(stream: IOStream, *, name: str, count: int = 1) -> float:
    return PRICES[name] * count


def names(stream: IOStream) -> Iterator[str]:
    yield from PRICES


async def main() -> None:
    server = Server({"price": price, "names": names})
    server.listen(0, "127.0.0.1")

    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        shop = typed(remote, Shop)
        async for name in shop.names():
            print(name, await shop.price(name=name, count=2))
        # await shop.price("pen"), shop.prize(name="pen"), shop.price(name=5): refused, before it runs

    await server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
