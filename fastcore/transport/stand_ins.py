"""What stands in a stream in the place of what Tornado put there, while messages go over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from tornado.iostream import IOStream

from fastcore._channel import Channel

__all__ = ["Closing", "OwnBytes", "OwnWrites", "Queue"]


class Closes(Protocol):
    """What has to hear that its stream is being closed."""

    def closing(self) -> None:
        """Run while the stream is closing."""


class Closing:
    """What stands in the place of a stream's ``close_fd``.

    Every way of closing a stream passes there, while it can still send. It is the one name that is
    added to a stream: in the table that all of Tornado's share there is room for no second one,
    and each would have a table of its own then, of 1.3 KB.

    Attributes
    ----------
    transport : object or None
        Who is told; nobody once it has ended.
    """

    __slots__ = ("_close_fd", "transport")

    def __init__(self, transport: Closes, close_fd: Callable[[], None]) -> None:
        self.transport: Closes | None = transport
        self._close_fd: Callable[[], None] | None = close_fd

    def __call__(self) -> None:
        """Tell the transport that its stream is being closed."""
        # Held: whoever comes in between may close the stream, which has none from then on.
        transport = self.transport
        if transport is not None:
            transport.closing()

    def close_fd(self) -> None:
        """Do what the stream itself does: once, as those who come in between may close it too."""
        close_fd, self._close_fd = self._close_fd, None
        if close_fd is not None:
            close_fd()


class OwnBytes:
    """The bytes of a stream that does something to them by itself."""

    __slots__ = ("recv_into", "send")

    def __init__(self, stream: IOStream) -> None:
        self.recv_into = stream.read_from_fd
        self.send = stream.write_to_fd


class Queue:
    """In the place of a deque of a stream, nearly always empty: there is one while it holds something."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Any]) -> None:
        self._items: deque[Any] | None = deque(items) or None

    def append(self, item: Any) -> None:
        """Put it behind the others."""
        # Held, here and below: whoever comes in between may close the stream, which clears it.
        items = self._items
        if items is None:
            items = self._items = deque()
        items.append(item)

    def popleft(self) -> Any:
        """Give what came first."""
        items = self._items
        if items is None:
            raise IndexError("nothing is in it")
        item = items.popleft()
        self._items = self._items or None
        return item

    def clear(self) -> None:
        """Forget what is in it."""
        self._items = None

    def __getitem__(self, at: int) -> Any:
        return (self._items or ())[at]

    def __len__(self) -> int:
        return len(self._items or ())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items or ())


class OwnWrites(Queue):
    """The Futures of bytes that somebody writes to a stream by its own means. Messages come behind those.

    Attributes
    ----------
    channel : Channel
        The stream's messages; this is where they are found.
    """

    __slots__ = ("channel",)

    def __init__(self, channel: Channel, waiting: Iterable[Any]) -> None:
        super().__init__(waiting)
        self.channel = channel

    def append(self, write: Any) -> None:
        """Hear of such bytes, before as many of them are sent as the socket takes."""
        super().append(write)
        self.channel.hold_back()
