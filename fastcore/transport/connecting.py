"""``connect``: from an address to an open stream."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
from collections.abc import Callable, Coroutine, Generator
from itertools import zip_longest
from typing import Any, Final

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.netutil import ssl_wrap_socket

from fastcore._channel import Channel
from fastcore._futures import set_error, set_value, unobserved
from fastcore.addressing import UNIX_SCHEME, Address, format_address, parse_address, unix_family
from fastcore.compressions import check_compression
from fastcore.errors import ConnectionLost
from fastcore.limits import Limits, check_flag, check_keywords, check_seconds
from fastcore.logs import get_logger, in_one_line
from fastcore.tokens import check_token, greeting, is_public, refusal
from fastcore.transport.event_loop import current_loop, ignore_io_loop, patience
from fastcore.transport.tls import certified_name, check_ssl_options, explain
from fastcore.transport.tornado import channel_of, socket_of

__all__ = [
    "MAX_RETRY",
    "NEXT_ADDRESS",
    "RETRY",
    "StreamForOne",
    "connect",
    "limits_of",
    "more_hopeful",
    "not_connected",
    "open_stream",
    "targets_of",
    "tell_if_in_clear",
]

logger = get_logger("fastcore.client")

#: What `connect` takes beside the limits.
_OPTIONS: Final = ("ssl_options", "compression", "token", "writable_values")

#: Seconds before a refused connection is tried again, at first and at the most.
RETRY: Final = 0.02
MAX_RETRY: Final = 0.25
#: Seconds before the next address of a host is tried beside one that doesn't answer.
NEXT_ADDRESS: Final = 0.25


class StreamForOne(asyncio.Future[IOStream]):
    """A connection for somebody; it goes back where he has been cancelled when it comes.

    A task can be cancelled between the result of what it waits for and its own next step. What it
    waited for is done by then, and hears nothing of that.

    Parameters
    ----------
    making : coroutine
        Makes the connection.
    give_back : callable
        Called with a connection that nobody took.
    loop : asyncio.AbstractEventLoop
        Where it is made.
    """

    def __init__(
        self,
        making: Coroutine[Any, Any, IOStream],
        give_back: Callable[[IOStream], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self._give_back = give_back
        self._task = loop.create_task(making)
        self._task.add_done_callback(self._made)
        self.add_done_callback(unobserved)

    def _made(self, task: asyncio.Task[IOStream]) -> None:
        if task.cancelled():
            super().cancel()
        elif (error := task.exception()) is not None:
            set_error(self, error)
        else:
            set_value(self, task.result())
            if self.cancelled():
                self._give_back(task.result())

    def __await__(self) -> Generator[Any, None, IOStream]:
        try:
            return (yield from super().__await__())
        except asyncio.CancelledError:
            if self.done() and not self.cancelled() and self.exception() is None:
                self._give_back(self.result())
            raise
        finally:
            # An error knows the frames that it has passed; with this one it would know whom it is kept by.
            del self

    __iter__ = __await__

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the connection up, and the making of it."""
        if not super().cancel(msg):
            return False
        self._task.cancel()
        return True


def connect(
    ip: str | bytes,
    port: int | None = None,
    timeout: float = 3,
    *,
    ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
    compression: str | None = None,
    token: str | None = None,
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
    token : str, optional
        Shown to the server before anything else; a server that asks for none takes any.
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
    PermissionError
        In the Future: the server doesn't take the token.

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
        token=token,
        writable_values=writable_values,
        **limits,
    )
    return StreamForOne(connecting, IOStream.close, loop)


async def open_stream(
    ip: str | bytes,
    port: int | None,
    timeout: float,
    *,
    ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
    compression: str | None = None,
    token: str | None = None,
    writable_values: bool = False,
    **limits: Any,
) -> IOStream:
    """Do what :func:`connect` does, as a coroutine: cancelled, it leaves no socket behind."""
    address = parse_address(ip=ip, port=port)
    check_seconds("timeout", timeout)
    options = {"ssl_options": ssl_options, "compression": compression, "token": token}
    settings = limits_of(connect, {**limits, **options, "writable_values": writable_values})
    reason: BaseException | None = None
    refused: BaseException | None = None
    is_late = False
    pause = RETRY
    try:
        async with patience(timeout):
            while True:
                try:
                    stream = await _open(address, ssl_options)
                    peer = format_address(address)
                    channel = channel_of(stream, settings, compression, writable_values, peer=peer)
                    if isinstance(stream, SSLIOStream):
                        await _shake_hands(stream)
                    break
                except (ConnectionRefusedError, FileNotFoundError) as error:
                    # The server may be about to listen. The error's frames know who keeps it.
                    error.__traceback__ = None
                    reason = error
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, MAX_RETRY)
            refused = None if token is None else await _greet(channel, stream, token)
    except TimeoutError:
        # What has led here knows the task, and so would the error know whose it is, if it were raised here.
        is_late = True
    except (OSError, StreamClosedError, UnicodeError) as error:
        # The last one: a name that can't be asked for. The stream knows the error, and its frames the stream.
        error.__traceback__ = None
        raise not_connected(address, f"timeout {timeout:g} s", error) from error
    if is_late:
        raise not_connected(address, f"not within {timeout:g} s", reason) from reason
    if refused is not None:
        try:
            raise refused
        finally:
            del refused
    return stream


