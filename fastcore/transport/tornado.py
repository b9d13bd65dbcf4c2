"""Tornado's streams as a transport of messages. Every private name of Tornado is in this file.

A stream is taken over at its first message. From then on its socket stays registered for
reading, bytes are received straight into the memory of the channel's buffer, and sent inline,
so that a message costs one turn of the loop and no change of registration. Whoever made
the stream keeps using it: closing it, asking whether it is closed, its close callback, and
writing bytes of their own work as ever.

``tests/transport/test_tornado_names.py`` fails without any of the lines that use a private name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import ssl_wrap_socket
from tornado.tcpserver import TCPServer

from fastcore._channel import Channel, Transport
from fastcore._socket import Socket
from fastcore.addressing import format_address
from fastcore.errors import LimitReached
from fastcore.limits import DEFAULT_LIMITS, Limits
from fastcore.logs import get_logger
from fastcore.transport.event_loop import check_thread_of, run_in_thread_of
from fastcore.transport.keepalive import set_peer_timeout
from fastcore.transport.resets import look_for_resets
from fastcore.transport.tls import answer_plainly, explain

__all__ = ["StreamTransport", "accept_stream", "add_listener", "channel_of", "listening_sockets"]

logger = get_logger("fastcore.channel")

#: TLS records, of at most 16 KiB each, before other connections have their turn.
_TLS_RECORDS: Final = 64
#: Seconds for the peer to read a last message.
_LAST_WORDS: Final = 1.0
_DROPPED_AT_ONCE: Final = 64 * 1024


class StreamTransport(Transport):
    """Carries the messages of one stream.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        An open stream, or one whose connection or TLS handshake is under way.
    limits : Limits
        What the peer may cost.
    compression : str, optional
        The compression of outgoing messages.
    writable_values : bool
        Whether large binary values are received as ``bytearray``.

    Attributes
    ----------
    channel : Channel
        Its messages.
    """

    __slots__ = (
        "_close_fd",
        "_fd",
        "_is_lingering",
        "_on_readable",
        "_selector",
        "_timer",
        "channel",
        "stream",
    )

    def __init__(
        self, stream: IOStream, limits: Limits, compression: str | None, writable_values: bool
    ) -> None:
        loop: asyncio.AbstractEventLoop = stream.io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.stream = stream
        self.channel = Channel(self, loop, limits, compression, _peer_name(stream), writable_values)
        self._selector = getattr(stream.io_loop, "selector_loop", loop)
        self._fd = -1
        self._is_lingering = False
        self._on_readable: Callable[[], object] = self.channel.receive
        self._timer: asyncio.TimerHandle | None = None
        stream._fastcore_channel = self.channel  # type: ignore[attr-defined]
        # Every way of closing a stream passes here, while it can still send.
        self._close_fd = stream.close_fd
        stream.close_fd = self._closing  # type: ignore[method-assign]
        self._take_over_when_ready()

    # ---- what the channel asks for

    def pause(self) -> None:
        """Receive nothing."""
        self._selector.remove_reader(self._fd)

    def resume(self) -> None:
        """Receive again."""
        self._watch(self._selector.add_reader, self._on_readable)
        self.channel.loop.call_soon(self._on_readable)

    def want_write(self) -> None:
        """Be called when the socket takes bytes again, if there are any for it."""
        wants: bool | None = None
        # Until it is still so afterwards: who is found by the collector in here may write, too.
        while self._fd >= 0 and wants != (wants := self.channel.is_full or self.stream.writing()):
            if wants:
                self._watch(self._selector.add_writer, self._writable)
            else:
                self._selector.remove_writer(self._fd)

    def _watch(self, add: Callable[..., object], callback: Callable[[], object]) -> None:
        """Have the loop watch the socket, unless somebody closes it in the middle of that.

        Not in the context of whoever came here: the connection would keep what is in it for good.
        """
        try:
            Context().run(add, self._fd, callback)
        except (OSError, ValueError, KeyError):
            if self._fd >= 0:
                raise

    def close(self, error: BaseException | None) -> None:
        """Close the stream: because of an error, or because the peer closed it."""
        self.stream.close(exc_info=error if error is not None else False)

    def linger(self) -> None:
        """Close the way out, and drop what still comes, until the peer has closed its side."""
        if self._is_lingering:
            return
        self._is_lingering = True
        # Of the bare socket: an SSLSocket would end both ways.
        with suppress(OSError):
            socket.socket.shutdown(self.stream.socket, socket.SHUT_WR)
        self._on_readable = self._drop
        self._selector.add_reader(self._fd, self._drop)
        self._timer = self.channel.loop.call_later(_LAST_WORDS, self.channel.close)

    # ---- the stream

    def _take_over_when_ready(self) -> None:
        stream = self.stream
        channel = self.channel
        if stream.closed():
            channel.ended("", stream.error)
        elif isinstance(stream, SSLIOStream) and stream._ssl_accepting:
            # Asked first: one that still connects has all of its handshake before it.
            handshake = stream._ssl_connect_future or stream.wait_for_handshake()
            handshake.add_done_callback(self._connected)
            if channel.limits.handshake_timeout is not None:
                self._timer = channel.loop.call_later(channel.limits.handshake_timeout, self._no_handshake)
        elif stream._connect_future is not None:
            stream._connect_future.add_done_callback(self._connected)
        else:
            self._take_over()

    def _no_handshake(self) -> None:
        seconds = self.channel.limits.handshake_timeout
        self.channel.over_limit(LimitReached("handshake_timeout", f"no TLS handshake within {seconds:g} s"))

    def _connected(self, done: asyncio.Future[Any]) -> None:
        if not self.stream.closed():
            self._take_over()

    def _take_over(self) -> None:
        stream = self.stream
        channel = self.channel
        if channel.limits.peer_timeout is not None:
            set_peer_timeout(stream.socket, channel.limits.peer_timeout)
        if isinstance(stream, SSLIOStream):
            self._on_readable = self._receive_records
        if stream._read_buffer_size:
            channel.buffer.feed(bytes(stream._read_buffer))
            stream._read_buffer.clear()
            stream._read_buffer_size = 0
        stream.io_loop.remove_handler(stream.fileno())
        # From here on the socket is registered by this transport, and not by the stream.
        stream._add_io_state = self._stream_wants  # type: ignore[method-assign]
        self._fd = stream.socket.fileno()
        self._watch(self._selector.add_reader, self._on_readable)
        if stream.writing():
            # Bytes that somebody has written to it before.
            self.want_write()
        if self._timer is not None:
            self._timer.cancel()
        channel.opened(_socket_of(stream), _peer_name(stream))
        look_for_resets(self)

    def _stream_wants(self, state: int) -> None:
        if state & IOLoop.WRITE:
            # Somebody writes bytes of their own to the stream, and the socket is full: messages
            # come behind them.
            self.channel.hold_back()
            self.want_write()

    def _writable(self) -> None:
        if self.stream.writing():
            self.stream._handle_write()
        if not self.stream.writing():
            self.channel.writable()
        self.want_write()

    def _receive_records(self) -> None:
        """Receive record after record: no event announces what the TLS layer holds."""
        channel = self.channel
        for _ in range(_TLS_RECORDS):
            if channel.is_paused or channel.failure is not None or not channel.receive():
                return
        channel.loop.call_soon(self._receive_records)

    def _drop(self) -> None:
        if self.channel.is_lost:
            return
        try:
            ended = not socket.socket.recv(self.stream.socket, _DROPPED_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.channel.close()

    # ---- its end

    def _closing(self) -> None:
        """Run while the stream is closing, whoever closes it.

        Classic programs close a stream from a thread that isn't its loop's, and count on
        its descriptor being free when that returns.
        """
        if self.channel.is_foreign:
            # The socket is the parent's too, and so is what its loop watches: leave both alone.
            self._end()
        else:
            run_in_thread_of(self.channel.loop, self._finish)

    def _finish(self) -> None:
        stream = self.stream
        channel = self.channel
        if self._fd >= 0:
            unsent = channel.ending(stream.error)
            if unsent and stream.error is None:
                logger.info("closed the connection to %s with %d bytes unsent", channel.peer, unsent)
            if not channel.loop.is_closed():
                self._selector.remove_reader(self._fd)
                self._selector.remove_writer(self._fd)
            self._fd = -1
        elif isinstance(stream, SSLIOStream):
            answer_plainly(stream.socket, stream.error)
        if self._timer is not None:
            self._timer.cancel()
        self._end()

    def _end(self) -> None:
        self._close_fd()
        error = self.stream.error
        if isinstance(error, OSError):
            # It is kept, and the frames that it has passed know the stream.
            error.__traceback__ = error.__context__ = None
        self.channel.ended(explain(error) or "", error)
        # What holds each other would be freed by the collector alone.
        self._on_readable = self.channel.receive
        for name in ("close_fd", "_add_io_state"):
            self.stream.__dict__.pop(name, None)


def channel_of(
    stream: IOStream,
    limits: Limits = DEFAULT_LIMITS,
    compression: str | None = None,
    writable_values: bool = False,
) -> Channel:
    """Give the channel of a stream; make it if this is the first message.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        Any: of ``connect``, of a Server, or one that the caller made.
    limits : Limits
        What the peer may cost, for a stream that has no channel yet.
    compression : str, optional
        The compression of outgoing messages, for a stream that has no channel yet.
    writable_values : bool
        Whether large binary values are received as ``bytearray``, for a stream that has no
        channel yet.

    Returns
    -------
    Channel

    Raises
    ------
    TypeError
        If it isn't a stream.
    RuntimeError
        If it has no channel yet, and its loop runs in another thread.
    """
    channel: Channel | None = getattr(stream, "_fastcore_channel", None)
    if channel is not None:
        return channel
    if not isinstance(stream, IOStream):
        raise TypeError(f"messages go over a tornado.iostream.IOStream, not {stream!r}")
    check_thread_of(stream.io_loop.asyncio_loop, "a stream")  # type: ignore[attr-defined]
    return StreamTransport(stream, limits, compression, writable_values).channel


def accept_stream(server: TCPServer, sock: socket.socket) -> IOStream:
    """Make the stream of a connection that a server has accepted.

    Parameters
    ----------
    server : tornado.tcpserver.TCPServer
        Its ``ssl_options`` count.
    sock : socket.socket
        The connection; closed if it can't be used.

    Raises
    ------
    OSError
        If the peer has gone already, or its TLS can't begin.
    """
    options: dict[str, Any] = {
        "max_buffer_size": server.max_buffer_size,
        "read_chunk_size": server.read_chunk_size,
    }
    if server.ssl_options is None:
        return IOStream(sock, **options)
    try:
        secure = ssl_wrap_socket(sock, server.ssl_options, server_side=True, do_handshake_on_connect=False)
    except OSError:
        sock.close()
        raise
    return SSLIOStream(secure, **options)


def add_listener(server: TCPServer, sock: socket.socket, stop: Callable[[], None]) -> None:
    """Let Tornado know of a socket that listens, and how to accept no more from it."""
    server._sockets[sock.fileno()] = sock
    server._handlers[sock.fileno()] = stop


def listening_sockets(server: TCPServer) -> list[socket.socket]:
    """Give the sockets that a server listens on; none once it has stopped."""
    return [] if server._stopped else [*server._sockets.values()]


def _socket_of(stream: IOStream) -> Socket:
    """Give what receives and sends: the socket's own functions, unless the stream has others."""
    sock = stream.socket
    for name in ("read_from_fd", "write_to_fd"):
        if getattr(getattr(stream, name), "__func__", None) is not getattr(IOStream, name):
            # TLS, or a subclass that does something to the bytes, as Tornado documents it.
            return Socket(stream.read_from_fd, stream.write_to_fd)
    if type(sock) is socket.socket:
        return Socket(sock.recv_into, sock.send, getattr(sock, "sendmsg", None), sock.fileno)
    # The other ways to send would pass by what a subclass does to the bytes.
    return Socket(sock.recv_into, sock.send)


def _peer_name(stream: IOStream) -> str:
    try:
        sock: Any = stream.socket  # None, where it was closed
        name = sock.getpeername()
    except (OSError, AttributeError):
        return "a peer that isn't connected"
    if isinstance(name, tuple):
        return format_address((name[0], name[1]))
    return f"unix:{name}" if name else "a unix socket"
