"""``read``, ``write``, ``messages``, ``configure``: the thin functions over Tornado's streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from tornado.iostream import IOStream

from fastcore._channel import Channel, Messages
from fastcore._futures import unobserved
from fastcore._iterating import Values
from fastcore.compressions import check_compression
from fastcore.limits import Limits
from fastcore.transport.event_loop import current_loop
from fastcore.transport.tornado import channel_of, has_channel

__all__ = ["configure", "messages", "read", "write"]


def read(stream: IOStream) -> asyncio.Future[Any]:
    """Read the next message of a stream.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        Any open stream. Its bytes belong to fastcore from the first message on.

    Returns
    -------
    asyncio.Future
        The message. A read given up, by cancelling it or by ``gen.with_timeout``, loses
        nothing: the next one gets the message.

    Raises
    ------
    ConnectionLost
        In the Future: the connection has ended, and all its messages were read.
        It is a ``tornado.iostream.StreamClosedError``.
    BadFrame, BadMessage
        In the Future: what arrived is no message. The next read goes on after it.
    FrameTooLarge
        In the Future: more arrived than is allowed.
    RuntimeError
        In the Future: somebody else reads from this stream already.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, connect, read, write
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     stream = await connect('127.0.0.1', server.port)
    ...     await write(stream, {'op': 'add', 'x': 1, 'y': 2})
    ...     print(await read(stream))
    ...     stream.close()
    ...     server.stop()
    >>> asyncio.run(main())
    3
    """
    try:
        channel: Channel = stream._write_futures.channel  # type: ignore[attr-defined]
    except AttributeError:
        return _begin(stream, Channel.read)
    return channel.read()


class _Messages(Values):
    """Iterates over the messages of a stream."""

    __slots__ = ("_messages",)

    def __init__(self, source: Messages) -> None:
        super().__init__(source)
        self._messages = source

    async def aclose(self) -> None:
        """End the iteration, as if it were an async generator."""
        self._messages.stop()


def messages(stream: IOStream) -> AsyncIterator[Any]:
    """Iterate over the messages of a stream, until the peer closes it.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        Any open stream.

    Returns
    -------
    AsyncIterator
        It gives each message. Leaving the loop early loses none: they can be read, or
        iterated over, from there on.

    Raises
    ------
    ConnectionLost
        If the connection broke, or ended in the middle of a message.
    BadFrame, BadMessage
        If what arrived is no message. A new iteration goes on after it.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, connect, messages, write
    >>> async def count(stream, to):
    ...     for number in range(to):
    ...         await write(stream, number)
    ...     stream.close()
    >>> async def main():
    ...     async with Server({'count': count}) as server:
    ...         server.listen(0, '127.0.0.1')
    ...         stream = await connect('127.0.0.1', server.port)
    ...         await write(stream, {'op': 'count', 'to': 3})
    ...         async for message in messages(stream):
    ...             print(message)
    >>> asyncio.run(main())
    0
    1
    2
    """
    return _Messages(Messages(channel_of(stream)))


def write(stream: IOStream, msg: object) -> asyncio.Future[None]:
    """Write a message to a stream.

    It is on its way when ``write`` returns, in the order of the calls; awaiting the
    Future is for not writing faster than the peer reads.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        Any open stream.
    msg : object
        Whatever MessagePack can express. Binary values of 64 KiB and more are sent from
        where they lie: don't change them until the Future is done.

    Returns
    -------
    asyncio.Future
        Done when it is safe to go on: at once, or when the peer has read enough.

    Raises
    ------
    BadValue
        In the Future: the message holds a value that can't be sent, which it names. Nothing was
        sent. It is a ``TypeError``, a ``ValueError`` and an ``OverflowError``.
    ConnectionLost
        In the Future: the connection has ended.

    Examples
    --------
    See :func:`read`.
    """
    try:
        channel: Channel = stream._write_futures.channel  # type: ignore[attr-defined]
    except AttributeError:
        return _begin(stream, Channel.write, msg)
    return channel.write(msg)


def configure(
    stream: IOStream, *, compression: str | None = None, writable_values: bool = False, **limits: Any
) -> None:
    """Say how messages go over a stream that somebody else made, before the first of them.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        Any, open or about to be. Its bytes belong to fastcore from now on.
    compression, writable_values, **limits
        As :func:`connect` takes them.

    Raises
    ------
    RuntimeError
        Messages go over it already, as ``connect`` and ``Server`` have said.

    Examples
    --------
    >>> import asyncio, socket
    >>> from tornado.iostream import IOStream
    >>> from fastcore import configure, read, write
    >>> async def main():
    ...     ours, theirs = map(IOStream, socket.socketpair())
    ...     configure(ours, writable_values=True)
    ...     write(theirs, bytes(100_000))
    ...     value = await read(ours)
    ...     print(type(value).__name__, len(value))
    ...     ours.close()
    ...     theirs.close()
    >>> asyncio.run(main())
    bytearray 100000
    """
    settings = Limits(**limits)
    check_compression(compression)
    if has_channel(stream):
        raise RuntimeError(
            f"messages go over the stream to {channel_of(stream).peer} already: say it before the first one"
        )
    channel_of(stream, settings, compression, writable_values)


def _begin(
    stream: IOStream, action: Callable[..., asyncio.Future[Any]], *arguments: object
) -> asyncio.Future[Any]:
    """Read or write the first message of a stream; an error goes into the Future too."""
    try:
        channel = channel_of(stream)
    except RuntimeError:
        # In this thread a Future would be of no use.
        raise
    except Exception as error:
        future: asyncio.Future[Any] = current_loop().create_future()
        future.set_exception(error)
        return unobserved(future)
    return action(channel, *arguments)
