"""``connect``: from an address to an open stream."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any, Final

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.netutil import ssl_wrap_socket

from fastcore._futures import unobserved
from fastcore.addressing import UNIX_SCHEME, Address, format_address, parse_address, unix_family
from fastcore.compressions import check_compression
from fastcore.errors import ConnectionLost
from fastcore.limits import Limits
from fastcore.transport.event_loop import current_loop, ignore_io_loop
from fastcore.transport.tls import explain
from fastcore.transport.tornado import channel_of

__all__ = ["check_options", "connect", "open_stream"]

#: Seconds before a refused connection is tried again, at first and at the most.
_RETRY: Final = 0.02
_LONGEST_RETRY: Final = 0.25
#: Seconds before the next address of a host is tried beside one that doesn't answer.
_NEXT_ADDRESS: Final = 0.25


def connect(
    ip: str | bytes,
    port: int | None = None,
    timeout: float = 3,
    *,
    ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
    compression: str | None = None,
    writable_values: bool = False,
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
    writable_values : bool
        Whether binary values of 64 KiB and more are read as ``bytearray`` instead of
        ``bytes``: ``numpy.frombuffer(value)`` can be written to then, without a copy.
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
    connecting = open_stream(
        ip,
        port,
        timeout,
        ssl_options=ssl_options,
        compression=compression,
        writable_values=writable_values,
        **limits,
    )
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
    writable_values: bool = False,
    **limits: Any,
) -> IOStream:
    """Do what :func:`connect` does, as a coroutine: cancelled, it leaves no socket behind."""
    address = parse_address(ip=ip, port=port)
    settings = Limits(**limits)
    check_compression(compression)
    reason: BaseException | None = None
    pause = _RETRY
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    stream = await _open(address, ssl_options)
                except (ConnectionRefusedError, FileNotFoundError) as error:
                    # The server may be about to listen.
                    reason = error
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_RETRY)
                else:
                    channel_of(stream, settings, compression, writable_values)
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
    """Try the host's addresses, each a moment after the one before; leave no socket behind.

    Where one of them leads nowhere, the next isn't kept waiting for it: RFC 8305.
    """
    targets = await _resolve(address)
    if len(targets) == 1:
        return await _connect_socket(*targets[0])
    loop = asyncio.get_running_loop()
    attempts: set[asyncio.Task[socket.socket]] = set()
    reason: BaseException | None = None
    try:
        while targets or attempts:
            if targets:
                attempts.add(loop.create_task(_connect_socket(*targets.pop(0))))
            wait = _NEXT_ADDRESS if targets else None
            done, attempts = await asyncio.wait(attempts, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                if attempt.exception() is None:
                    return _keep(attempt, done)
                reason = attempt.exception()
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close_result)
    raise reason or OSError(f"{address[0]} has no address")


def _keep(winner: asyncio.Task[socket.socket], done: set[asyncio.Task[socket.socket]]) -> socket.socket:
    for other in done - {winner}:
        _close_result(other)
    return winner.result()


def _close_result(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect_socket(family: int, target: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, target)
        if family != getattr(socket, "AF_UNIX", None) and sock.getsockname() == sock.getpeername():
            # Where nobody listens, TCP can connect a port to itself.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
    except BaseException:
        sock.close()
        raise
    return sock


def check_options(options: dict[str, Any]) -> None:
    """Raise the error for keywords that :func:`connect` doesn't take, before they are needed."""
    others = ("ssl_options", "compression", "writable_values")
    Limits(**{key: value for key, value in options.items() if key not in others})
    check_compression(options.get("compression"))


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
