"""A scheduler, two workers and a store. Each is a Server with a state of its own.

Workers tell the scheduler that they are there, the scheduler hands them work, they
keep the results in the store: each of these steps is a remote call.
"""

import asyncio
from typing import Any

from tornado.iostream import IOStream

from fastcore import Server, rpc


class Store(Server):
    """Keeps results by key."""

    def __init__(self) -> None:
        self.data: dict[int, Any] = {}
        super().__init__({"put": self.put, "get": self.get})

    def put(self, stream: IOStream, key: int, value: Any) -> None:
        self.data[key] = value

    def get(self, stream: IOStream, key: int) -> Any:
        return self.data[key]


class Worker(Server):
    """Computes, and counts what it did."""

    def __init__(self, name: str, scheduler_port: int, store_port: int) -> None:
        self.name = name
        self.done = 0
        self.scheduler = rpc(ip="127.0.0.1", port=scheduler_port)
        self.store = rpc(ip="127.0.0.1", port=store_port)
        super().__init__({"square": self.square})

    async def begin(self) -> None:
        self.listen(0, "127.0.0.1")
        await self.scheduler.register(name=self.name, port=self.port)

    async def square(self, stream: IOStream, number: int) -> int:
        await self.store.put(key=number, value=number**2)
        self.done += 1
        return self.done

    def stop(self) -> None:
        self.scheduler.close_rpc()
        self.store.close_rpc()
        super().stop()


class Scheduler(Server):
    """Knows the workers, and gives each its share."""

    def __init__(self) -> None:
        self.workers: dict[str, rpc] = {}
        super().__init__({"register": self.register, "squares": self.squares})

    def register(self, stream: IOStream, name: str, port: int) -> None:
        self.workers[name] = rpc(ip="127.0.0.1", port=port)

    async def squares(self, stream: IOStream, numbers: list[int]) -> list[str]:
        workers = list(self.workers.values())
        await asyncio.gather(
            *(workers[i % len(workers)].square(number=number) for i, number in enumerate(numbers))
        )
        return sorted(self.workers)

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.close_rpc()
        super().stop()


async def main() -> None:
    scheduler, store = Scheduler(), Store()
    scheduler.listen(0, "127.0.0.1")
    store.listen(0, "127.0.0.1")
    workers = [Worker(name, scheduler.port, store.port) for name in ("first", "second")]
    for worker in workers:
        await worker.begin()

    async with (
        rpc(ip="127.0.0.1", port=scheduler.port) as to_scheduler,
        rpc(ip="127.0.0.1", port=store.port) as to_store,
    ):
        print("done by", await to_scheduler.squares(numbers=list(range(10))))
        print("each did", [worker.done for worker in workers])
        print("7 squared is", await to_store.get(key=7))

    for server in (*workers, scheduler, store):
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
