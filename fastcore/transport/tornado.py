"""Messages over one stream: the way between a Tornado stream's socket and a waiting caller.

A Channel takes an ``IOStream`` over at the first message. From then on it stays
registered for reading, receives straight into its MessageBuffer's memory, and sends
inline, so that a message costs one turn of the loop and no change of registration.
Whoever made the stream keeps using it: closing it, asking whether it is closed, and
its close callback work as ever.

What reads messages is either somebody's Future (``read``), or a reader that is given
them as they come (``claim``, for Server and rpc); never two at once. What is done for
each message is in ``_path.pyx``; here is what is done once for a connection.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream

from fastcore._futures import unobserved
from fastcore._path import MessagePath
from fastcore.addressing import format_address
from fastcore.errors import ConnectionLost, LimitReached
from fastcore.limits import DEFAULT_LIMITS, Limits
from fastcore.logs import get_logger
from fastcore.transport.keepalive import set_peer_timeout
from fastcore.transport.loops import in_thread_of, run_in_thread_of
from fastcore.transport.tls import answer_plainly, explain
from fastcore.watchdog import Watchdog

__all__ = ["Channel", "channel_of"]

logger = get_logger("fastcore.channel")

#: TLS records, of at most 16 KiB each, before other connections have their turn.
_TLS_RECORDS = 64


class Channel(MessagePath):
    """The messages of one stream.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        An open stream, or one whose connection or TLS handshake is under way.
    limits : Limits
        What the peer may cost.
    compression : str, optional
        The compression of outgoing messages.
    """

    __slots__ = (
        "_close_fd",
        "_fd",
        "_handshake_timer",
        "_on_readable",
        "_selector",
        "_watchdog",
        "is_idle",
        "on_limit",
        "on_lost",
        "peer",
        "stream",
    )

    def __init__(
        self, stream: IOStream, limits: Limits = DEFAULT_LIMITS, compression: str | None = None
    ) -> None:
        super().__init__(stream.io_loop.asyncio_loop, limits, compression)  # type: ignore[attr-defined]
        self.stream = stream
        self.peer = _peer_name(stream)
        #: Called when the connection ends, by whoever keeps count of it.
        self.on_lost: Callable[[], None] | None = None
        #: Called with the error when the peer takes longer than it may; ``close`` if None.
        self.on_limit: Callable[[Exception], None] | None = None
        #: Tells whether nobody here works for the peer, so that silence is idleness.
        self.is_idle: Callable[[], bool] | None = None
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._watchdog = Watchdog(self, limits)
        self._selector = getattr(stream.io_loop, "selector_loop", self.loop)
        self._on_readable: Callable[[], object]
        self._attach()

    def __repr__(self) -> str:
        state = "lost" if self.lost else "closing" if self.closing else "open"
        return f"<Channel to {self.peer}: {state}, {self.outbox.unsent} bytes unsent>"

    # -- Figures ------------------------------------------------------------------

    @property
    def failure(self) -> Exception | None:
        """The error after which no further message can be read, if there was one."""
        return self.buffer.failure

    @property
    def unread(self) -> int:
        """Bytes that have arrived, of messages that nobody took."""
        return self.buffer.pending + self.size_ahead

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self.outbox.unsent

    @property
    def held(self) -> int:
        """Bytes of memory that hold what has arrived and what waits to be sent."""
        return (sys.getsizeof(self.buffer) if self.buffer else 0) + self.size_ahead + self.outbox.unsent

    @property
    def messages_in(self) -> int:
        """Messages that were taken, or decoded ahead, ever."""
        return self.buffer.taken

    @property
    def bytes_in(self) -> int:
        """Bytes received, ever."""
        return self.buffer.received

    @property
    def bytes_out(self) -> int:
        """Bytes sent, ever."""
        return self.outbox.sent

    # -- What is done now and then --------------------------------------------------

    def close_when_sent(self) -> None:
        """Close the stream as soon as all messages have left."""
        self.closing = True
        if not self.outbox.unsent:
            self.close()

    def pause(self) -> None:
        """Receive nothing while too much waits that nobody reads."""
        self.paused = True
        self._selector.remove_reader(self._fd)

    def resume(self) -> None:
        """Receive again, after nobody read for a while."""
        self.paused = False
        self._selector.add_reader(self._fd, self._on_readable)
        self.loop.call_soon(self._on_readable)

    def watch(self) -> None:
        """Have an eye on the time: the peer has begun what it must not leave unfinished."""
        self._watchdog.wake()

    def rest(self) -> None:
        """Have an eye on the time no longer, if the peer has finished it."""
        self._watchdog.rest()

    def divert(self, on_readable: Callable[[], object]) -> None:
        """Receive no further messages; the callback takes what the socket has."""
        self.reader = None
        self._on_readable = on_readable
        if self.is_open:
            self.paused = False
            self._selector.add_reader(self._fd, on_readable)

    # -- The stream ---------------------------------------------------------------

    def _attach(self) -> None:
        """Take the stream over, once it is connected and its handshake done."""
        stream = self.stream
        stream._fastcore_channel = self  # type: ignore[attr-defined]
        # Every way of closing a stream passes here, while it can still send.
        self._close_fd = stream.close_fd
        stream.close_fd = self._before_close  # type: ignore[method-assign]
        if stream.closed():
            self.lost = f"the connection to {self.peer} is closed"
        elif stream._connecting and stream._connect_future is not None:
            stream._connect_future.add_done_callback(self._connected)
        elif isinstance(stream, SSLIOStream) and stream._ssl_accepting:
            handshake = stream._ssl_connect_future or stream.wait_for_handshake()
            handshake.add_done_callback(self._connected)
            if self.limits.handshake_timeout is not None:
                self._handshake_timer = self.loop.call_later(
                    self.limits.handshake_timeout, self._no_handshake
                )
        else:
            self._take_over()

    def _no_handshake(self) -> None:
        error = LimitReached(
            "handshake_timeout", f"no TLS handshake within {self.limits.handshake_timeout:g} s"
        )
        (self.on_limit or self.close)(error)

    def _connected(self, done: asyncio.Future[Any]) -> None:
        if not self.stream.closed():
            self._take_over()
            self.flush()

    def _take_over(self) -> None:
        stream = self.stream
        sock: Any = stream.socket  # it is open
        self.peer = _peer_name(stream)
        if self.limits.peer_timeout is not None:
            set_peer_timeout(sock, self.limits.peer_timeout)
        if isinstance(stream, SSLIOStream):
            self._on_readable = self._receive_tls
            self.use(stream.read_from_fd, stream.write_to_fd, None)
        else:
            self._on_readable = self.receive
            self.use(sock.recv_into, sock.send, getattr(sock, "sendmsg", None), sock.fileno)
        if stream._read_buffer_size:
            self.buffer.feed(bytes(stream._read_buffer))
            stream._read_buffer.clear()
            stream._read_buffer_size = 0
        if stream._state is not None:
            stream.io_loop.remove_handler(stream.fileno())
            stream._state = None
        # From here on the channel has the socket registered, and not the stream.
        stream._add_io_state = self._stream_wants  # type: ignore[method-assign]
        self._fd: int = sock.fileno()
        self._selector.add_reader(self._fd, self._on_readable)
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        self._watchdog.start()

    def _stream_wants(self, state: int) -> None:
        if state & IOLoop.WRITE:
            # Somebody writes bytes of their own to the stream, and the socket is full.
            self.update_writer()

    def update_writer(self) -> None:
        """Be called when the socket takes bytes again, if there are any for it."""
        if self.full or self.stream.writing():
            self._selector.add_writer(self._fd, self._writable)
        else:
            self._selector.remove_writer(self._fd)

    def _writable(self) -> None:
        if self.stream.writing():
            self.stream._handle_write()
        if self.is_open:
            self.flush()
        if self.is_open:
            self.update_writer()

    def _receive_tls(self) -> None:
        """Receive record after record: no event announces what the TLS layer holds."""
        for _ in range(_TLS_RECORDS):
            if self.paused or not self.is_open or self.failure is not None or not self.receive():
                return
        self.loop.call_soon(self._receive_tls)

    def close(self, error: BaseException | None = None) -> None:
        """Close the stream because of an error, or because the peer closed it."""
        self.stream.close(exc_info=error if error is not None else False)

    def close_from_any_thread(self) -> None:
        """Close the stream in its own loop's thread if that runs, else at once."""
        if in_thread_of(self.loop):
            self.close()
        else:
            self.loop.call_soon_threadsafe(self.close)

    def _before_close(self) -> None:
        """Run while the stream is closing, whoever closes it.

        Classic programs close a stream from a thread that isn't its loop's, and count on
        its descriptor being free when that returns.
        """
        run_in_thread_of(self.loop, self._finish)

    def _finish(self) -> None:
        if self.is_open:
            if self.outbox.unsent and self.stream.error is None:
                self._send_the_rest()
            if not self.loop.is_closed():
                self._selector.remove_reader(self._fd)
                self._selector.remove_writer(self._fd)
            self.leave()
        elif isinstance(self.stream, SSLIOStream):
            answer_plainly(self.stream.socket, self.stream.error)
        self._close_fd()
        self._end()

    def _send_the_rest(self) -> None:
        """Send the messages of this turn, that their writer was told are on their way."""
        with suppress(OSError):
            self.outbox.flush(self.send_bytes, self.sendmsg)
        if self.outbox.unsent:
            logger.info("closed the connection to %s with %d bytes unsent", self.peer, self.outbox.unsent)

    def _end(self) -> None:
        """Tell everybody who waits that the connection has ended."""
        why = explain(self.stream.error)
        self.lost = f"the connection to {self.peer} was closed{': ' + why if why else ''}"
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        self._watchdog.stop()
        writers = self.give_up_writers()
        if self.on_lost is not None:
            self.on_lost()
        if self.loop.is_closed():
            return
        for future in writers:
            if not future.done():
                future.set_exception(self.lost_error())
                unobserved(future)
        self.loop.call_soon(self.look)
        if self.on_drained is not None:
            self.loop.call_soon(self.on_drained)

    def lost_error(self, when: str = "") -> ConnectionLost:
        """Make the error for somebody who needed the connection after it ended."""
        return ConnectionLost(f"{self.lost}{when}", self.stream.error)

    def busy_error(self) -> RuntimeError:
        """Make the error for somebody who would read beside the one reader."""
        return RuntimeError(f"two readers at once: messages from {self.peer} are being read")


def channel_of(stream: IOStream, limits: Limits = DEFAULT_LIMITS, compression: str | None = None) -> Channel:
    """Give the channel of a stream; make it if this is the first message.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        Any: of ``connect``, of a Server, or one that the caller made.
    limits : Limits
        What the peer may cost, for a stream that has no channel yet.
    compression : str, optional
        The compression of outgoing messages, for a stream that has no channel yet.

    Returns
    -------
    Channel

    Raises
    ------
    TypeError
        If it isn't a stream.
    """
    channel: Channel | None = getattr(stream, "_fastcore_channel", None)
    if channel is not None:
        return channel
    if not isinstance(stream, IOStream):
        raise TypeError(f"messages go over a tornado.iostream.IOStream, not {stream!r}")
    return Channel(stream, limits, compression)


def _peer_name(stream: IOStream) -> str:
    try:
        sock: Any = stream.socket  # None, where it was closed
        name = sock.getpeername()
    except (OSError, AttributeError):
        return "a peer that isn't connected"
    if isinstance(name, tuple):
        return format_address((name[0], name[1]))
    return f"unix:{name}" if name else "a unix socket"
