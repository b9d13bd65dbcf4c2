"""A call that is made again when its connection is lost: python retry.py

Whether the handler of a call that got no answer has run, nobody knows. So each order has a
number of its own here, and the handler does the same thing once, however often it is asked.
"""

import asyncio
import random
import uuid

from tornado.iostream import IOStream

from fastcore import ConnectionLost, Server, rpc


class Till(Server):
    """Takes orders. Its connections are cut at times, as a bad network cuts them."""

    def __init__(self) -> None:
        self.orders: dict[str, int] = {}
        self.asked = 0
        super().__init__({"order": self.order})

    def order(self, stream: IOStream, number: str, amount: int) -> int:
        self.asked += 1
        self.orders.setdefault(number, amount)  # not twice
        if self.asked % 3:
            stream.close()  # before the answer
        return sum(self.orders.values())


async def order(remote: rpc, amount: int, attempts: int = 10) -> int:
    number = str(uuid.uuid4())
    pause = 0.01
    for attempt in range(attempts):
        try:
            total: int = await remote.order(number=number, amount=amount, timeout=5)
            return total
        except (ConnectionLost, TimeoutError):  # a handler's own errors are none of these
            if attempt == attempts - 1:
                raise
            await asyncio.sleep(random.uniform(0, pause))  # not all of them at the same time
            pause = min(2 * pause, 1.0)
    raise AssertionError


async def main() -> None:
    till = Till()
    till.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=till.port) as remote:
        for amount in (5, 7):
            total = await order(remote, amount)
        print(f"asked {till.asked} times for {len(till.orders)} orders of {total}")
    await till.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
