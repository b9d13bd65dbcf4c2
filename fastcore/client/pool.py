"""Remote servers, and the connections to them: reused, counted, never more than allowed."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tornado.iostream import IOStream

from fastcore._channel import Channel
from fastcore._header import call_fields
from fastcore._wire import with_extra
from fastcore.addressing import Address, AddressLike, format_address, parse_address
from fastcore.client.calls import RemoteCall, StaysHere, check_arguments, too_late
from fastcore.client.connection import ClientConnection, closes
from fastcore.client.connections import Connections
from fastcore.client.middleware import start_within
from fastcore.limits import check_limit, check_seconds
from fastcore.middleware import CallDetails, Middleware, check_middleware
from fastcore.transport.connecting import StreamForOne, limits_of
from fastcore.transport.event_loop import Timer, current_loop, ignore_io_loop, in_thread_of, run_in_thread_of
from fastcore.transport.tornado import StreamTransport, channel_of

__all__ = ["ConnectionPool", "RPCCall", "RemoteServer"]


class RemoteServer(StaysHere):
    """A server at an address, whose operations are called like methods.

    Parameters
    ----------
    address : tuple of (str, int or None)
        Where it is.
    pool : ConnectionPool
        Where its connections come from.
    """

    def __init__(self, address: Address, pool: ConnectionPool) -> None:
        self.ip, self.port = self._address = address
        self._pool = pool

    @property
    def address(self) -> str:
        """``'ip:port'``."""
        return format_address(self._address)

    def __getattr__(self, op: str) -> Callable[..., RemoteCall]:
        if op.startswith("_"):
            raise AttributeError(f"{op!r}: a name with a leading underscore is no remote call")
        call = functools.partial(self._pool.call, self._address, op)
        # Found there the next time: not finding a name costs as much as sending a message.
        self.__dict__[op] = call
        return call


class RPCCall(RemoteServer):
    """A remote server that is called over the connections of a pool.

    Made by calling a :class:`ConnectionPool`.
    """

    def close_rpc(self) -> None:
        """Do nothing: the connections are the pool's."""

    def __repr__(self) -> str:
        return f"<RPCCall to {self.address} over {self._pool!r}>"


