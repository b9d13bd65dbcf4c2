"""The connections of clients: reused, counted, and never more than allowed."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict, deque
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from fastcore.addressing import Address, AddressLike, format_address, parse_address
from fastcore.calls import RemoteServer
from fastcore.channel import channel_of, unobserved
from fastcore.errors import RPCClosed
from fastcore.streams import connect

__all__ = ["ConnectionPool", "RPCCall"]


class RPCCall(RemoteServer):
    """A remote server that is called over the connections of a pool.

    Made by calling a :class:`ConnectionPool`.
    """

    def close_rpc(self) -> None:
        """Do nothing: the connections are the pool's."""

    def __repr__(self) -> str:
        return f"<RPCCall to {self.address} over {self._pool!r}>"


class ConnectionPool:
    """At most so many connections at once, to all servers together.

    Parameters
    ----------
    limit : int, optional
        Most connections that are open at a time; without end if None. A call for which
        there is none closes a free one to another server, or waits until one is free.
    timeout : float
        Seconds to wait for a connection.
    **options
        As :func:`fastcore.connect` takes them: ``ssl_options``, ``compression``, limits.

    Attributes
    ----------
    available, occupied : dict of (ip, port) to set of IOStream
        The open connections that are free, and those that are in use.

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
    ...     print(pool)
    ...     pool.close()
    ...     server.stop()
    >>> asyncio.run(main())
    [1, 2, 3, 4, 5]
    <ConnectionPool: open=2, active=0>
    """

    def __init__(self, limit: int | None = 512, timeout: float = 3, **options: Any) -> None:
        self.limit = limit
        self.timeout = timeout
        self.available: defaultdict[Address, set[IOStream]] = defaultdict(set)
        self.occupied: defaultdict[Address, set[IOStream]] = defaultdict(set)
        self.closed = False
        self._options = options
        self._connecting = 0
        # Who waits for a connection, first come first served.
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def open(self) -> int:
        """Connections that are open or being made."""
        return self._connecting + _count(self.available) + _count(self.occupied)

    @property
    def active(self) -> int:
        """Connections that are in use."""
        return _count(self.occupied)

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
        return RPCCall(parse_address(arg, addr=addr, ip=ip, port=port), self, self.timeout)

    def connect(self, ip: str, port: int | None, timeout: float = 3) -> asyncio.Future[IOStream]:
        """Give a connection that nobody else uses until it is released or closed.

        Returns
        -------
        asyncio.Future
            The stream.

        Raises
        ------
        RPCClosed
            In the Future: the pool is closed.
        ConnectionLost
            In the Future: there was no connection until the timeout.
        """
        loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]
        task: asyncio.Task[IOStream] = loop.create_task(self._connect((ip, port), timeout))
        task.add_done_callback(unobserved)
        return task

    async def _connect(self, address: Address, timeout: float) -> IOStream:
        if self._waiting:
            await self._wait()
        while (stream := self._take_free(address)) is None and not self._make_room():
            await self._wait()
        if stream is not None:
            return stream
        if self.closed:
            raise RPCClosed(f"no connection to {format_address(address)}: its owner is closed")
        self._connecting += 1
        try:
            stream = await connect(*address, timeout, **self._options)
        except BaseException:
            self._wake_one()
            raise
        finally:
            self._connecting -= 1
        self.add(address, stream)
        if self.closed:
            stream.close()
            raise RPCClosed(f"no connection to {format_address(address)}: its owner was closed")
        return stream

    async def _wait(self) -> None:
        """Wait for a connection to become free, or for room to make one."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)

    def _make_room(self) -> bool:
        """Whether a connection may be made, if need be after closing a free one."""
        if self.limit is None or self.open < self.limit:
            return True
        for streams in self.available.values():
            if streams:
                channel_of(streams.pop()).close()
                return True
        return False

    def add(self, address: Address, stream: IOStream) -> None:
        """Count an open stream among the pool's, as one in use."""
        self.occupied[address].add(stream)
        channel_of(stream).on_lost = functools.partial(self._forget, address, stream)

    def take(self, address: Address) -> IOStream | None:
        """Take a free connection if there is one at once, and nobody waits for it."""
        return None if self._waiting else self._take_free(address)

    def _take_free(self, address: Address) -> IOStream | None:
        free = self.available[address]
        while free:
            stream = free.pop()
            channel = channel_of(stream)
            if channel.lost is None and not channel.unread and not channel.loop.is_closed():
                self.occupied[address].add(stream)
                return stream
            # The server has closed it, or said something that nobody asked for.
            channel.close()
        return None

    def release(self, address: Address, stream: IOStream, in_step: bool = True) -> None:
        """Take a connection back, for reuse if it is in step."""
        self.occupied[address].discard(stream)
        channel = channel_of(stream)
        if in_step and not self.closed and channel.lost is None:
            self.available[address].add(stream)
        elif not channel.closing:
            channel.close()
        self._wake_one()

    def collect(self) -> None:
        """Close the connections that are free."""
        for streams in self.available.values():
            while streams:
                channel_of(streams.pop()).close()

    def close(self) -> None:
        """Close all connections, and make no further ones."""
        self.closed = True
        self.close_streams()

    def close_streams(self) -> None:
        """Close all connections; a later call makes a new one. May be called from any thread."""
        for by_address in (self.available, self.occupied):
            for streams in list(by_address.values()):
                for stream in list(streams):
                    channel_of(stream).close_from_any_thread()

    def _forget(self, address: Address, stream: IOStream) -> None:
        """Run when a connection has closed, whoever closed it."""
        self.available[address].discard(stream)
        self.occupied[address].discard(stream)
        self._wake_one()


def _count(by_address: dict[Address, set[IOStream]]) -> int:
    return sum(not stream.closed() for streams in by_address.values() for stream in streams)
