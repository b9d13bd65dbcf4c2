"""``Server``: handlers, called by the messages of strangers.

A connection is one natural loop: next message, find the handler, call it, answer. A
handler that returns a plain value costs no coroutine and no Future; one that returns
something to await holds the loop until that is done, because it may read from the
stream and write to it in the meantime.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from typing import Any

from tornado.gen import convert_yielded
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from fastcore.channel import MESSAGES_PER_TURN, NOTHING, Channel, channel_of
from fastcore.errors import ConnectionLost
from fastcore.limits import MAX_BUFFER_SIZE, Limits
from fastcore.remote_errors import error_reply

__all__ = ["Server"]

logger = logging.getLogger("fastcore.server")

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
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("io_loop", None) is not None:
            warnings.warn(
                "io_loop= is ignored: a server runs in the loop that is current when it listens",
                DeprecationWarning,
                stacklevel=2,
            )
        limits = {field.name: kwargs.pop(field.name) for field in fields(Limits) if field.name in kwargs}
        self.limits = Limits(max_buffer_size=max_buffer_size, **limits)
        self.compression = compression
        self.handlers = {"identity": self.identity, **handlers}
        self.id = str(uuid.uuid1())
        # A task that nobody refers to can be collected while it waits.
        self._running: set[asyncio.Task[None]] = set()
        super().__init__(max_buffer_size=max_buffer_size, **kwargs)

    @property
    def port(self) -> int:
        """The port of the first socket that listens."""
        for sock in self._sockets.values():
            port: int = sock.getsockname()[1]
            return port
        raise OSError("the server has no port yet; call .listen() first")

    def identity(self, stream: IOStream) -> dict[str, Any]:
        """Tell who this is: the handler of ``{'op': 'identity'}``."""
        return {"type": type(self).__name__, "id": self.id}

    def listen(self, port: int | str | None = None, *args: Any, **kwargs: Any) -> None:
        """Accept connections on a port.

        Parameters
        ----------
        port : int, optional
            ``default_port`` if left out; 0 picks a free one.
        *args, **kwargs
            As ``tornado.tcpserver.TCPServer.listen`` takes them, first the address. Without
            an address, the server is reachable on every interface of the machine.

        Raises
        ------
        OSError
            If the port is taken.
        """
        super().listen(self.default_port if port is None else int(port), *args, **kwargs)

    def handle_stream(self, stream: IOStream, address: Any) -> Awaitable[None]:
        """Serve one connection until it ends. Called by Tornado for each."""
        stream.set_nodelay(True)
        channel = channel_of(stream, self.limits, self.compression)
        connection = _Connection(self, channel)
        logger.debug("connection from %s to %s", channel.peer, type(self).__name__)
        connection.serve()
        return connection.ended

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()


class _Connection:
    """One connection of a server: its loop."""

    def __init__(self, server: Server, channel: Channel) -> None:
        self.server = server
        self.channel = channel
        self.ended: asyncio.Future[None] = channel.loop.create_future()

    def serve(self) -> None:
        """Become the reader of the connection, and answer what is here already."""
        self.channel.claim(self._serve)
        self._serve()

    def _serve(self) -> None:
        """Answer the messages that are here; called again when there are more."""
        channel = self.channel
        for _ in range(MESSAGES_PER_TURN):
            if channel.full:
                # The peer doesn't read its replies: it gets no further ones made.
                channel.on_ready = None
                channel.on_drained = self.serve
                return
            try:
                message = channel.next_message()
            except ConnectionLost:
                self._end()
                return
            except Exception as error:
                if not self._refuse(error):
                    return
                continue
            if message is NOTHING or not self._answer(message) or not len(channel.buffer):
                return
        # Others have their turn; the next messages are here already.
        channel.on_ready = None
        channel.loop.call_soon(self.serve)

    def _answer(self, message: Any) -> bool:
        """Call the handler and reply; False if no further message is to be answered now."""
        try:
            op = message.pop("op")
        except (AttributeError, TypeError, KeyError):
            return self._refuse(TypeError(f"a message is a dict with an 'op', not {_short(message)}"))
        close = message.pop("close", False)
        reply = message.pop("reply", True)
        if op == "close":
            return self._done("OK", reply, close=True)
        try:
            handler = self.server.handlers[op]
        except (KeyError, TypeError):
            return self._refuse(ValueError(self._no_handler(op)), reply, close)
        channel = self.channel
        # The handler may read from the stream.
        channel.on_ready = None
        try:
            result = handler(channel.stream, **message)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            result = self._failed(op, error)
        if not isinstance(result, _PLAIN) and _is_awaitable(result):
            waiting = self._wait(op, result, reply, close)
            task = channel.loop.create_task(waiting)
            self.server._running.add(task)
            task.add_done_callback(self.server._running.discard)
            return False
        if channel.on_ready is None:
            channel.on_ready = self._serve
        else:
            channel.claim(self._serve)
        return self._done(result, reply, close)

    async def _wait(self, op: object, result: Any, reply: bool, close: bool) -> None:
        try:
            result = await (result if inspect.isawaitable(result) else convert_yielded(result))
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The loop is being ended, with everything that runs in it.
                self._end()
                raise
            result = self._failed(op, error)
        except BaseException as error:
            result = self._failed(op, error)
        if self._done(result, reply, close):
            self.serve()

    def _done(self, result: Any, reply: bool, close: bool) -> bool:
        """Reply to one request; False if the connection ends with it."""
        channel = self.channel
        if reply:
            try:
                channel.send(result)
            except ConnectionLost:
                self._end()
                return False
            except Exception as error:
                channel.send(self._failed("reply", error))
        if close:
            self._end()
            return False
        return True

    def _refuse(self, error: Exception, reply: bool = True, close: bool = False) -> bool:
        """Reply that no handler is called; False if there can be no further message."""
        logger.info("refused a message from %s: %s", self.channel.peer, error)
        fatal = self.channel.failure is not None
        return self._done(error_reply(error, with_traceback=False), reply, close or fatal)

    def _failed(self, op: object, error: BaseException) -> dict[str, Any]:
        if isinstance(error, ConnectionLost) and self.channel.lost is not None:
            # How every stream of answers ends: the client has left.
            logger.debug("%r: %s", op, error)
            return error_reply(error)
        logger.warning("%r, called from %s, raised", op, self.channel.peer, exc_info=error)
        return error_reply(error)

    def _no_handler(self, op: object) -> str:
        known = ", ".join(sorted(map(str, self.server.handlers)))
        return f"no handler found for {_short(op)}; this {type(self.server).__name__} has {known}"

    def _end(self) -> None:
        self.channel.close_when_sent()
        if not self.ended.done():
            self.ended.set_result(None)


#: What handlers mostly return: needn't be asked whether it can be awaited.
_PLAIN = (str, bytes, int, float, dict, list, tuple, type(None))


def _is_awaitable(result: object) -> bool:
    return inspect.isawaitable(result) or inspect.isgenerator(result)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."
