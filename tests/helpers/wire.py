"""The wire by hand: a peer that sends whatever it likes, knowing nothing of fastcore.

>>> frame({"op": "identity"})[:14]
b'\\x00\\x00\\x00\\x00\\x81\\xa2op\\xa8ident'
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import msgpack

from fastcore import Server

SENTINEL = b"7d629535c4f3a6963f566af7d3e3a2d2"


def raw_frame(payload: bytes, header: bytes = b"") -> bytes:
    """A frame around a payload that needn't be MessagePack."""
    return struct.pack("<I", len(header)) + header + payload + SENTINEL


def frame(message: object, **header: object) -> bytes:
    """A message as its bytes."""
    return raw_frame(msgpack.packb(message), msgpack.packb(header) if header else b"")


def unframe(data: bytes) -> tuple[Any, dict[str, Any]]:
    """A message out of its bytes, and what its header says beside the length."""
    (header_length,) = struct.unpack("<I", data[:4])
    header = msgpack.unpackb(data[4 : 4 + header_length]) if header_length else {}
    header.pop("length", None)
    payload = data[4 + header_length : -len(SENTINEL)]
    return msgpack.unpackb(payload, strict_map_key=False), header


class Stranger:
    """A bare TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def meets(cls, server: Server, **options: Any) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", server.port, limit=2**24, **options))

    def say(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def hears(self) -> Any:
        """The next message of the server, whatever its header says; it isn't compressed."""
        message, _ = await self.hears_all()
        return message

    async def hears_all(self) -> tuple[Any, dict[str, Any]]:
        """The next message of the server, and what its header says, but for the length."""
        return unframe(await self.reader.readuntil(SENTINEL))

    async def hears_answers(self, *numbers: int) -> dict[int, Any]:
        """The last messages of these calls, in whatever order, with what else their headers say."""
        heard: dict[int, Any] = {}
        while len(heard) < len(numbers):
            message, header = await self.hears_all()
            number = header.pop("call")
            assert number in numbers, (message, number)
            assert number not in heard, f"call {number} was answered twice"
            heard[number] = (message, header) if header else message
        return heard

    def calls(self, number: object, op: object, **message: object) -> None:
        """Send a request that has a number."""
        self.say(frame({"op": op, **message}, call=number))

    def gives_up(self, number: object) -> None:
        """Say that nobody waits for that call any more."""
        self.say(frame(None, cancel=number))

    def grants(self, number: int, parts: int) -> None:
        """Let so many more parts of that call come."""
        self.say(frame(None, call=number, grant=parts))

    async def has_heard_nothing_more(self) -> bool:
        """Whether nothing came since; what the server has to say comes before this answer."""
        self.calls(2**32, "add", x=1, y=2)
        return await self.hears_all() == (3, {"call": 2**32})

    async def hears_error(self) -> str:
        """The next message, which tells of an error: its type and text."""
        reply = await self.hears()
        assert reply["status"] == "uncaught-error", reply
        return f"{reply['exception']['type']}: {reply['exception']['message']}"

    async def hears_the_end(self) -> bytes:
        """What the server said before it closed the connection, cleanly or not."""
        said = b""
        try:
            while data := await self.reader.read(2**16):
                said += data
        except ConnectionResetError:
            pass
        return said

    async def is_served(self) -> bool:
        """Whether the connection still does what it is for."""
        self.say(frame({"op": "add", "x": 1, "y": 2}))
        return await self.hears() == 3

    def leave(self) -> None:
        self.writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as the kernel of a crashed program may."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def add(stream, x, y):
    return x + y


@asynccontextmanager
async def served(handlers: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Server]:
    """A server with ``add`` and further handlers, stopped at the end."""
    server = Server({"add": add, **(handlers or {})}, **options)
    server.listen(0, "127.0.0.1")
    try:
        yield server
    finally:
        # Those that were refused still wait for their peer to go.
        await server.shutdown(deadline=0)


@asynccontextmanager
async def stranger_at(server: Server, **options: Any) -> AsyncIterator[Stranger]:
    """A stranger that leaves at the end."""
    stranger = await Stranger.meets(server, **options)
    try:
        yield stranger
    finally:
        stranger.leave()


class FakeServer:
    """Listens as a server does; each connection is a stranger, who says what the test says."""

    def __init__(self) -> None:
        self.port = 0
        self.met: list[Stranger] = []
        self._new: asyncio.Queue[Stranger] = asyncio.Queue()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger = Stranger(reader, writer)
        self.met.append(stranger)
        self._new.put_nowait(stranger)

    async def next(self) -> Stranger:
        """The next one that connects."""
        return await self._new.get()


@asynccontextmanager
async def fake_server(port: int = 0) -> AsyncIterator[FakeServer]:
    """A server of which every byte is the test's; its connections end with it."""
    made = FakeServer()
    server = await asyncio.start_server(made.meet, "127.0.0.1", port, limit=2**24)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for stranger in made.met:
            stranger.leave()
