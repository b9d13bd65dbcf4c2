"""Tornado's streams as a transport of messages. Every private name of Tornado is in this file.

But for the one by which ``read`` and ``write`` find the channel, at each message.

A stream is taken over at its first message. From then on its socket stays registered for
reading, bytes are received straight into the memory of the channel's buffer, and sent inline,
so that a message costs one turn of the loop and no change of registration. Whoever made
the stream keeps using it: closing it, asking whether it is closed, its close callback, and
writing bytes of their own work as ever.

``tests/transport/test_tornado_names.py`` fails without any of the lines that use a private name.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import ssl_wrap_socket
from tornado.tcpserver import TCPServer

from fastcore._channel import Channel
from fastcore._socket import Socket, undisturbed
from fastcore.addressing import format_address
from fastcore.contracts import Transport
from fastcore.limits import DEFAULT_LIMITS, Limits
from fastcore.logs import get_logger
from fastcore.transport.event_loop import check_thread_of, run_in_thread_of
from fastcore.transport.keepalive import Acknowledgements, set_peer_timeout
from fastcore.transport.resets import look_for_resets
from fastcore.transport.stand_ins import Closing, OwnBytes, OwnWrites, Queue
from fastcore.transport.tls import CUT_OFF, answer_plainly, explain, is_refusal, with_own_errors

__all__ = [
    "SecureTransport",
    "StreamTransport",
    "accept_stream",
    "add_listener",
    "channel_of",
    "has_channel",
    "name_of",
    "socket_of",
    "take_listeners",
]

logger = get_logger("fastcore.channel")

#: TLS records before other connections have their turn, and the most bytes in one.
_TLS_RECORDS: Final = 64
_TLS_RECORD: Final = 16 * 1024
_TLS_AT_ONCE: Final = 16 * _TLS_RECORD
#: Bytes by which another protocol shows itself.
_FIRST: Final = 16
#: Seconds for the peer to read a last message.
_LAST_WORDS: Final = 1.0
_DROPPED_AT_ONCE: Final = 64 * 1024
#: For callbacks of the loop: each copy is one that holds nothing.
_NOWHERE: Final = Context()
_NOBODY: Final = "a peer that isn't connected"


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
    peer : str
        Who is at the other end, for the case that the socket can't tell any more.

    Attributes
    ----------
    channel : Channel
        Its messages.
    """

    __slots__ = (
        "_acknowledgements",
        "_closing",
        "_fd",
        "_is_lingering",
        "_selector",
        "_timer",
        "channel",
        "stream",
    )

    def __init__(
        self, stream: IOStream, limits: Limits, compression: str | None, writable_values: bool, peer: str
    ) -> None:
        loop: asyncio.AbstractEventLoop = stream.io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.stream = stream
        self.channel = Channel(self, loop, limits, compression, _peer_name(stream) or peer, writable_values)
        self._selector = getattr(stream.io_loop, "selector_loop", loop)
        self._fd = -1
        self._is_lingering = False
        self._timer: asyncio.TimerHandle | None = None
        self._acknowledgements: Acknowledgements | None = None
        # Tornado's types want a method and deques.
        inside: Any = stream
        own = OwnWrites(self.channel, inside._write_futures)
        before, inside._write_futures = inside._write_futures, own
        if type(before) is OwnWrites:
            # Somebody who came in between has taken the stream over.
            inside._write_futures = before
            return
        # None: it is closed.
        if (unsent := inside._write_buffer) is not None:
            unsent._buffers = Queue(unsent._buffers)
        self._closing = inside.close_fd = Closing(self, stream.close_fd)
        self._take_over_when_ready()

    # ---- what the channel asks for

    def pause(self) -> None:
        """Receive nothing."""
        self._watch(self._selector.remove_reader)

    def resume(self) -> None:
        """Receive again."""
        self._watch(self._selector.add_reader, self._readable)
        self.channel.loop.call_soon(self._readable)

    def want_write(self) -> None:
        """Be called when the socket takes bytes again, if there are any for it."""
        wants: bool | None = None
        # Until it is still so afterwards: who is found by the collector in here may write, too.
        while self._fd >= 0 and wants != (wants := self.channel.is_full or self.stream.writing()):
            if wants:
                self._watch(self._selector.add_writer, self._writable)
            else:
                self._watch(self._selector.remove_writer)

    def _watch(self, change: Callable[..., object], *callback: Callable[[], object]) -> None:
        """Change what the loop watches the socket for, unless somebody has closed it, or does so in here.

        Not in the context of whoever came here: the connection would keep what is in it for good.
        """
        if self._fd < 0:
            return
        try:
            _NOWHERE.copy().run(change, self._fd, *callback)
        except RuntimeError:
            # uvloop watches a socket no more that has an error, which receiving from it shows.
            self.channel.loop.call_soon(self._readable)
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
        if self.channel.is_foreign:
            # The way out is the parent's, too.
            self.close(None)
            return
        self._is_lingering = True
        # Of the bare socket: an SSLSocket would end both ways.
        with suppress(OSError):
            socket.socket.shutdown(socket_of(self.stream), socket.SHUT_WR)
        self._watch(self._selector.add_reader, self._readable)
        self._wait_for_the_peer(None)

    def _wait_for_the_peer(self, before: int | None) -> None:
        """Close after a moment, unless more of what was said arrives meanwhile."""
        arrived = None if self._acknowledgements is None else self._acknowledgements.arrived()
        if before is not None and arrived in (None, before):
            self.channel.close()
            return
        again = self.channel.close if arrived is None else functools.partial(self._wait_for_the_peer, arrived)
        self._timer = self.channel.loop.call_later(_LAST_WORDS, again)

    # ---- the stream

    def _take_over_when_ready(self) -> None:
        stream = self.stream
        if stream.closed():
            self.channel.ended("", stream.error)
        elif stream._connect_future is not None:
            stream._connect_future.add_done_callback(self._connected)
        else:
            self._take_over()

    def _connected(self, done: asyncio.Future[Any]) -> None:
        if not self.stream.closed():
            self._take_over()

    def _take_over(self) -> None:
        stream = self.stream
        channel = self.channel
        # Held: whoever comes in between may close the stream, which has none from then on.
        sock = socket_of(stream)
        if stream.closed():
            return
        if channel.limits.peer_timeout is not None:
            self._acknowledgements = set_peer_timeout(sock, channel.limits.peer_timeout)
        if stream._read_buffer_size:
            channel.buffer.feed(bytes(stream._read_buffer))
            stream._read_buffer.clear()
            stream._read_buffer_size = 0
        self._take_over_registration(sock)
        self._watch(self._selector.add_reader, self._readable)
        if stream.writing():
            # Bytes that somebody has written to it before.
            self.want_write()
        channel.opened(self._socket(sock), _peer_name(stream) or None, self._acknowledgements)
        look_for_resets(self)

    def _take_over_registration(self, sock: socket.socket) -> None:
        """Have the loop call this transport, and the stream think that it is called for all there is."""
        self.stream.io_loop.remove_handler(sock.fileno())
        self.stream._state = IOLoop.READ | IOLoop.WRITE | IOLoop.ERROR
        self._fd = sock.fileno()

    @property
    def _readable(self) -> Callable[[], object]:
        """What is called when bytes are there."""
        return self._drop if self._is_lingering else self.channel.receive

    def _writable(self) -> None:
        if self.stream.writing():
            self.stream._handle_write()
        if not self.stream.writing():
            self.channel.writable()
        self.want_write()

    def _drop(self) -> None:
        if self.channel.is_lost:
            return
        try:
            ended = not socket.socket.recv(socket_of(self.stream), _DROPPED_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.channel.close()

    # ---- its end

    def closing(self) -> None:
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
            if stream.error is None:
                self._say_goodbye()
            if unsent and stream.error is None:
                logger.info("closed the connection to %s with %d bytes unsent", channel.peer, unsent)
            if not channel.loop.is_closed():
                self._watch(self._selector.remove_reader)
                self._watch(self._selector.remove_writer)
            self._fd = -1
        if self._timer is not None:
            self._timer.cancel()
        self._end()

    def _end(self) -> None:
        self._closing.close_fd()
        error = self.stream.error
        if isinstance(error, OSError):
            # It is kept, and the frames that it has passed know the stream.
            error.__traceback__ = error.__context__ = None
        self.channel.ended(self._reason(), error)
        # What holds each other would be freed by the collector alone.
        self._closing.transport = None

    # ---- what TLS adds

    def _socket(self, sock: socket.socket) -> Socket:
        """Give what receives and sends: the socket's own functions, unless the stream has others."""
        stream = self.stream
        for name in ("read_from_fd", "write_to_fd"):
            if getattr(getattr(stream, name), "__func__", None) is not getattr(IOStream, name):
                # A subclass that does something to the bytes, as Tornado documents it.
                return Socket(OwnBytes(stream))
        if type(sock) is socket.socket:
            return Socket(sock, hasattr(sock, "sendmsg"), fileno=sock.fileno)
        # The other ways to send would pass by what a subclass does to the bytes.
        return Socket(sock)

    def _say_goodbye(self) -> bool:
        """Tell the peer that this was all; False if the socket doesn't take that now."""
        return True

    def _reason(self) -> str:
        """Say why it has ended, where its error doesn't."""
        return ""


class SecureTransport(StreamTransport):
    """Carries the messages of one stream over TLS, from the handshake on.

    The handshake is done here and not by Tornado, which would log each that fails, and close the
    connection before its peer has heard why.
    """

    __slots__ = (
        "_failed_behind",
        "_has_said_goodbye",
        "_is_server",
        "_may_have_more",
        "_records",
        "_refusal",
        "_shakes_hands",
    )

    stream: SSLIOStream

    def __init__(
        self, stream: IOStream, limits: Limits, compression: str | None, writable_values: bool, peer: str
    ) -> None:
        self._shakes_hands = self._has_said_goodbye = False
        self._is_server: bool = getattr(stream.socket, "server_side", False)
        #: Why the peer isn't let in.
        self._refusal: BaseException | None = None
        #: How many may still be received in this turn, and whether there may be more of them now.
        self._records = 0
        self._may_have_more = True
        #: What is wrong behind the records that were received last.
        self._failed_behind: Exception | None = None
        super().__init__(stream, limits, compression, writable_values, peer)

    # ---- its beginning

    def _take_over_when_ready(self) -> None:
        stream = self.stream
        if stream.closed() or not stream._ssl_accepting:
            super()._take_over_when_ready()
            return
        self._shakes_hands = True
        if stream._connect_future is not None:
            # Tornado connects it, and all of the handshake comes after that.
            handshake = stream._ssl_connect_future or stream.wait_for_handshake()
            handshake.add_done_callback(self._connected)
            return
        # What is written meanwhile waits.
        self._take_over_registration(stream.socket)
        self._watch(self._selector.add_reader, self._shake_hands)
        if self._is_server:
            self.channel.watch()
        else:
            self.channel.loop.call_soon(self._shake_hands)

    def _shake_hands(self) -> None:
        if not self._shakes_hands or self.stream.closed() or self.channel.is_foreign:
            return
        sock = self.stream.socket
        try:
            if self._is_server and not self.channel.first_bytes:
                self.channel.first_bytes = socket.socket.recv(sock, _FIRST, socket.MSG_PEEK)
            undisturbed(functools.partial(with_own_errors, sock, sock.do_handshake))
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(self._selector.remove_writer)
        except ssl.SSLWantWriteError:
            self._watch(self._selector.add_writer, self._shake_hands)
        except Exception as error:
            self.channel.over_limit(error)
        else:
            self._watch(self._selector.remove_writer)
            if self.stream.closed():
                return
            self.stream._ssl_accepting = False
            self.stream._finish_ssl_connect()
            self._take_over()

    def _take_over(self) -> None:
        self._shakes_hands = False
        # An end without the peer's word is to be told from one that it wanted.
        self.channel.first_bytes = b""
        sock: Any = self.stream.socket
        if sock is not None:
            sock.suppress_ragged_eofs = False
            super()._take_over()

    # ---- what comes

    def _socket(self, sock: socket.socket) -> Socket:
        return Socket(self, bare_fileno=sock.fileno)

    def recv_into(self, memory: memoryview) -> int | None:
        """Receive a record; of a large message, as many as there is room for."""
        if self._failed_behind is not None:
            raise self._failed_behind
        self._may_have_more = True
        received = self._receive_record(memory)
        self._records -= 1
        while received and received % _TLS_RECORD == 0 and received < len(memory) and self._records > 0:
            try:
                more = self._receive_record(memory[received:])
            except Exception as error:
                # Not before what has come.
                self._failed_behind = error
                break
            self._records -= 1
            if not more:
                # The end, if it is that, will be told again. What else comes is announced: to ask once more
                # would be a system call and an error for nothing, with each record that comes alone.
                self._may_have_more = more is not None
                break
            received += more
        return received

    def _receive_record(self, memory: memoryview) -> int | None:
        return with_own_errors(self.stream.socket, self.stream.read_from_fd, memory)

    def send(self, data: memoryview) -> int:
        """Send a record; of a large message, some more, if that takes no other turn."""
        sent = self._send_record(data)
        while sent and sent % _TLS_RECORD == 0 and sent < min(len(data), _TLS_AT_ONCE):
            more = self._send_record(data[sent:])
            if not more:
                break
            sent += more
        return sent

    def _send_record(self, data: memoryview) -> int:
        return with_own_errors(self.stream.socket, self.stream.write_to_fd, data)

    @property
    def _readable(self) -> Callable[[], object]:
        return super()._readable if self._is_lingering else self._receive_records

    def _receive_records(self) -> None:
        """Receive record after record: no event announces what the TLS layer holds."""
        channel = self.channel
        self._records = _TLS_RECORDS
        while self._records > 0:
            if channel.is_paused or channel.failure is not None or not channel.receive():
                return
            if not self._may_have_more:
                return
        channel.loop.call_soon(self._receive_records)

    # ---- its end

    def close(self, error: BaseException | None) -> None:
        """Close the stream: because of an error, or because the peer closed it."""
        error = error or self._refusal
        if self.channel.is_foreign:
            # What TLS says at its end, the parent would have said with it.
            super().close(error)
        elif self._shakes_hands and self._is_server and is_refusal(error):
            # To close at once could reset the connection, and what says why would be lost.
            self._shakes_hands = False
            self._refusal = error
            self._has_said_goodbye = True
            self._watch(self._selector.remove_writer)
            answer_plainly(self.stream.socket, error)
            self.linger()
        elif error is None and not self.channel.is_open and not self._say_goodbye():
            # It goes on when the socket takes more, and comes back here.
            self.channel.hold_back()
        else:
            super().close(error)

    def linger(self) -> None:
        """Close the way out, and drop what still comes, until the peer has closed its side."""
        if self.channel.is_foreign or self._say_goodbye():
            super().linger()
        else:
            self.channel.hold_back()

    def _say_goodbye(self) -> bool:
        sock = self.stream.socket
        # None: closed by somebody who came in between.
        if sock is not None and not self._has_said_goodbye and not self._shakes_hands:
            try:
                undisturbed(functools.partial(with_own_errors, sock, sock.unwrap))
            except ssl.SSLWantWriteError:
                return False
            except (OSError, ValueError):
                # It is on its way, and the peer's own isn't here yet; or the connection has ended.
                pass
            self._has_said_goodbye = True
        return True

    def _reason(self) -> str:
        if isinstance(self.stream.error, ssl.SSLEOFError):
            # Without the peer's word, nobody knows whether that was all it had to say.
            return CUT_OFF
        return explain(self.stream.error, server_side=self._is_server) or ""


def has_channel(stream: IOStream) -> bool:
    """Tell whether messages go over a stream already."""
    return type(getattr(stream, "_write_futures", None)) is OwnWrites


def channel_of(
    stream: IOStream,
    limits: Limits = DEFAULT_LIMITS,
    compression: str | None = None,
    writable_values: bool = False,
    *,
    peer: str = "",
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
    peer : str
        Who is at the other end, for the case that its socket can't tell any more.

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
    if has_channel(stream):
        channel: Channel = stream._write_futures.channel  # type: ignore[attr-defined]
        return channel
    if not isinstance(stream, IOStream):
        raise TypeError(f"messages go over a tornado.iostream.IOStream, not {stream!r}")
    check_thread_of(stream.io_loop.asyncio_loop, "a stream")  # type: ignore[attr-defined]
    kind = SecureTransport if isinstance(stream, SSLIOStream) else StreamTransport
    kind(stream, limits, compression, writable_values, peer or _NOBODY)
    channel = stream._write_futures.channel  # type: ignore[attr-defined]
    return channel


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
        sock = secure
        # One whose peer had gone before that would never begin.
        secure.getpeername()
    except BaseException:
        sock.close()
        raise
    return SSLIOStream(secure, **options)


def add_listener(server: TCPServer, sock: socket.socket, stop: Callable[[], None]) -> None:
    """Let Tornado know of a socket that listens, and how to accept no more from it."""
    # In this order: whoever comes in between to stop the server finds both of a socket or none.
    number = sock.fileno()
    server._handlers[number] = stop
    server._sockets[number] = sock


def take_listeners(server: TCPServer) -> list[tuple[socket.socket, Callable[[], None]]]:
    """Take the sockets that a server listens on, or was going to, and how to accept no more from each."""
    listeners = []
    with suppress(KeyError):
        # One by one: each is taken once, also where somebody comes in between who stops the server, too.
        while True:
            number, sock = server._sockets.popitem()
            listeners.append((sock, server._handlers.pop(number)))
    waiting, server._pending_sockets = server._pending_sockets, []
    return listeners + [(sock, sock.close) for sock in waiting]


def socket_of(stream: IOStream) -> socket.socket:
    """Give the socket of a stream; None for one that is closed, which Tornado's types don't say."""
    return stream.socket  # pyright: ignore[reportReturnType]


def _peer_name(stream: IOStream) -> str:
    """Name the other end; empty where the socket doesn't know it any more."""
    try:
        return name_of(socket_of(stream).getpeername())
    except (OSError, AttributeError):
        return ""


def name_of(address: Any) -> str:
    """Name a socket's address, as `accept` and `getpeername` give it."""
    if isinstance(address, tuple):
        host, port = address[:2]
        scope = address[3] if len(address) == 4 else 0
        return format_address((f"{host}%{_interface(scope)}" if scope else host, port))
    return f"unix:{address}" if address else "a unix socket"


def _interface(scope: int) -> str | int:
    """Name the interface on which a link-local address of IPv6 is one."""
    try:
        return socket.if_indextoname(scope)
    except OSError:
        return scope
