"""A server with a plain handler and one that streams: python server.py [PORT]."""

import asyncio
import contextlib
import sys

from tornado.iostream import IOStream

from fastcore import Server, write


def add(stream: IOStream, x: int, y: int) -> int:  # simple handler, just a function
    return x + y


async def stream_data(stream: IOStream, interval: float = 1) -> None:  # complex handler, multiple responses
    data = 0
    while True:
        await asyncio.sleep(interval)
        data += 1
        await write(stream, data)


async def main(port: int) -> None:
    async with Server({"add": add, "stream": stream_data}) as server:
        server.listen(port, "127.0.0.1")
        print(f"serving on 127.0.0.1:{server.port}")
        await asyncio.Event().wait()  # until Ctrl-C


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
