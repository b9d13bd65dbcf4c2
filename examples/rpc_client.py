"""The same call by rpc: python rpc_client.py [PORT], with server.py running."""

import asyncio
import sys

from fastcore import rpc


async def main(port: int) -> None:
    async with rpc(ip="127.0.0.1", port=port) as remote:
        print(await remote.add(x=1, y=2))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
