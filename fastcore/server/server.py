"""``Server``: handlers, called by the messages of strangers.

Here is what all connections share: where they come from, how many there may be, what
is told of them, and their common end. What happens on one is in ``connection``.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import socket
import uuid
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Self, get_args

from tornado.gen import convert_yielded
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from fastcore._channel import Channel
from fastcore._futures import set_value
from fastcore.addressing import UNIX_SCHEME, format_address, listening_port
from fastcore.compressions import check_compression
from fastcore.errors import ConnectionLost, LimitReached
from fastcore.limits import MAX_BUFFER_SIZE, Limits, check_flag, check_keywords, check_limit, check_seconds
from fastcore.logs import get_logger, shown
from fastcore.middleware import check_middleware
from fastcore.remote_errors import Detail, error_reply
from fastcore.server.accepting import Acceptor, SocketFile, bind_unix
from fastcore.server.connection import Connection
from fastcore.server.ending import Ending
from fastcore.server.service import Handler, Service
from fastcore.server.snapshot import Health, Snapshot, describe_ops, take
from fastcore.server.strangers import tell_of_refused
from fastcore.tokens import is_public
from fastcore.transport.event_loop import (
    check_thread_of,
    current_io_loop,
    current_loop,
    ignore_io_loop,
    is_running,
    run_in_thread_of,
)
from fastcore.transport.tls import check_ssl_options, is_refusal
from fastcore.transport.tornado import accept_stream, add_listener, channel_of, name_of, take_listeners

if TYPE_CHECKING:
    from fastcore.middleware import Middleware
    from fastcore.server.admission import Admission, Authenticate, Newcomer, Token

__all__ = ["Server"]

logger = get_logger("fastcore.server")

#: What goes on to Tornado's server.
_TCP_SERVER_OPTIONS = ("ssl_options", "read_chunk_size")

#: Beside the port.
_LISTEN_OPTIONS = [*inspect.signature(TCPServer.listen).parameters][3:]

#: Connections too many that are told so at a time; those beyond are closed at once.
_MAX_TURNED_AWAY = 100


class Server(TCPServer):
    """A TCP server that calls handlers by name.

    Meant to be subclassed: a worker, a scheduler, a nanny each is a Server with handlers
    and a state of its own.

    ``async with server`` closes all that it has opened when the block is left, and cancels handlers
    that still run; :meth:`shutdown` lets them answer.

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
    writable_values : bool
        Whether handlers are given binary values of 64 KiB and more as ``bytearray`` instead
        of ``bytes``.
    max_connections : int, optional
        Most connections that are open at a time.
    error_detail : str
        What an error reply tells of a handler's error: ``'traceback'``, ``'message'`` or
        ``'type'``. The log has all of it in any case.
    slow_handler : float, optional
        Seconds after which a handler that blocks the loop is named in the log.
    max_running, max_running_per_connection : int, optional
        Most requests whose handlers wait for something at a time, of all connections and of
        one; a request counts once more for each 256 KiB that it has. Those beyond wait unread.
    cancel_handlers : bool
        Whether the handlers of a client that is gone are cancelled. Those that were called
        without a number, as classic clients do, run on in any case.
    expose : sequence of str
        Ops about the server itself that clients may call: ``'stats'`` answers what
        :meth:`snapshot` tells, ``'ops'`` which ops there are, with signatures and the first
        lines of their docstrings. A handler of that name goes first.
    token : str, or dict of str to str, optional
        What a caller has to show before anything else; or by name, who has which.
    authenticate : callable, optional
        Called as ``authenticate(stream, message)`` with the first message of each connection,
        before any handler. What it gives, or what awaiting that gives, is what
        :func:`fastcore.caller_of` tells handlers. None, False and exceptions refuse the
        connection; the text of a ``PermissionError`` is what the peer is told.
    middleware : sequence of callable, optional
        Each is called as ``middleware(call)`` with a :class:`fastcore.CallDetails`, and gives a
        context manager that is around the handler and all its answers. The first is the
        outermost.
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
        writable_values: bool = False,
        max_connections: int | None = 65_536,
        error_detail: Detail = "traceback",
        slow_handler: float | None = 1.0,
        max_running: int | None = 65_536,
        max_running_per_connection: int | None = 256,
        cancel_handlers: bool = True,
        expose: Sequence[str] = (),
        token: Token | None = None,
        authenticate: Authenticate | None = None,
        middleware: Sequence[Middleware] = (),
        **kwargs: Any,
    ) -> None:
        ignore_io_loop(kwargs)
        if error_detail not in get_args(Detail):
            raise ValueError(f"error_detail is one of {get_args(Detail)}, not {error_detail!r}")
        _check_handlers(handlers)
        check_keywords(Server, kwargs, [*_TCP_SERVER_OPTIONS, *Limits.names()])
        check_ssl_options(kwargs.get("ssl_options"))
        check_compression(compression)
        check_limit("max_connections", max_connections, whole=True)
        check_limit("slow_handler", slow_handler)
        check_limit("max_running", max_running, whole=True)
        check_limit("max_running_per_connection", max_running_per_connection, whole=True)
        check_flag("writable_values", writable_values)
        check_flag("cancel_handlers", cancel_handlers)
        around = check_middleware(middleware)
        if authenticate is not None and not callable(authenticate):
            raise TypeError(f"authenticate is a hook that can be called, not {shown(authenticate)}")
        kwargs["max_buffer_size"] = max_buffer_size
        # Private, but for what the classic Server had: subclasses have names of their own.
        self._limits = Limits.taken_from(kwargs)
        self._max_connections = max_connections
        self._compression = compression
        self._writable_values = writable_values
        about: dict[str, Handler] = {
            "stats": lambda stream: Server.snapshot(self),
            "ops": lambda stream: describe_ops(self.handlers),
        }
        if isinstance(expose, str) or not about.keys() >= {*expose}:
            raise ValueError(f"expose is a sequence of what is in {[*about]}, not {expose!r}")
        exposed = {op: about[op] for op in expose}
        self.handlers: dict[str, Handler] = {"identity": self.identity, **exposed, **handlers}
        self.id = str(uuid.uuid1())
        self._service = Service(
            self,
            type(self).__name__,
            error_detail,
            float("inf") if slow_handler is None else slow_handler * 1e9,
            max_running,
            max_running_per_connection,
            cancel_handlers,
        )
        self._connections: dict[Channel, Connection | Newcomer] = {}
        # These are imported by those alone who use them.
        self._connection: type[Connection] = Connection
        if around:
            from fastcore.server.middleware import WrappedConnection, WrappedHandlers

            self._connection = WrappedConnection
            self._service.host = WrappedHandlers(self, around)
        #: Who isn't known yet; None where everybody may call.
        self._admission: Admission | None = None
        self._asks_for_token = token is not None
        if token is not None or authenticate is not None:
            from fastcore.server.admission import Admission

            self._admission = Admission(self._service.figures, token, authenticate)
        self._turned_away: set[Channel] = set()
        self._acceptors: list[Acceptor] = []
        #: Of the unix sockets that were made here.
        self._files: dict[socket.socket, SocketFile] = {}
        self._ending: Ending | None = None
        self._first_port: int | None = None
        #: Where it listens.
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(max_buffer_size=max_buffer_size, **kwargs)

    @property
    def port(self) -> int:
        """The port of the first TCP socket that listened."""
        if self._first_port is None:
            raise OSError("the server has no port: call .listen() first; a unix socket has none")
        return self._first_port

    def identity(self, stream: IOStream) -> dict[str, Any]:
        """Tell who this is: the handler of ``{'op': 'identity'}``."""
        return {"type": type(self).__name__, "id": self.id}

    def listen(
        self, port: int | str | None = None, address: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """Accept connections on a port.

        Parameters
        ----------
        port : int or str, optional
            ``default_port`` if left out; 0 picks a free one; ``'unix:/path'`` is a unix
            socket, which only its owner can reach.
        address : str, optional
            A name or number of this machine, IPv6 with its brackets or without. Left out, the
            server is reachable on every interface.
        *args, **kwargs
            As ``tornado.tcpserver.TCPServer.listen`` takes them.

        Raises
        ------
        OSError
            If the port is taken, or the address isn't this machine's.
        RuntimeError
            If the server is ending, or serves in another thread.
        """
        self._begin_anew()
        if isinstance(port, str) and port.startswith(UNIX_SCHEME):
            sock, self._files[sock] = bind_unix(port)
            self.add_sockets([sock])
        else:
            check_keywords(super().listen, kwargs, _LISTEN_OPTIONS)
            number = listening_port(self.default_port if port is None else port)
            try:
                super().listen(number, address and address.strip("[]"), *args, **kwargs)
            except OSError as error:
                where = f"{address or ''}, port {number}"
                raise type(error)(error.errno, f"{error.strerror}: {where}") from error
            except UnicodeError as error:
                raise OSError(errno.EADDRNOTAVAIL, f"no such host: {shown(address)}, {error}") from error

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on sockets that listen already.

        Raises
        ------
        RuntimeError
            If the server is ending, or serves in another thread.
        """
        self._begin_anew()
        if not self._acceptors:
            self._first_port = None
        self._service.context = copy_context()
        self._loop = current_loop()
        for sock in sockets:
            # Somebody who comes in between may stop the server, which closes it.
            name = sock.getsockname()
            acceptor = Acceptor(sock, _selector_loop(), self._accepted, self._lacks)
            self._acceptors.append(acceptor)
            add_listener(self, sock, acceptor)
            if sock.family == getattr(socket, "AF_UNIX", None):
                continue
            host, port = name[:2]
            if self._first_port is None:
                self._first_port = port
            if self._asks_for_token and self.ssl_options is None and is_public(host):
                logger.warning(
                    "whoever listens on the network can read the token of who connects to %s: give the "
                    "server ssl_options=, or listen on 127.0.0.1 or a unix socket",
                    format_address((host, port)),
                )

    def _begin_anew(self) -> None:
        """Serve again, after an end that is over."""
        self._check_thread()
        if self._ending is None:
            return
        if not self._ending.is_over:
            raise RuntimeError("the server is ending: await its shutdown() before it listens again")
        self._ending = None
        self._service.is_ending = False

    def _check_thread(self) -> None:
        if self._loop is not None:
            check_thread_of(self._loop, "a server")

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        try:
            stream = accept_stream(self, sock)
        except OSError as error:
            # It has gone already, as port scanners do.
            tell_of_refused(self._service.figures, ConnectionResetError(str(error)), name_of(address))
            return
        except Exception:
            logger.exception("could not begin TLS with %s", name_of(address))
            return
        try:
            served = self.handle_stream(stream, address)
            if served is not None:
                current_io_loop().add_future(convert_yielded(served), lambda served: served.result())
        except Exception:
            logger.exception("could not serve %s", name_of(address))
            stream.close()

    def _lacks(self, error: OSError) -> None:
        self._service.figures.errors["accept"] += 1
        logger.error("can't accept connections to port %s for now: %s", self._first_port, error)

    def stop(self) -> None:
        """Accept no further connections; those that are open stay so.

        May be called from any thread.
        """
        if self._loop is None:
            self._stop()
        else:
            run_in_thread_of(self._loop, self._stop)

    def _stop(self) -> None:
        for sock, accept_no_more in take_listeners(self):
            file = self._files.pop(sock, None)
            if file is not None:
                file.remove()
            accept_no_more()
            sock.close()
        self._acceptors.clear()

    def start(self, num_processes: int | None = 1, max_restarts: int | None = None) -> None:
        """Accept connections on what :meth:`bind` has bound, in one process or many.

        Processes are made by forking, before there is an event loop: then run the loop that
        ``IOLoop.current()`` gives, or use the server in a loop of its own, as below.

        Parameters
        ----------
        num_processes : int, optional
            How many; with None or 0, one for each processor.
        max_restarts : int, optional
            How often all together are started anew that have died; 100 if left out.

        Raises
        ------
        RuntimeError
            If there are to be many, and an event loop runs already.

        Examples
        --------
        The whole of a server in four processes::

            async def main():
                async with server:
                    await asyncio.Event().wait()

            server = Server(handlers)
            server.bind(8786)
            server.start(4)
            asyncio.run(main())
        """
        if num_processes != 1 and is_running():
            raise RuntimeError(
                f"start({num_processes}) makes processes by forking, which can't be done inside of an event "
                "loop: call it before asyncio.run(); or listen(..., reuse_port=True) in each process"
            )
        super().start(num_processes, max_restarts)

    async def shutdown(self, deadline: float = 10.0) -> None:
        """Accept no further connections, let running handlers answer, then close.

        Parameters
        ----------
        deadline : float
            Seconds after which handlers are cancelled, and connections closed with what
            they still have to send.

        Raises
        ------
        TypeError, ValueError
            If the deadline is none; the server goes on then.
        RuntimeError
            In another thread than the one that it serves in; likewise. `stop` may be called there.

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
        check_seconds("deadline", deadline)
        self._check_thread()
        if self._ending is None:
            self._ending = Ending(self._service, self._connections, self._turned_away)
        self.stop()
        await self._ending.wait(deadline)

    def stats(self) -> dict[str, Any]:
        """Tell what the server did and does.

        Returns
        -------
        dict
            Plain values, that a message can carry: ``uptime`` (seconds), ``connections``
            (``open``, ``ever``), ``messages`` and ``bytes`` (``in``, ``out``), ``running``
            (handlers that wait for something), ``buffers`` (bytes of memory that hold
            messages), ``errors`` (how many, by kind), ``ops`` (by op: ``count``, ``errors``,
            ``p50`` and ``p99`` in seconds, to within 13 %).

        Examples
        --------
        >>> Server({}).stats()['connections']
        {'open': 0, 'ever': 0}
        """
        return self._service.figures.as_dict(self._connections, len(self._service.tasks))

    def health(self) -> Health:
        """Tell whether it should be sent calls.

        Returns
        -------
        str
            ``'ready'``; ``'draining'`` where it accepts no connections, not yet or not any more;
            ``'overloaded'`` at ``max_connections`` or ``max_running``.
        """
        if not self._acceptors:
            return "draining"
        return "overloaded" if self._is_crowded or self._service.is_full else "ready"

    def open_connections(self) -> int:
        """Tell how many connections it serves."""
        return len(self._connections)

    @property
    def _is_crowded(self) -> bool:
        return self._max_connections is not None and len(self._connections) >= self._max_connections

    def snapshot(self) -> Snapshot:
        """Tell all that can be seen of the server now: what the page of a running server shows.

        Returns
        -------
        dict
            Plain values: those of :meth:`stats`, and beside them ``health``; ``type`` and
            ``pid``; ``calls``, the handlers that wait for something, the longest first (``op``,
            ``peer``, ``seconds``); ``warnings``, the last ones of the process (``time``,
            ``level``, ``text``); and for each op ``buckets``, how many calls took how long.

        Examples
        --------
        >>> Server({}).snapshot()['health']
        'draining'
        """
        # Subclasses may have names of their own.
        return take(self._service, Server.stats(self), self._connections, Server.health(self))

    def handle_stream(self, stream: IOStream, address: Any) -> Awaitable[None]:
        """Serve one connection until it ends. Called by Tornado for each."""
        stream.set_nodelay(True)
        channel = channel_of(
            stream, self._limits, self._compression, self._writable_values, peer=name_of(address)
        )
        if self._is_crowded and self._admission is not None:
            self._admission.make_room()
        if self._is_crowded:
            return self._turn_away(channel)
        self._service.figures.opened()
        channel.add_end_callback(functools.partial(self._lost, channel))
        logger.debug("connection from %s to %s", channel.peer, type(self).__name__)
        ended: asyncio.Future[None] = channel.loop.create_future()
        if self._admission is None:
            self._serve(stream, channel, ended)
        else:
            newcomer = self._connections[channel] = self._admission.meet(stream, channel)
            newcomer.decided.add_done_callback(functools.partial(self._decided, newcomer, ended))
            newcomer.listen()
        return ended

    def _serve(self, stream: IOStream, channel: Channel, ended: asyncio.Future[None]) -> None:
        try:
            connection = self._connection(self._service, stream, channel, ended)
        except ConnectionLost:
            # A newcomer may be closed in between.
            set_value(ended, None)
            return
        self._connections[channel] = connection
        if channel.is_lost:
            self._forget(channel)
        connection.serve()

    def _decided(self, newcomer: Newcomer, ended: asyncio.Future[None], decided: asyncio.Task[bool]) -> None:
        """Serve a newcomer from here on, or have done with it."""
        if not decided.cancelled() and decided.result() and newcomer.hand_over():
            self._serve(newcomer.stream, newcomer.channel, ended)
        else:
            set_value(ended, None)

    def _lost(self, channel: Channel) -> None:
        """Keep the figures of a connection that has ended, whoever ended it."""
        connection = self._forget(channel)
        self._service.figures.closed(channel)
        error = channel.end_error
        if error is not None and is_refusal(error) and connection is not None and not connection.is_over:
            # Something is wrong with its TLS, or there is somebody on the way.
            tell_of_refused(self._service.figures, error, channel.peer)

    def _forget(self, channel: Channel) -> Connection | Newcomer | None:
        """Wait for a connection no longer."""
        connection = self._connections.pop(channel, None)
        ending = self._ending
        if ending is not None:
            ending.look()
        return connection

    def _turn_away(self, channel: Channel) -> Awaitable[None]:
        limit = f"the server has {self._max_connections:,} connections, and takes no more"
        error = LimitReached("max_connections", limit)
        tell_of_refused(self._service.figures, error, channel.peer)
        if len(self._turned_away) < _MAX_TURNED_AWAY:
            self._turned_away.add(channel)
            channel.add_end_callback(functools.partial(self._turned_away.discard, channel))
            channel.farewell(error_reply(ConnectionRefusedError(str(error)), "message"))
        else:
            channel.close()
        done: asyncio.Future[None] = channel.loop.create_future()
        done.set_result(None)
        return done

    async def __aenter__(self) -> Self:
        for acceptor in self._acceptors:
            # It may have been made before this loop was there.
            acceptor.move(_selector_loop())
            self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.shutdown(deadline=0)


def _selector_loop() -> Any:
    """Give the current loop as far as it watches sockets: beside Windows' own, Tornado has one for that."""
    io_loop = current_io_loop()
    return getattr(io_loop, "selector_loop", None) or io_loop.asyncio_loop  # type: ignore[attr-defined]


def _check_handlers(handlers: object) -> None:
    if not isinstance(handlers, Mapping):
        raise TypeError(f"handlers is a dict of callables by op, not {shown(handlers)}")
    for op, handler in handlers.items():
        if not callable(handler):
            raise TypeError(f"the handler of {shown(op)} can't be called: it is {shown(handler)}")
