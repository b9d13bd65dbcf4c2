"""Answers that come one by one: python answers.py

The handler is a generator. Its caller reads at its own speed, and leaves when it has enough.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

from tornado.iostream import IOStream

from fastcore import Server, rpc


async def countdown(stream: IOStream, start: int) -> AsyncIterator[int]:
    try:
        for number in range(start, 0, -1):
            yield number
            await asyncio.sleep(0.01)
    finally:  # also when the caller has left
        print("the countdown is over")


def squares(stream: IOStream, count: int) -> Iterator[int]:
    for number in range(count):  # where nothing is waited for, a plain generator does
        yield number**2


async def main() -> None:
    server = Server({"countdown": countdown, "squares": squares})
    server.listen(0, "127.0.0.1")

    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        async for number in remote.countdown(start=1_000_000):
            print(number)
            if number == 999_998:
                break
        print(await remote.squares(count=5))  # or all of them, as a list

    await server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
