"""``Server``: handlers, called by the messages of strangers.

Here is what all connections share: where they come from, how many there may be, what
is told of them, and their common end. What happens on one is in ``connections``.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, get_args

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from fastcore.addressing import UNIX_SCHEME
from fastcore.errors import LimitReached
from fastcore.limits import MAX_BUFFER_SIZE, Limits, check_limit
from fastcore.logs import get_logger
from fastcore.remote_errors import Detail, error_reply
from fastcore.server.accepting import Acceptor, bind_unix
from fastcore.server.connection import Connection
from fastcore.server.figures import ServerStats
from fastcore.transport.loops import ignore_io_loop
from fastcore.transport.refusal import refuse
from fastcore.transport.tls import explain
from fastcore.transport.tornado import Channel, channel_of

__all__ = ["Server"]

logger = get_logger("fastcore.server")

#: Connections too many that are told so at a time; those beyond are closed at once.
_TURNED_AWAY = 100

Handler = Callable[..., Any]


class Server(TCPServer):
    """A TCP server that calls handlers by name.

    Meant to be subclassed: a worker, a scheduler, a nanny each is a Server with handlers
    and a state of its own.

    Parameters
    ----------
    handlers : dict of str to callable
        A handler is called as ``handler(stream, **message)``, without ``op``, ``reply``
        and ``close``. It returns the reply, or something to await that gives it. It may
        read from the stream and write to it for as long as it likes.
    max_buffer_size : int
        Most bytes in one incoming message.
    compression : str, optional
        Compress what is sent: ``'zlib'``, ``'lz4'`` or ``'snappy'``.
    max_connections : int, optional
        Most connections that are open at a time.
    error_detail : str
        What an error reply tells of a handler's error: ``'traceback'``, ``'message'`` or
        ``'type'``. The log has all of it in any case.
    slow_handler : float, optional
        Seconds after which a handler that blocks the loop is named in the log.
    **kwargs
        The other fields of :class:`fastcore.limits.Limits`, and what
        ``tornado.tcpserver.TCPServer`` takes, such as ``ssl_options``.

    Attributes
    ----------
    handlers : dict
        By op; may be changed while the server runs.
    id : str
        Different for each server.
    default_port : int
        The port that ``listen()`` takes.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, rpc
    >>> class Counter(Server):
    ...     def __init__(self):
    ...         self.count = 0
    ...         super().__init__({'increment': self.increment})
    ...
    ...     def increment(self, stream, by=1):
    ...         self.count += by
    ...         return self.count
    >>> async def main():
    ...     counter = Counter()
    ...     counter.listen(0, '127.0.0.1')
    ...     async with rpc(ip='127.0.0.1', port=counter.port) as remote:
    ...         await remote.increment()
    ...         print(await remote.increment(by=10))
    ...     counter.stop()
    >>> asyncio.run(main())
    11
    """

    default_port = 0

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        max_buffer_size: int = MAX_BUFFER_SIZE,
        *,
        compression: str | None = None,
        max_connections: int | None = 65_536,
        error_detail: Detail = "traceback",
        slow_handler: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        ignore_io_loop(kwargs)
        if error_detail not in get_args(Detail):
            raise ValueError(f"error_detail is one of {get_args(Detail)}, not {error_detail!r}")
        check_limit("max_connections", max_connections)
        check_limit("slow_handler", slow_handler)
        kwargs["max_buffer_size"] = max_buffer_size
        # Private, but for what the classic Server had: subclasses have names of their own.
        self._limits = Limits.taken_from(kwargs)
        self._max_connections = max_connections
        self._error_detail: Detail = error_detail
        self._slow_handler_ns = float("inf") if slow_handler is None else slow_handler * 1e9
        self._compression = compression
        self.handlers = {"identity": self.identity, **handlers}
        self.id = str(uuid.uuid1())
        self._figures = ServerStats()
        #: The handlers that wait for something. (A task that nobody refers to can be collected.)
        self._running: set[asyncio.Task[None]] = set()
        #: Whether connections end as soon as no handler works for them.
        self._ending = False
        self._connections: dict[Channel, Connection] = {}
        self._turned_away: set[Channel] = set()
        self._all_closed: asyncio.Future[None] | None = None
        self._first_port: int | None = None
        super().__init__(max_buffer_size=max_buffer_size, **kwargs)

    @property
    def port(self) -> int:
        """The port of the first TCP socket that listened."""
        if self._first_port is None:
            raise OSError("the server has no port yet; call .listen() first")
        return self._first_port

    def identity(self, stream: IOStream) -> dict[str, Any]:
        """Tell who this is: the handler of ``{'op': 'identity'}``."""
        return {"type": type(self).__name__, "id": self.id}

    def listen(self, port: int | str | None = None, *args: Any, **kwargs: Any) -> None:
        """Accept connections on a port.

        Parameters
        ----------
        port : int or str, optional
            ``default_port`` if left out; 0 picks a free one; ``'unix:/path'`` is a unix
            socket, which only its owner can reach.
        *args, **kwargs
            As ``tornado.tcpserver.TCPServer.listen`` takes them, first the address. Without
            an address, the server is reachable on every interface of the machine.

        Raises
        ------
        OSError
            If the port is taken.
        """
        if isinstance(port, str) and port.startswith(UNIX_SCHEME):
            self.add_sockets([bind_unix(port)])
        else:
            super().listen(self.default_port if port is None else int(port), *args, **kwargs)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on sockets that listen already."""
        io_loop = IOLoop.current()
        # Windows' own loop watches no sockets; Tornado has one beside it that does.
        loop: Any = getattr(io_loop, "selector_loop", None) or io_loop.asyncio_loop  # type: ignore[attr-defined]
        for sock in sockets:
            self._sockets[sock.fileno()] = sock
            self._handlers[sock.fileno()] = Acceptor(sock, loop, self._handle_connection, self._lacks)
            if self._first_port is None and sock.family != getattr(socket, "AF_UNIX", None):
                self._first_port = sock.getsockname()[1]

    def _lacks(self, error: OSError) -> None:
        self._figures.errors["accept"] += 1
        logger.error("can't accept connections to port %s for now: %s", self._first_port, error)

    def stop(self) -> None:
        """Accept no further connections; those that are open stay so."""
        for sock in () if self._stopped else self._sockets.values():
            if sock.family == getattr(socket, "AF_UNIX", None):
                os.unlink(sock.getsockname())
        super().stop()

    async def shutdown(self, deadline: float = 10.0) -> None:
        """Accept no further connections, let running handlers answer, then close.

        Parameters
        ----------
        deadline : float
            Seconds after which handlers are cancelled, and connections closed with what
            they still have to send.

        Examples
        --------
        >>> import asyncio
        >>> from fastcore import Server, rpc
        >>> async def slow(stream):
        ...     await asyncio.sleep(0.05)
        ...     return 'done'
        >>> async def main():
        ...     server = Server({'slow': slow})
        ...     server.listen(0, '127.0.0.1')
        ...     async with rpc(ip='127.0.0.1', port=server.port) as remote:
        ...         call = remote.slow()
        ...         while not server.stats()['messages']['in']:
        ...             await asyncio.sleep(0)
        ...         await server.shutdown()
        ...         print(await call)
        >>> asyncio.run(main())
        done
        """
        self.stop()
        self._ending = True
        for connection in [*self._connections.values()]:
            connection.finish()
        if self._connections:
            self._all_closed = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._all_closed], timeout=deadline)
        if self._connections:
            logger.warning(
                "ended with %d handlers running and %d connections open, after %g s",
                len(self._running),
                len(self._connections),
                deadline,
            )
        cancelled = [*self._running]
        for task in cancelled:
            task.cancel()
        if cancelled:
            # They may clean up, as long as that takes no time.
            await asyncio.wait(cancelled, timeout=0.1)
        for channel in [*self._connections, *self._turned_away]:
            channel.close()

    def stats(self) -> dict[str, Any]:
        """Tell what the server did and does.

        Returns
        -------
        dict
            Plain values, that a message can carry: ``uptime`` (seconds), ``connections``
            (``open``, ``ever``), ``messages`` and ``bytes`` (``in``, ``out``), ``buffers``
            (bytes of memory that hold messages), ``errors`` (how many, by kind), ``ops``
            (by op: ``count``, ``errors``, ``p50`` and ``p99`` in seconds, to within 13 %).

        Examples
        --------
        >>> Server({}).stats()['connections']
        {'open': 0, 'ever': 0}
        """
        return self._figures.as_dict(self._connections)

    def handle_stream(self, stream: IOStream, address: Any) -> Awaitable[None]:
        """Serve one connection until it ends. Called by Tornado for each."""
        stream.set_nodelay(True)
        channel = channel_of(stream, self._limits, self._compression)
        if self._max_connections is not None and len(self._connections) >= self._max_connections:
            return self._turn_away(channel)
        connection = self._connections[channel] = Connection(self, channel)
        self._figures.opened()
        channel.on_lost = functools.partial(self._lost, channel)
        logger.debug("connection from %s to %s", channel.peer, type(self).__name__)
        connection.serve()
        return connection.ended

    def _lost(self, channel: Channel) -> None:
        """Keep the figures of a connection that has ended, whoever ended it."""
        del self._connections[channel]
        self._figures.closed(channel)
        why = explain(channel.stream.error, server_side=True)
        if why is not None:
            self._figures.errors["tls"] += 1
            logger.warning("no TLS with %s: %s (%s)", channel.peer, why, channel.stream.error)
        if self._all_closed is not None and not self._connections and not self._all_closed.done():
            self._all_closed.set_result(None)

    def _turn_away(self, channel: Channel) -> Awaitable[None]:
        limit = f"the server has {self._max_connections:,} connections, and takes no more"
        error = LimitReached("max_connections", limit)
        self._figures.errors["max_connections"] += 1
        logger.warning("turned %s away: %s", channel.peer, error)
        if len(self._turned_away) < _TURNED_AWAY:
            self._turned_away.add(channel)
            channel.on_lost = functools.partial(self._turned_away.discard, channel)
            refuse(channel, error_reply(ConnectionRefusedError(str(error)), "message"))
        else:
            channel.close()
        done: asyncio.Future[None] = channel.loop.create_future()
        done.set_result(None)
        return done

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()
