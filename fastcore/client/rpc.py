"""Calling a server: ``rpc`` for many calls, ``send_recv`` for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from tornado.iostream import IOStream

from fastcore._channel import Channel
from fastcore.addressing import Address, AddressLike, parse_address
from fastcore.client.calls import RemoteCall
from fastcore.client.connection import connection_of
from fastcore.client.pool import ConnectionPool, RemoteServer
from fastcore.middleware import Middleware
from fastcore.transport.connecting import limits_of
from fastcore.transport.event_loop import ignore_io_loop
from fastcore.transport.tornado import channel_of

__all__ = ["rpc", "send_recv"]


class rpc(RemoteServer):
    """A remote server, whose operations are called like methods.

    ``await remote.add(x=1, y=2)`` sends ``{'op': 'add', 'x': 1, 'y': 2}`` and gives the
    reply. Calls may overlap: those to a server that numbers its answers share a few
    connections, to a classic one each takes one of its own and leaves it for reuse.
    ``timeout=`` is for the call itself, in seconds: after it the call raises TimeoutError, and
    the handler is cancelled, or the connection closed where the server knows no numbers.
    ``async for value in remote.op()`` gives the answers of a handler that yields them. Any
    name without a leading underscore is a remote operation, but for the few that are
    documented here.

    Parameters
    ----------
    arg, addr : str, bytes or tuple, optional
        Where the server is: ``'ip:port'``, ``('ip', port)``, ``'unix:/path'``.
    stream : tornado.iostream.IOStream, optional
        An open stream to it, to be used first.
    ip, port : optional
        Where the server is, in two parts.
    timeout : float
        Seconds to wait for a connection.
    limit, share, call_timeout, middleware : optional
        As :class:`fastcore.ConnectionPool` takes them.
    **options
        As :func:`fastcore.connect` takes them: ``ssl_options``, ``token``, ``compression``,
        ``writable_values``, limits.

    Attributes
    ----------
    ip : str
        As given, or taken out of an address; likewise ``port``, ``address`` and ``timeout``.
    status : str
        ``'running'`` or ``'closed'``.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, rpc
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     async with rpc(ip='127.0.0.1', port=server.port) as remote:
    ...         print(await remote.add(x=1, y=2))
    ...     server.stop()
    >>> asyncio.run(main())
    3
    """

    # __del__ runs even where __init__ refused its arguments.
    status = "closed"

    def __init__(
        self,
        arg: AddressLike | None = None,
        stream: IOStream | None = None,
        ip: str | bytes | None = None,
        port: int | None = None,
        addr: AddressLike | None = None,
        timeout: float = 3,
        *,
        limit: int | None = 512,
        share: int = 4,
        call_timeout: float | None = None,
        middleware: Sequence[Middleware] = (),
        **options: Any,
    ) -> None:
        ignore_io_loop(options)
        limits_of(rpc, options)
        if stream is not None and (arg, ip, addr) == (None, None, None):
            address = address_of(channel_of(stream))
        else:
            address = parse_address(arg, addr=addr, ip=ip, port=port)
        options |= {"share": share, "call_timeout": call_timeout, "middleware": middleware}
        super().__init__(address, ConnectionPool(limit, timeout, **options))
        if stream is not None:
            self._pool.add(address, stream)
        self.status = "running"

    @property
    def timeout(self) -> float:
        """Seconds to wait for a connection."""
        return self._pool.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._pool.timeout = seconds

    @property
    def streams(self) -> dict[IOStream, bool]:
        """The open streams, and whether each is free."""
        free = self._pool.available.get(self._address, set())
        taken = self._pool.occupied.get(self._address, set())
        return dict.fromkeys(free, True) | dict.fromkeys(taken, False)

    def close_streams(self) -> None:
        """Close all connections; a later call makes a new one.

        May be called from any thread. Outside the loop's it returns when the sockets are
        closed, or after a second if the loop is busy for so long.
        """
        self._pool.close_streams()

    def close_rpc(self) -> None:
        """Close all connections for good; a later call raises RPCClosed."""
        if self.status != "closed":
            self.status = "closed"
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_rpc()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close_rpc()

    def __del__(self) -> None:
        # `rpc(address).op()` drops the rpc while its call is under way.
        if self.status != "closed":
            self._pool.retire()

    def __repr__(self) -> str:
        streams = self.streams
        return (
            f"<rpc to {self.address}: {self.status}, "
            f"{len(streams)} connections, {sum(streams.values())} free>"
        )


def address_of(channel: Channel) -> Address:
    """Give the address of an open stream's peer; one without a port, such as a socketpair's, has none."""
    try:
        return parse_address(channel.peer)
    except ValueError:
        return channel.peer, None


def send_recv(
    stream: IOStream | None = None,
    arg: AddressLike | None = None,
    ip: str | bytes | None = None,
    port: int | None = None,
    addr: AddressLike | None = None,
    reply: bool = True,
    **msg: Any,
) -> RemoteCall:
    """Send one request and give the Future of its reply.

    Parameters
    ----------
    stream : tornado.iostream.IOStream, optional
        An open stream; it stays open. Without one, a connection is made for this call.
    arg, ip, port, addr : optional
        Where the server is, as :class:`fastcore.rpc` takes it.
    reply : bool
        False asks for no reply; the Future is done when the request was sent.
    **msg
        The request: ``op`` and the handler's keywords. ``close=True`` closes the
        connection after the reply, at both ends.

    Returns
    -------
    asyncio.Future
        The reply. Holds the handler's exception where it raised one.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, send_recv
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     print(await send_recv(ip='127.0.0.1', port=server.port, op='add', x=1, y=2))
    ...     server.stop()
    >>> asyncio.run(main())
    3
    """
    message = {**msg, "reply": reply}
    if stream is not None:
        channel = channel_of(stream)
        # Elsewhere its Future would be of no use.
        channel.check_here()
        call = RemoteCall(loop=channel.loop)
        call.begin(message.get("op"), None)
        try:
            connection = connection_of(channel)
            if connection.calls and not connection.numbers:
                raise channel.busy_error()
            connection.start_here(call, message.get("op"), message)
        except Exception as error:
            call.fail(error)
        return call
    address = parse_address(arg, addr=addr, ip=ip, port=port)
    pool = ConnectionPool(1, share=0)
    pool.reuses = False
    return pool.start(address, message)