async def _greet(channel: Channel, stream: IOStream, token: str) -> BaseException | None:
    """Show the token; give the error that the server answers, if it doesn't take it."""
    refused: BaseException | None = None
    try:
        if not isinstance(stream, SSLIOStream):
            tell_if_in_clear(socket_of(stream).getpeername())
        channel.send(greeting(token))
        refused = refusal(await channel.read(), channel.peer)
    except ConnectionLost as error:
        raise ConnectionLost(
            f"{error.args[0]}, instead of an answer to the token", error.real_error
        ) from None
    except BaseException:
        stream.close()
        raise
    if refused is not None:
        stream.close()
    return refused


@functools.lru_cache(maxsize=256)
def tell_if_in_clear(name: object) -> None:
    """Say once of each peer, by its socket's name, that the token for it can be read on the way."""
    if isinstance(name, tuple) and is_public(name[0]):
        logger.warning(
            "the token for %s goes over the network in clear, and whoever listens there has it: "
            "pass ssl_options=",
            format_address(name[:2]),
        )


def not_connected(address: Address, when: str, reason: BaseException | None) -> ConnectionLost:
    """Make the error for an address that there is no connection to."""
    why = explain(reason)
    return ConnectionLost(
        f"could not connect to {in_one_line(format_address(address))}, {when}{': ' + why if why else ''}",
        reason,
    )


async def _open(address: Address, ssl_options: dict[str, Any] | ssl.SSLContext | None) -> IOStream:
    sock = await _open_socket(address)
    if ssl_options is None:
        stream = IOStream(sock)
    else:
        sock = ssl_wrap_socket(
            sock,
            ssl_options,
            server_hostname=certified_name(address[0]),
            server_side=False,
            do_handshake_on_connect=False,
        )
        stream = SSLIOStream(sock, ssl_options=ssl_options)
    stream.set_nodelay(True)
    return stream


async def _shake_hands(stream: SSLIOStream) -> None:
    try:
        await stream.wait_for_handshake()
    except BaseException:
        stream.close()
        raise


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
            wait = NEXT_ADDRESS if targets else None
            done, attempts = await asyncio.wait(attempts, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                if attempt.exception() is None:
                    return _keep(attempt, done)
                reason = more_hopeful(reason, attempt.exception())
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close_result)
    raise reason or OSError(f"{address[0]} has no address")


def more_hopeful(one: BaseException | None, other: BaseException | None) -> BaseException | None:
    """Give which of the errors of two addresses may be over soon: that of a server about to listen."""
    return one if isinstance(one, ConnectionRefusedError) else other


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
    if family == socket.AF_INET6 and target[3]:
        # uvloop asks for host and port alone to be resolved, and the interface would be lost.
        target = f"{target[0]}%{target[3]}", target[1]
    try:
        await asyncio.get_running_loop().sock_connect(sock, target)
        if family != getattr(socket, "AF_UNIX", None) and sock.getsockname() == sock.getpeername():
            # Where nobody listens, TCP can connect a port to itself.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
    except BaseException:
        sock.close()
        raise
    return sock


def limits_of(function: Callable[..., Any], options: dict[str, Any]) -> Limits:
    """Give the limits among the options that :func:`connect` takes; raise if there are others, or wrong ones.

    Parameters
    ----------
    function : callable
        Whoever was called with them, beside the keywords of his own.
    options : dict
        As given.
    """
    check_keywords(function, options, [*_OPTIONS, *Limits.names()])
    check_ssl_options(options.get("ssl_options"))
    check_compression(options.get("compression"))
    check_flag("writable_values", options.get("writable_values", False))
    if options.get("token") is not None:
        check_token(options["token"])
    return Limits.taken_from({**options})


async def _resolve(address: Address) -> list[tuple[int, Any]]:
    host, port = address
    if port is None:
        return [(unix_family(host), host.removeprefix(UNIX_SCHEME))]
    try:
        # A numeric address needs no look-up, and so no thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except RuntimeError:
            # There are no more threads: the interpreter is about to end.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return targets_of(found)


def targets_of(found: list[tuple[Any, ...]]) -> list[tuple[int, Any]]:
    """Give the addresses of a host so that those of IPv6 and IPv4 take turns, beginning with the first.

    Where one of the two leads nowhere, all its addresses would use up the time before the other is tried.
    """
    families: dict[int, list[tuple[int, Any]]] = {}
    for family, _, _, _, target in found:
        families.setdefault(family, []).append((family, target))
    return [each for turn in zip_longest(*families.values()) for each in turn if each is not None]
