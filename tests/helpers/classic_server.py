"""A server that knows nothing of numbers, as those of 2016: one request after the other, in order."""

import asyncio
import inspect
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from helpers.wire import SENTINEL, frame


class ClassicServer:
    """Handlers are called with the message's keywords and without a stream.

    Attributes
    ----------
    port : int
    connections : int
        How many there are.
    most : int
        How many there were at most.
    """

    def __init__(self, handlers: dict[str, Callable[..., Any]]) -> None:
        # As each of them has it.
        self.handlers = {"identity": lambda: {"type": "ClassicServer", "id": "1"}, **handlers}
        self.port = 0
        self.connections = self.most = 0
        self.writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: one that is cancelled before its first step closes nothing."""
        self.connections += 1
        self.most = max(self.most, self.connections)
        task = asyncio.get_running_loop().create_task(self.serve(reader, writer))
        self.writers[task] = writer
        task.add_done_callback(self.end)

    def end(self, task: asyncio.Task[None]) -> None:
        self.connections -= 1
        self.writers.pop(task).close()
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                data = await reader.readuntil(SENTINEL)
                (header_length,) = struct.unpack("<I", data[:4])
                message = msgpack.unpackb(data[4 + header_length : -len(SENTINEL)])
                reply, close = message.pop("reply", True), message.pop("close", False)
                op = message.pop("op")
                result = "OK" if op == "close" else self.handlers[op](**message)
                if inspect.isawaitable(result):
                    result = await result
                if reply:
                    writer.write(frame(result))
                    await writer.drain()
                if close or op == "close":
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


@asynccontextmanager
async def classic_server(port: int = 0, **handlers: Callable[..., Any]) -> AsyncIterator[ClassicServer]:
    """One that listens on this machine, and ends with its connections."""
    made = ClassicServer(handlers)
    server = await asyncio.start_server(made.accept, "127.0.0.1", port, limit=2**26)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        # Some may have been accepted and are heard of only now.
        for _ in range(3):
            await asyncio.sleep(0)
        while made.connections:
            for task in [*made.writers]:
                task.cancel()
            await asyncio.sleep(0.001)
