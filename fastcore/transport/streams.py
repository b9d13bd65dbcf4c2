"""``read``, ``write``, ``connect``: the thin coroutines over Tornado's streams."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.netutil import ssl_wrap_socket

from fastcore._futures import unobserved
from fastcore.addressing import UNIX_SCHEME, Address, format_address, parse_address, unix_family
from fastcore.errors import ConnectionLost
from fastcore.limits import Limits
from fastcore.transport.loops import current_loop, ignore_io_loop
from fastcore.transport.tls import explain
from fastcore.transport.tornado import Channel, channel_of

__all__ = ["connect", "messages", "read", "write"]

#: Seconds before a refused connection is tried again.
_RETRY = 0.02


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
        channel: Channel = stream._fastcore_channel  # type: ignore[attr-defined]
    except AttributeError:
        return _begin(stream, Channel.read)
    return channel.read()


async def messages(stream: IOStream) -> AsyncIterator[Any]:
    """Iterate over the messages of a stream, until the peer closes it.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        Any open stream.

    Yields
    ------
    object
        Each message.

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
    while True:
        try:
            message = await read(stream)
        except ConnectionLost as error:
            if error.real_error is None and not channel_of(stream).unread:
                return
            raise
        yield message


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
    TypeError, ValueError, OverflowError
        In the Future: the message can't be expressed. Nothing was sent.
    ConnectionLost
        In the Future: the connection has ended.

    Examples
    --------
    See :func:`read`.
    """
    try:
        channel: Channel = stream._fastcore_channel  # type: ignore[attr-defined]
    except AttributeError:
        return _begin(stream, Channel.write, msg)
    return channel.write(msg)


def _begin(
    stream: IOStream, action: Callable[..., asyncio.Future[Any]], *arguments: object
) -> asyncio.Future[Any]:
    """Read or write the first message of a stream; an error goes into the Future too."""
    try:
        channel = channel_of(stream)
    except Exception as error:
        future: asyncio.Future[Any] = current_loop().create_future()
        future.set_exception(error)
        return unobserved(future)
    return action(channel, *arguments)


def connect(
    ip: str | bytes,
    port: int | None = None,
    timeout: float = 3,
    *,
    ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
    compression: str | None = None,
    **limits: Any,
) -> asyncio.Future[IOStream]:
    """Connect to a server. Tries again while the port refuses, until the timeout.

    Parameters
    ----------
    ip : str
        Host name or address; ``'unix:/path'`` for a unix socket.
    port : int, optional
        The port; not for a unix socket.
    timeout : float
        Seconds.
    ssl_options : ssl.SSLContext or dict, optional
        Connect with TLS.
    compression : str, optional
        Compress what is written to the stream: ``'zlib'``, ``'lz4'`` or ``'snappy'``.
    **limits
        The fields of :class:`fastcore.limits.Limits`.

    Returns
    -------
    asyncio.Future
        The open ``IOStream``, with TCP_NODELAY set.

    Raises
    ------
    ConnectionLost
        In the Future: there was no connection until the timeout. It is a
        ``StreamClosedError`` and so an ``IOError``; its text names ip, port and timeout.

    Examples
    --------
    See :func:`read`.
    """
    ignore_io_loop(limits)
    loop = current_loop()
    connecting = open_stream(ip, port, timeout, ssl_options=ssl_options, compression=compression, **limits)
    task: asyncio.Task[IOStream] = loop.create_task(connecting)
    task.add_done_callback(unobserved)
    return task


async def open_stream(
    ip: str | bytes,
    port: int | None,
    timeout: float,
    *,
    ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
    compression: str | None = None,
    **limits: Any,
) -> IOStream:
    """Do what :func:`connect` does, as a coroutine: cancelled, it leaves no socket behind."""
    address = parse_address(ip=ip, port=port)
    settings = Limits(**limits)
    reason: BaseException | None = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    stream = await _open(address, ssl_options)
                except (ConnectionRefusedError, FileNotFoundError) as error:
                    # The server may be about to listen.
                    reason = error
                    await asyncio.sleep(_RETRY)
                else:
                    channel_of(stream, settings, compression)
                    return stream
    except TimeoutError:
        raise _not_connected(address, f"not within {timeout:g} s", reason) from reason
    except (OSError, StreamClosedError) as error:
        raise _not_connected(address, f"timeout {timeout:g} s", error) from error


def _not_connected(address: Address, when: str, reason: BaseException | None) -> ConnectionLost:
    why = explain(reason)
    return ConnectionLost(
        f"could not connect to {format_address(address)}, {when}{': ' + why if why else ''}", reason
    )


async def _open(address: Address, ssl_options: dict[str, Any] | ssl.SSLContext | None) -> IOStream:
    host, _ = address
    sock = await _open_socket(address)
    if ssl_options is None:
        stream = IOStream(sock)
        stream.set_nodelay(True)
        return stream
    sock = ssl_wrap_socket(
        sock, ssl_options, server_hostname=host, server_side=False, do_handshake_on_connect=False
    )
    secure = SSLIOStream(sock, ssl_options=ssl_options)
    secure.set_nodelay(True)
    try:
        await secure.wait_for_handshake()
    except BaseException:
        secure.close()
        raise
    return secure


async def _open_socket(address: Address) -> socket.socket:
    """Try the host's addresses one after the other; leave no socket behind, even if cancelled."""
    loop = asyncio.get_running_loop()
    reason: OSError | None = None
    for family, target in await _resolve(address):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, target)
        except OSError as error:
            sock.close()
            reason = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise reason or OSError(f"{address[0]} has no address")


async def _resolve(address: Address) -> list[tuple[int, Any]]:
    host, port = address
    if port is None:
        return [(unix_family(host), host.removeprefix(UNIX_SCHEME))]
    try:
        # A numeric address needs no look-up, and so no thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, target) for family, _, _, _, target in found]
