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
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.most = max(self.most, self.connections)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
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
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections -= 1
            self.tasks.discard(task)
            writer.close()


@asynccontextmanager
async def classic_server(port: int = 0, **handlers: Callable[..., Any]) -> AsyncIterator[ClassicServer]:
    """One that listens on this machine, and ends with its connections."""
    made = ClassicServer(handlers)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port, limit=2**26)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        while made.connections:
            # Some may have been accepted and begin only now.
            for task in [*made.tasks]:
                task.cancel()
            await asyncio.sleep(0.001)
