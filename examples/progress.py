"""How far a long job is, as it runs: python progress.py

The handler yields what there is to tell, and its result last. Who has seen enough leaves, and
that ends the job.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tornado.iostream import IOStream

from fastcore import Server, rpc


async def count_primes(stream: IOStream, below: int) -> AsyncIterator[dict[str, Any]]:
    found = 0
    for number in range(2, below):
        found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        if number % 1000 == 0:
            yield {"done": number / below}
            await asyncio.sleep(0)  # others have their turn
    yield {"done": 1.0, "result": found}


async def main() -> None:
    server = Server({"count_primes": count_primes})
    server.listen(0, "127.0.0.1")

    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        async for report in remote.count_primes(below=5_000):
            print(f"{report['done']:4.0%}")
        print(report["result"], "primes")

        async for report in remote.count_primes(below=50_000_000):
            if report["done"] > 0.0001:
                print("that would take too long")
                break

    await server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
