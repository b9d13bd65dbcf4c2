"""A server with a plain handler and one that streams: python server.py [PORT]."""

import asyncio
import sys

from fastcore import Server, write


def add(stream, x=None, y=None):  # simple handler, just a function
    return x + y


async def stream_data(stream, interval=1):  # complex handler, multiple responses
    data = 0
    while True:
        await asyncio.sleep(interval)
        data += 1
        await write(stream, data)


async def main(port):
    server = Server({"add": add, "stream": stream_data})
    server.listen(port, "127.0.0.1")
    print(f"serving on 127.0.0.1:{server.port}")
    await asyncio.Event().wait()  # until Ctrl-C


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
