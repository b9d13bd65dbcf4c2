"""grpc.aio: generic handlers with msgpack in the place of protobuf, a client stream for the updates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import msgpack

from bench.peers import HOST

run = asyncio.run
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
CODEC = {"request_deserializer": msgpack.unpackb, "response_serializer": msgpack.packb}


async def add(message: dict[str, int], context: object) -> int:
    return message["x"] + message["y"]


async def echo(message: dict[str, bytes], context: object) -> bytes:
    return message["data"]


async def sink(messages: AsyncIterator[object], context: object) -> int:
    count = 0
    async for _ in messages:
        count += 1
    return count


async def updates(count: int, context: object) -> AsyncIterator[object]:
    for i in range(count):
        yield {"op": "update", "key": "task-12345", "n": i}


async def serve(announce: Callable[[int], None]) -> None:
    handlers = {
        "add": grpc.unary_unary_rpc_method_handler(add, **CODEC),
        "echo": grpc.unary_unary_rpc_method_handler(echo, **CODEC),
        "sink": grpc.stream_unary_rpc_method_handler(sink, **CODEC),
        "updates": grpc.unary_stream_rpc_method_handler(updates, **CODEC),
    }
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    announce(port)
    await server.wait_for_termination()


class Connection:
    """A channel."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options=OPTIONS)
        codec = {"request_serializer": msgpack.packb, "response_deserializer": msgpack.unpackb}
        self.call_add = self.channel.unary_unary("/bench/add", **codec)
        self.call_echo = self.channel.unary_unary("/bench/echo", **codec)
        self.call_sink = self.channel.stream_unary("/bench/sink", **codec)
        self.call_updates = self.channel.unary_stream("/bench/updates", **codec)

    def add(self, x: int, y: int) -> Awaitable[Any]:
        return self.call_add({"x": x, "y": y})

    def echo(self, data: bytes) -> Awaitable[Any]:
        return self.call_echo({"data": data})

    async def parts_async(self, count: int) -> int:
        received = 0
        async for _ in self.call_updates(count):
            received += 1
        return received

    async def stream(self, count: int) -> Any:
        call = self.call_sink()
        for i in range(count):
            await call.write({"op": "update", "key": "task-12345", "n": i})
        await call.done_writing()
        return await call


async def connect(port: int) -> Connection:
    return Connection(port)
