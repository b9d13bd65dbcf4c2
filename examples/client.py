"""Messages written and read by hand: python client.py [PORT], with server.py running."""

import asyncio
import contextlib
import sys

from fastcore import connect, read, write


async def call(port: int) -> None:
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "add", "x": 1, "y": 2})
    print(await read(stream))
    stream.close()


async def follow(port: int) -> None:
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "stream", "interval": 1})
    try:
        while True:  # until Ctrl-C
            print(await read(stream))
    finally:
        stream.close()


async def main(port: int) -> None:
    await call(port)
    await follow(port)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
