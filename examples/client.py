"""Messages written and read by hand: python client.py [PORT], with server.py running."""

import asyncio
import sys

from fastcore import connect, read, write


async def call(port):
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "add", "x": 1, "y": 2})
    print(await read(stream))
    stream.close()


async def follow(port):
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "stream", "interval": 1})
    while True:  # until Ctrl-C
        print(await read(stream))


async def main(port):
    await call(port)
    await follow(port)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