class ConnectionPool(StaysHere):
    """At most so many connections at once, to all servers together.

    Parameters
    ----------
    limit : int, optional
        Most connections that are open at a time in one event loop; without end if None. A
        call for which there is none closes a free one to another server, or waits until one
        is free. Who waits is served in the order of coming.
    timeout : float
        Seconds to wait for a connection: until it is made, or while no call that came
        earlier gets one.
    share : int
        Most connections that calls to one server share, if that numbers its answers. With 0
        each call that is under way has a connection of its own, as with a classic server.
    call_timeout : float, optional
        Seconds for each call that isn't given a ``timeout`` of its own.
    middleware : sequence of callable, optional
        Each is called as ``middleware(call)`` with a :class:`fastcore.CallDetails`, and gives a
        context manager that is around each call, until its last answer.
    **options
        As :func:`fastcore.connect` takes them: ``ssl_options``, ``compression``,
        ``writable_values``, limits.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import ConnectionPool, Server
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     pool = ConnectionPool(limit=2)
    ...     remote = pool(ip='127.0.0.1', port=server.port)
    ...     print(await asyncio.gather(*[remote.add(x=n, y=1) for n in range(5)]))
    ...     print(pool.active, pool.open <= 2)
    ...     pool.close()
    ...     server.stop()
    >>> asyncio.run(main())
    [1, 2, 3, 4, 5]
    0 True
    """

    def __init__(
        self,
        limit: int | None = 512,
        timeout: float = 3,
        *,
        share: int = 4,
        call_timeout: float | None = None,
        middleware: Sequence[Middleware] = (),
        **options: Any,
    ) -> None:
        ignore_io_loop(options)
        limits_of(ConnectionPool, options)
        check_limit("limit", limit, whole=True)
        check_limit("timeout", timeout, optional=False)
        check_limit("call_timeout", call_timeout)
        if share != 0 or isinstance(share, bool):
            check_limit("share", share, whole=True, optional=False)
        self.limit = limit
        self.timeout = timeout
        self.share = share
        self.call_timeout = call_timeout
        self.options = options
        self.closed = False
        #: Whether a connection is kept for the next call when one has ended.
        self.reuses = True
        self._in_loops: dict[asyncio.AbstractEventLoop, Connections] = {}
        #: The connection that the last call to a server has shared.
        self.current: dict[Address, ClientConnection] = {}
        self._thread = threading.get_ident()
        self._middleware = check_middleware(middleware)
        if self._middleware:
            # Without any, it isn't even asked for.
            self.call = self._call_within  # type: ignore[method-assign]

    @property
    def open(self) -> int:
        """Connections that are open or being made."""
        return sum(connections.open for connections in self._living())

    @property
    def active(self) -> int:
        """Connections that are in use."""
        return sum(bool(connection.calls) or connection.is_taken for _, connection in self._all())

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection."""
        return sum(connections.waiting for connections in self._living())

    @property
    def available(self) -> dict[Address, set[IOStream]]:
        """The open connections that are free, by address."""
        return self._streams(in_use=False)

    @property
    def occupied(self) -> dict[Address, set[IOStream]]:
        """The connections that are in use, by address."""
        return self._streams(in_use=True)

    def _streams(self, in_use: bool) -> dict[Address, set[IOStream]]:
        streams: defaultdict[Address, set[IOStream]] = defaultdict(set)
        for address, connection in self._all():
            if in_use is (bool(connection.calls) or connection.is_taken):
                stream = stream_of(connection.channel)
                if stream is not None:
                    streams[address].add(stream)
        return streams

    def _living(self) -> list[Connections]:
        """Give the connections by loop; those of loops that have ended went with them."""
        for loop in [loop for loop in [*self._in_loops] if loop.is_closed()]:
            connections = self._in_loops.pop(loop, None)
            if connections is not None:
                connections.close_all()
        return [*self._in_loops.values()]

    def _all(self) -> list[tuple[Address, ClientConnection]]:
        return [pair for connections in self._living() for pair in connections]

    def __repr__(self) -> str:
        return f"<ConnectionPool: open={self.open}, active={self.active}>"

    def __call__(
        self,
        arg: AddressLike | None = None,
        ip: str | bytes | None = None,
        port: int | None = None,
        addr: AddressLike | None = None,
    ) -> RPCCall:
        """Give the remote server at an address, which :class:`fastcore.rpc` takes too."""
        return RPCCall(parse_address(arg, addr=addr, ip=ip, port=port), self)

    def call(
        self, address: Address, op: str, /, *positional: Any, timeout: float | None = None, **message: Any
    ) -> RemoteCall:
        """Call an operation of a server, over a connection that is free or will be.

        Parameters
        ----------
        address : tuple of (str, int or None)
            Where the server is. Other forms of it, as :class:`fastcore.rpc` takes them, cost a look more.
        op : str
            The operation.
        *positional
            None: handlers are called by keyword.
        timeout : float, optional
            Seconds for the whole call.
        **message
            The handler's keywords.

        Raises
        ------
        TypeError
            If an argument has no keyword.

        Returns
        -------
        asyncio.Future
            The reply. Holds the error where there is one.
        """
        if positional or timeout is not None or "op" in message:
            check_arguments(op, positional, message, timeout)
        if timeout is None:
            timeout = self.call_timeout
        message["op"] = op
        connection = self.current.get(address)
        if connection is not None and (connection.calls or not connection.channel.is_ready()):
            # Another one may be better, if there is one at once.
            assert connection.keeper is not None
            connection = connection.keeper.shared(address)
            if connection is not None:
                self.current[address] = connection
        if connection is not None and "close" not in message and op != "close":
            call = RemoteCall(loop=connection.loop)
            # Its `start` does the rest of what `begin` does.
            call.parts = call.header = None
            if not connection.start(call, op, message):
                self._here().call(call, _address(address), message)
        else:
            address = _address(address)
            call = self.start(address, message)
        if timeout is not None:
            _limit(call, address, op, timeout)
        return call

    def _call_within(
        self, address: Address, op: str, /, *positional: Any, timeout: float | None = None, **message: Any
    ) -> RemoteCall:
        """As `call`, within the middleware."""
        check_arguments(op, positional, message, timeout)
        address = _address(address)

        def start(details: CallDetails) -> RemoteCall:
            call = self.start(address, {**details.keywords, "op": op}, details.header)
            seconds = self.call_timeout if timeout is None else timeout
            if seconds is not None:
                _limit(call, address, op, seconds)
            return call

        details = CallDetails(op, message, {}, format_address(address))
        return start_within(self._middleware, details, start)

    def start(
        self, address: Address, message: dict[str, Any], header: dict[str, Any] | None = None
    ) -> RemoteCall:
        """Do what :meth:`call` does, with the whole request and the rules of waiting."""
        loop = self._here().loop
        if header:
            # What can't be sent is told at once, and not when there is a connection.
            with_extra(call_fields(0), header)
        call = RemoteCall(loop=loop)
        call.begin(message.get("op"), None, header or None)
        self.begin(call, address, message)
        return call

    def begin(self, call: RemoteCall, address: Address, message: dict[str, Any]) -> None:
        """Have a call that somebody made begin, at once or when there is a connection."""
        connections = self._here()
        shared = connections.shared(address)
        if shared is None:
            connections.call(call, address, message)
            return
        self.current[address] = shared
        if closes(message) or not shared.start(call, message.get("op"), message):
            connections.call(call, address, message)

    def _here(self) -> Connections:
        """Give the connections of the loop that runs here, or that will."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if self._thread != threading.get_ident():
                raise RuntimeError(
                    "called from another thread than its own, in which no event loop runs; "
                    "have its loop do it: loop.call_soon_threadsafe(...)"
                ) from None
            loop = current_loop()
        connections = self._in_loops.get(loop)
        if connections is None:
            self._living()
            connections = self._of_loop(loop)
        return connections

    def _of_loop(self, loop: asyncio.AbstractEventLoop) -> Connections:
        """Give the connections of a loop: the same to all who come, whoever comes in between."""
        return self._in_loops.setdefault(loop, Connections(self, loop))

    def connect(self, ip: str, port: int | None, timeout: float | None = None) -> asyncio.Future[IOStream]:
        """Give a connection that nobody else uses until it is released or closed.

        Parameters
        ----------
        ip : str
            The host, or ``'unix:/path'``.
        port : int
            The port; None for a unix socket.
        timeout : float, optional
            Seconds to wait for it; the pool's ``timeout`` otherwise.

        Returns
        -------
        asyncio.Future
            The stream.

        Raises
        ------
        TypeError, ValueError
            At once: the timeout is none.
        RPCClosed
            In the Future: the pool is closed.
        ConnectionLost
            In the Future: there was no connection until the timeout.
        TimeoutError
            In the Future: all that there may be were in use until then.
        """
        connections = self._here()
        if timeout is not None:
            check_seconds("timeout", timeout)
        seconds = self.timeout if timeout is None else timeout
        return StreamForOne(self._connect(connections, (ip, port), seconds), self.release, connections.loop)

    async def _connect(self, connections: Connections, address: Address, timeout: float) -> IOStream:
        channel = (await connections.stream(address, timeout)).channel
        stream = stream_of(channel)
        if stream is None:
            # Since it was handed over.
            raise channel.lost_error()
        return stream

    def release(self, stream: IOStream) -> None:
        """Take a connection back that :meth:`connect` gave, for the calls to come.

        Raises
        ------
        ValueError
            If it isn't one of this pool's.
        """
        channel = channel_of(stream)
        # Held: whoever comes in between may close it, and it has no owner from then on.
        owner = channel.owner
        if channel.is_lost:
            return
        channel.check_here()
        for connections in self._living():
            if isinstance(owner, ClientConnection) and owner.keeper is connections:
                connections.release(owner)
                return
        if not channel.is_lost:
            raise ValueError(f"{stream!r} is no connection of {self!r}")

    def add(self, address: Address, stream: IOStream) -> None:
        """Take in an open stream, to be used first."""
        channel = channel_of(stream)
        self._of_loop(channel.loop).add(address, stream)

    def forget(self, connections: Connections) -> None:
        """Know no more of the connections of a loop, where all has ended."""
        if self._in_loops.get(connections.loop) is connections:
            self._in_loops.pop(connections.loop, None)

    def collect(self) -> None:
        """Close the connections that are free. May be called from any thread."""
        self._in_each_loop(Connections.close_free)

    def close(self) -> None:
        """Close all connections, and make no further ones."""
        self.closed = True
        self.reuses = False
        self._in_each_loop(Connections.end)

    def retire(self) -> None:
        """Keep no connection; calls under way have theirs until they have ended.

        In the next turn of the loop: a call that is being made over an rpc that nobody keeps,
        as in ``rpc(stream=stream).op()``, begins in this one.
        """
        self.reuses = False
        self.current.clear()
        for connections in self._living():
            if connections.loop.is_running():
                connections.loop.call_soon_threadsafe(connections.close_free)
            elif in_thread_of(connections.loop):
                connections.close_free()

    def close_streams(self) -> None:
        """Close all connections; a later call makes a new one.

        May be called from any thread. Outside the loop's it returns when the sockets are
        closed, or after a second if the loop is busy for so long.
        """
        self._in_each_loop(Connections.close_all)

    def _in_each_loop(self, action: Callable[[Connections], None]) -> None:
        self.current.clear()
        for connections in self._living():
            run_in_thread_of(connections.loop, functools.partial(action, connections))


def _address(given: Any) -> Address:
    """Give an address, which it mostly is: a wrong one would be found out where nobody hears of it."""
    return given if type(given) is tuple and len(given) == 2 else parse_address(given)


def _limit(call: RemoteCall, address: Address, op: str, seconds: float) -> None:
    """Give a call up when it takes too long."""
    error = too_late(op, format_address(address), seconds)
    loop = call.get_loop()
    timer = Timer(loop, loop.time() + seconds, call.time_out, error)
    call.add_done_callback(lambda _: timer.cancel())


def stream_of(channel: Channel) -> IOStream | None:
    """Give the stream that carries a connection of a pool; None once that has ended."""
    transport = channel.transport
    return transport.stream if isinstance(transport, StreamTransport) else None
