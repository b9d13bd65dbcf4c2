"""Remote servers, and the connections to them: reused, counted, never more than allowed."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from tornado.iostream import IOStream

from fastcore._futures import unobserved
from fastcore.addressing import Address, AddressLike, format_address, parse_address
from fastcore.client.calls import RemoteCall
from fastcore.errors import RPCClosed
from fastcore.transport.loops import current_loop, ignore_io_loop, run_in_thread_of
from fastcore.transport.streams import open_stream
from fastcore.transport.tornado import Channel, channel_of

__all__ = ["ConnectionPool", "RPCCall", "RemoteServer"]


class RemoteServer:
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
        ignore_io_loop(options)
        self.limit = limit
        self.timeout = timeout
        self.closed = False
        self._free: defaultdict[Address, list[Channel]] = defaultdict(list)
        self._taken: dict[Channel, Address] = {}
        self._options = options
        self._connecting = 0
        # Whether a connection is kept for the next call when one has ended.
        self._reuses = True
        # Who waits for a connection, first come first served.
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def open(self) -> int:
        """Connections that are open or being made."""
        return self._connecting + self.active + sum(map(len, self._free.values()))

    @property
    def active(self) -> int:
        """Connections that are in use."""
        return len(self._taken)

    @property
    def available(self) -> dict[Address, set[IOStream]]:
        """The open connections that are free, by address."""
        return {address: {channel.stream for channel in free} for address, free in self._free.items()}

    @property
    def occupied(self) -> dict[Address, set[IOStream]]:
        """The connections that are in use, by address."""
        occupied: defaultdict[Address, set[IOStream]] = defaultdict(set)
        for channel, address in list(self._taken.items()):
            occupied[address].add(channel.stream)
        return occupied

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
        self, address: Address, op: str, /, *, timeout: float | None = None, **message: Any
    ) -> RemoteCall:
        """Call an operation of a server, over a connection that is free or will be.

        Parameters
        ----------
        address : tuple of (str, int or None)
            Where the server is.
        op : str
            The operation.
        timeout : float, optional
            Seconds for the whole call.
        **message
            The handler's keywords.

        Returns
        -------
        asyncio.Future
            The reply. Holds the error where there is one.
        """
        message["op"] = op
        channel = self.take(address)
        if channel is not None:
            call = RemoteCall(loop=channel.loop)
            call.start(channel, self, message)
        else:
            loop = current_loop()
            call = RemoteCall(loop=loop)
            loop.create_task(self._connect_for(call, address, message))
        if timeout is not None:
            peer = format_address(address)
            error = TimeoutError(f"no answer to {op!r} from {peer} within {timeout:g} s")
            timer = call.get_loop().call_later(timeout, call.time_out, error)
            call.add_done_callback(lambda _: timer.cancel())
        return call

    async def _connect_for(self, call: RemoteCall, address: Address, message: dict[str, Any]) -> None:
        try:
            channel = channel_of(await self.acquire(address, self.timeout))
        except Exception as error:
            call.fail(error)
            return
        if call.done():
            self.release(channel)
        else:
            call.start(channel, self, message)

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
        loop = current_loop()
        task: asyncio.Task[IOStream] = loop.create_task(self.acquire((ip, port), timeout))
        task.add_done_callback(unobserved)
        return task

    async def acquire(self, address: Address, timeout: float) -> IOStream:
        """Do what :meth:`connect` does, as a coroutine."""
        if self._waiting:
            await self._wait()
        while (channel := self.take(address, out_of_turn=False)) is None and not self._make_room():
            await self._wait()
        if channel is not None:
            return channel.stream
        self._check_open(address)
        self._connecting += 1
        try:
            stream = await open_stream(*address, timeout, **self._options)
        except BaseException:
            self._wake_one()
            raise
        finally:
            self._connecting -= 1
        channel = self.add(address, stream)
        if self.closed:
            channel.close()
            self._check_open(address)
        return stream

    def _check_open(self, address: Address) -> None:
        if self.closed:
            raise RPCClosed(f"no connection to {format_address(address)}: whoever made them is closed")

    async def _wait(self) -> None:
        """Wait for a connection to become free, or for room to make one."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _make_room(self) -> bool:
        """Whether a connection may be made, if need be after closing a free one."""
        if self.limit is None or self.open < self.limit:
            return True
        for free in self._free.values():
            if free:
                free[0].close()
                return True
        return self.closed

    def add(self, address: Address, stream: IOStream) -> Channel:
        """Count an open stream among the pool's, as one in use."""
        channel = channel_of(stream)
        self._taken[channel] = address
        channel.on_lost = functools.partial(self._forget, address, channel)
        channel.is_idle = lambda: channel not in self._taken
        return channel

    def take(self, address: Address, out_of_turn: bool = True) -> Channel | None:
        """Take a free connection if there is one at once, and nobody else waits for it."""
        if out_of_turn and self._waiting:
            return None
        free = self._free[address]
        while free:
            channel = free[-1]
            if channel.in_step and not channel.loop.is_closed():
                self._taken[channel] = address
                return free.pop()
            # The server said something that nobody asked for, or the loop has ended.
            channel.close()
        return None

    def release(self, channel: Channel, in_step: bool = True) -> None:
        """Take a connection back, for reuse if it is in step."""
        if channel.lost is not None or channel.closing:
            return
        if not in_step or not self._reuses:
            channel.close()
            return
        self._free[self._taken.pop(channel)].append(channel)
        if self._waiting:
            self._wake_one()

    def collect(self) -> None:
        """Close the connections that are free."""
        for free in self._free.values():
            for channel in list(free):
                channel.close()

    def close(self) -> None:
        """Close all connections, and make no further ones."""
        self.closed = True
        self._reuses = False
        self.close_streams()
        while self._waiting:
            self._wake_one()

    def retire(self) -> None:
        """Keep no connection; calls under way have theirs until they have ended."""
        self._reuses = False
        for free in self._free.values():
            for channel in list(free):
                channel.close_from_any_thread()

    def close_streams(self) -> None:
        """Close all connections; a later call makes a new one.

        May be called from any thread. Outside the loop's it returns when the sockets are
        closed, or after a second if the loop is busy for so long.
        """
        for loop in {channel.loop for channel in self._channels()}:
            run_in_thread_of(loop, functools.partial(self._close_those_of, loop))

    def _close_those_of(self, loop: asyncio.AbstractEventLoop) -> None:
        for channel in self._channels():
            if channel.loop is loop:
                channel.close()

    def _channels(self) -> list[Channel]:
        return [channel for group in [*self._free.values(), self._taken] for channel in list(group)]

    def _forget(self, address: Address, channel: Channel) -> None:
        """Run when a connection has ended, whoever ended it."""
        if self._taken.pop(channel, None) is None:
            self._free[address].remove(channel)
        self._wake_one()
