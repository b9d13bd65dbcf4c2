"""``fastcore demo``: a server in a process of its own, and what is said to it.

The three programs of the classic tutorial: a server with a plain handler and one that
streams, a client that reads and writes by hand, and one that calls by rpc.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

from tornado.iostream import IOStream

from fastcore.client.rpc import rpc
from fastcore.errors import FastcoreError
from fastcore.transport.connecting import connect
from fastcore.transport.streams import read, write

__all__ = ["handlers", "show"]

#: Seconds for each of the two measurements.
_DURATION = 0.5
_START_TIMEOUT = 20.0


def add(stream: IOStream, x: int, y: int) -> int:
    """Answer at once."""
    return x + y


async def stream_data(stream: IOStream, interval: float = 1, count: int = sys.maxsize) -> str:
    """Send 1, 2, 3 ... and say that it was all."""
    for data in range(1, count + 1):
        if interval:
            await asyncio.sleep(interval)
        await write(stream, data)
    return "end"


handlers = {"add": add, "stream": stream_data}


async def show() -> None:
    """Run the demo, and print it as it goes.

    Raises
    ------
    FastcoreError, OSError
        If the server doesn't start, or an answer is not the right one.
    """
    async with _server_process() as port:
        await _by_hand(port)
        await _by_rpc(port)
        calls = await _calls_per_second(port)
        messages = await _messages_per_second(port)
    print(f"\n{calls:,.0f} calls/s, one after the other; {messages:,.0f} messages/s, streamed")


@asynccontextmanager
async def _server_process() -> AsyncIterator[int]:
    command = ["-m", "fastcore", "serve", f"{__name__}:handlers", "--port", "0"]
    print("server: python", *command)
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT)).decode().strip()
        if not line:
            raise FastcoreError(f"the server ended with exit code {await process.wait()}")
        print(f"        {line}, process {process.pid}")
        yield int(line.rpartition(":")[2])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _by_hand(port: int) -> None:
    print("\nclient: writes and reads by hand")
    conversation: list[tuple[dict[str, Any], list[Any]]] = [
        ({"op": "add", "x": 1, "y": 2}, [3]),
        ({"op": "stream", "interval": 0.1, "count": 3}, [1, 2, 3, "end"]),
    ]
    with closing(await connect("127.0.0.1", port)) as stream:
        for message, answers in conversation:
            print(f"    ->  {message}")
            await write(stream, message)
            for answer in answers:
                _tell(await read(stream), answer)


async def _by_rpc(port: int) -> None:
    print("\nclient: calls by rpc")
    async with rpc(ip="127.0.0.1", port=port) as remote:
        print("    ->  remote.add(x=1, y=2)")
        _tell(await remote.add(x=1, y=2), 3)


def _tell(answer: Any, expected: Any) -> None:
    print(f"    <-  {answer!r}")
    if answer != expected:
        raise FastcoreError(f"the server answered {answer!r} where {expected!r} is right")


async def _calls_per_second(port: int) -> float:
    calls = 0
    async with rpc(ip="127.0.0.1", port=port) as remote:
        await remote.add(x=0, y=0)
        start = time.perf_counter()
        while (passed := time.perf_counter() - start) < _DURATION:
            calls += 1
            if await remote.add(x=calls, y=1) != calls + 1:
                raise FastcoreError(f"the server answered call {calls} wrongly")
    return calls / passed


async def _messages_per_second(port: int) -> float:
    messages = 0
    with closing(await connect("127.0.0.1", port)) as stream:
        await write(stream, {"op": "stream", "interval": 0})
        start = time.perf_counter()
        while (passed := time.perf_counter() - start) < _DURATION:
            messages += 1
            if await read(stream) != messages:
                raise FastcoreError(f"message {messages} of the stream did not arrive in its place")
    return messages / passed
