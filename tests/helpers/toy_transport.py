"""A transport of two queues: all that a channel needs of whatever carries its bytes, in one file.

>>> async def main():
...     one, another = toy_pair()
...     one.channel.write("over two queues")
...     return await another.channel.read()
>>> asyncio.run(main())
'over two queues'
"""

import asyncio
from typing import Any

from fastcore._channel import Channel
from fastcore._socket import Socket
from fastcore.contracts import Transport
from fastcore.limits import DEFAULT_LIMITS, Limits

#: Seconds that a peer has to take a last message.
LAST_WORDS = 0.05


class ToyTransport(Transport):
    """One end. It is open when it is told so.

    Attributes
    ----------
    other : ToyTransport
        The other end.
    sends : list of int
        How many bytes were taken each time.
    unsent : int
        Bytes that could not be sent any more when it closed.
    is_paused, is_lingering, is_closed : bool
        What it was told.
    """

    other: "ToyTransport"

    def __init__(self, name: str, size: int, pieces: int, limits: Limits, **options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(size)
        self.at_hand = b""
        self.piece = pieces
        self.sends: list[int] = []
        self.unsent = 0
        self.wants_write = self.is_paused = self.is_lingering = self.is_closed = self.is_shut = False
        self.channel = Channel(
            self, self.loop, limits, options.get("compression"), name, options.get("writable_values", False)
        )

    def open(self) -> None:
        self.channel.opened(Socket(self))
        self.look_soon()

    # ---- what the channel asks for

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self.look_soon()

    def want_write(self) -> None:
        self.wants_write = self.channel.is_full

    def linger(self) -> None:
        self.is_lingering = True
        self.shut()
        self.loop.call_later(LAST_WORDS, self.channel.close)
        self.look_soon()

    def close(self, error: BaseException | None) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.unsent = self.channel.ending(error)
            self.shut()
            self.channel.ended(str(error or ""), error)

    # ---- its bytes

    def shut(self) -> None:
        """Send no more."""
        self.is_shut = True
        self.other.look_soon()

    def send(self, data: bytes | memoryview) -> int:
        """As a socket does: how many bytes were taken."""
        queue = self.other.incoming
        if self.other.is_closed:
            raise BrokenPipeError("nobody is there any more")
        if queue.full():
            return 0
        piece = bytes(data[: self.piece])
        queue.put_nowait(piece)
        self.sends.append(len(piece))
        self.other.look_soon()
        return len(piece)

    def recv_into(self, memory: memoryview) -> int | None:
        """As a socket does: how many bytes came, 0 at the end, None where none are there."""
        if not self.at_hand:
            if self.incoming.empty():
                return 0 if self.other.is_shut else None
            self.at_hand = self.incoming.get_nowait()
            if self.other.wants_write:
                self.loop.call_soon(self.other.channel.writable)
        size = min(len(self.at_hand), len(memory))
        memory[:size] = self.at_hand[:size]
        self.at_hand = self.at_hand[size:]
        return size

    def look_soon(self) -> None:
        self.loop.call_soon(self.look)

    def look(self) -> None:
        if self.is_lingering:
            while not self.incoming.empty():
                self.incoming.get_nowait()
            if self.other.is_shut:
                self.channel.close()
        elif not self.is_paused and self.channel.receive():
            self.look_soon()


def toy_pair(
    size: int = 0,
    pieces: int = 2**16,
    limits: Limits = DEFAULT_LIMITS,
    opened: bool = True,
    **options: Any,
) -> tuple[ToyTransport, ToyTransport]:
    """Two ends that are connected, with so many pieces at most under way in each direction; 0 is any."""
    one = ToyTransport("another", size, pieces, limits, **options)
    another = ToyTransport("one", size, pieces, limits, **options)
    one.other, another.other = another, one
    if opened:
        one.open()
        another.open()
    return one, another
