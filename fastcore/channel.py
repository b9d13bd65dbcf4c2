"""Messages over one stream: the way between a Tornado stream's socket and a waiting caller.

A Channel takes an ``IOStream`` over at the first message. From then on it stays
registered for reading, receives straight into its MessageBuffer's memory, and sends
inline, so that a message costs one turn of the loop and no change of registration.
Whoever made the stream keeps using it: closing it, asking whether it is closed, and
its close callback work as ever.

What reads messages is either somebody's Future (``read``), or a callback that takes
them as they come (``on_ready``, for Server and rpc); never two at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream

from fastcore._framing import MessageBuffer
from fastcore.addressing import format_address
from fastcore.errors import ConnectionLost, FrameTooLarge
from fastcore.limits import DEFAULT_LIMITS, Limits
from fastcore.protocol import Piece, decode, encode, read_header

__all__ = ["NOTHING", "Channel", "channel_of", "unobserved"]

logger = logging.getLogger("fastcore.channel")

#: What ``next_message`` gives while no message is complete; None is a message.
NOTHING: Final = object()

#: Bytes asked for in one receive. What is lent may be more, where a frame's length is known.
_RECEIVE = 128 * 1024
#: Bytes received over TLS before other connections have their turn.
_RECEIVE_TLS = 1024 * 1024
#: Small writes of one turn leave together, at the latest when there are this many bytes.
_BATCH = 64 * 1024
#: Below this size, gluing pieces together costs less than handing them over one by one.
_GLUE = 16 * 1024
#: Nobody reads: stop receiving when this many bytes wait.
_HIGH_WATER = 256 * 1024
#: Messages that may be read, or written, without giving other connections a turn.
MESSAGES_PER_TURN: Final = 256
#: The most pieces that one system call takes.
_MAX_PIECES = 512


class Channel:
    """The messages of one stream.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        An open stream, or one whose connection or TLS handshake is under way.
    limits : Limits
        What the peer may cost.
    compression : str, optional
        The compression of outgoing messages.

    Attributes
    ----------
    on_ready : callable or None
        Called once, without arguments, when there may be a message or the connection
        has ended. Whoever sets it is the channel's one reader.
    """

    def __init__(
        self, stream: IOStream, limits: Limits = DEFAULT_LIMITS, compression: str | None = None
    ) -> None:
        self.stream = stream
        self.loop: asyncio.AbstractEventLoop = stream.io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.peer = _peer_name(stream)
        self.compression = compression
        self.limits = limits
        self.on_ready: Callable[[], None] | None = None
        #: Called when the connection ends, by whoever keeps count of it.
        self.on_lost: Callable[[], None] | None = None
        #: Why the connection has ended; None while it lasts.
        self.lost: str | None = None
        #: Whether the socket takes no more for now; ``on_drained`` is called when it does.
        self.full = False
        self.on_drained: Callable[[], None] | None = None
        #: Whether the stream will be closed when all messages have left.
        self.closing = False

        self._buffer = MessageBuffer(
            read_header,
            max_frame_size=limits.max_buffer_size,
            max_header_size=limits.max_header_size,
        )
        self._reader: asyncio.Future[Any] | None = None
        self._read_in_turn = 0

        self._out: deque[Piece] = deque()
        self._unsent = 0
        self._sent = 0
        self._corked = False
        self._sent_in_turn = False
        self._turn_ends = False
        self._written_in_turn = 0
        # (how many bytes must have been sent in all, who waits for that)
        self._writers: deque[tuple[int, asyncio.Future[None]]] = deque()

        self._open = False
        self._paused = False
        self._attach()

    def __repr__(self) -> str:
        state = "lost" if self.lost else "closing" if self.closing else "open"
        return f"<Channel to {self.peer}: {state}, {self._unsent} bytes unsent>"

    # -- Reading ------------------------------------------------------------------

    def read(self) -> asyncio.Future[Any]:
        """Give a Future of the next message."""
        future = self.loop.create_future()
        try:
            self.claim(self._resolve_reader)
        except RuntimeError as error:
            future.set_exception(error)
            return unobserved(future)
        self._reader = future
        self._read_in_turn += 1
        if self._read_in_turn > MESSAGES_PER_TURN:
            # The message stays where it is for a turn, so a read given up loses nothing.
            self._read_in_turn = 0
            self.loop.call_soon(self._ready)
        else:
            self._ready()
        return future

    def _resolve_reader(self) -> None:
        future = self._reader
        assert future is not None
        if _given_up(future):
            self._reader = None
            return
        try:
            message = self.next_message()
        except Exception as error:
            self._reader = None
            future.set_exception(error)
            unobserved(future)
            if self.failure is not None:
                self.close(error)
            return
        if message is NOTHING:
            self.on_ready = self._resolve_reader
        else:
            self._reader = None
            future.set_result(message)

    def _reader_gave_up(self) -> bool:
        return self._reader is not None and _given_up(self._reader)

    def next_message(self) -> Any:
        """Take the next message that has arrived.

        Returns
        -------
        object
            The message, or NOTHING.

        Raises
        ------
        BadFrame, BadMessage
            If its bytes are no message. The next call gives the next message, unless
            ``failure`` is set: then there will be none.
        ConnectionLost
            If the connection has ended and all its messages were taken.
        """
        try:
            parts = self._buffer.next_message()
        except FrameTooLarge as error:
            if error.what == "frame":
                error.keyword = "max_buffer_size"
            raise
        if parts is not None:
            return decode(*parts, self.limits.max_decompressed_size or self.limits.max_buffer_size)
        if self.lost is not None:
            raise self.lost_error()
        if self._paused:
            self._paused = False
            self._update_events()
        return NOTHING

    @property
    def failure(self) -> Exception | None:
        """The error after which no further message can be read, if there was one."""
        return self._buffer.failure

    @property
    def unread(self) -> int:
        """Bytes that have arrived and that nobody took."""
        return len(self._buffer)

    def _ready(self) -> None:
        on_ready = self.on_ready
        if on_ready is not None:
            self.on_ready = None
            on_ready()

    # -- Writing ------------------------------------------------------------------

    def write(self, message: object) -> asyncio.Future[None]:
        """Send a message; give a Future that is done when it is safe to go on.

        It is done at once unless the connection is full; then it is done when the
        message has left. It holds the error, where there is one.
        """
        future: asyncio.Future[None] = self.loop.create_future()
        try:
            self.send(message)
        except Exception as error:
            future.set_exception(error)
            return unobserved(future)
        self._written_in_turn += 1
        if self.full:
            self._writers.append((self._sent + self._unsent, future))
        elif self._written_in_turn > MESSAGES_PER_TURN:
            self._written_in_turn = 0
            self.loop.call_soon(_set_done, future)
        else:
            future.set_result(None)
        return future

    def send(self, message: object) -> None:
        """Send a message without waiting until it has left.

        The first one of a turn leaves at once; what follows in the same turn leaves
        together at its end.
        """
        if self.lost is not None:
            raise self.lost_error()
        pieces = encode(message, self.compression)
        self._out.extend(pieces)
        self._unsent += sum(map(len, pieces))
        if self.full or not self._open:
            return
        if self._unsent >= _BATCH or not (self._sent_in_turn or self._corked):
            self._sent_in_turn = True
            self._flush()
        elif not (self._turn_ends or self._corked):
            self._turn_ends = True
            self.loop.call_soon(self._end_turn)

    def cork(self) -> None:
        """Hold messages back until :meth:`uncork`."""
        self._corked = True

    def uncork(self) -> None:
        """Send what was held back, in as few system calls as it takes."""
        self._corked = False
        if self._unsent and self._open and not self.full:
            self._flush()

    def close_when_sent(self) -> None:
        """Close the stream as soon as all messages have left."""
        self.closing = True
        if not self._unsent:
            self.stream.close()

    def _end_turn(self) -> None:
        self._turn_ends = False
        self._sent_in_turn = False
        self._written_in_turn = 0
        if self._unsent and not self.full and self.lost is None:
            self._flush()

    def _flush(self) -> None:
        """Send until all is sent or the socket is full."""
        try:
            while self._unsent:
                sent = self._send_some()
                if sent == 0:
                    break
                self._advance(sent)
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(error)
            return
        self._set_full(self._unsent > 0)
        while self._writers and self._writers[0][0] <= self._sent:
            _set_done(self._writers.popleft()[1])
        if self._unsent:
            return
        if self.closing:
            self.stream.close()
        elif self.on_drained is not None:
            on_drained, self.on_drained = self.on_drained, None
            self.loop.call_soon(on_drained)

    def _send_some(self) -> int:
        out = self._out
        if len(out) > 1:
            if self._unsent <= _GLUE or (len(out) > 8 and len(out[0]) < _GLUE):
                self._glue()
            elif self._sendmsg is not None:
                return self._sendmsg(list(islice(out, _MAX_PIECES)))
        return self._send(out[0])

    def _glue(self) -> None:
        """Make one piece of the small ones at the front."""
        out = self._out
        small: list[Piece] = []
        while out and len(out[0]) < _GLUE:
            small.append(out.popleft())
        out.appendleft(b"".join(small))

    def _advance(self, sent: int) -> None:
        self._sent += sent
        self._unsent -= sent
        out = self._out
        while sent:
            piece = out.popleft()
            if len(piece) > sent:
                out.appendleft(memoryview(piece)[sent:])
                return
            sent -= len(piece)

    def _set_full(self, full: bool) -> None:
        if full is not self.full:
            self.full = full
            self._update_events()

    # -- The stream ---------------------------------------------------------------

    def _attach(self) -> None:
        """Take the stream over, once it is connected and its handshake done."""
        stream = self.stream
        setattr(stream, _ATTRIBUTE, self)
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
        else:
            self._take_over()

    def _connected(self, done: asyncio.Future[Any]) -> None:
        if not self.stream.closed():
            self._take_over()
            self._flush()

    def _take_over(self) -> None:
        stream = self.stream
        self._open = True
        self.peer = _peer_name(stream)
        self._tls = isinstance(stream, SSLIOStream)
        # The socket's own methods, where there is nothing between it and the bytes.
        self._receive_into: Callable[[memoryview], int | None] = stream.read_from_fd
        self._send: Callable[[Any], int] = stream.write_to_fd
        self._sendmsg: Callable[[list[Piece]], int] | None = None
        if not self._tls:
            self._receive_into = stream.socket.recv_into
            self._send = stream.socket.send
            self._sendmsg = getattr(stream.socket, "sendmsg", None)
        if stream._read_buffer_size:
            self._buffer.feed(bytes(stream._read_buffer))
            stream._read_buffer.clear()
            stream._read_buffer_size = 0
        if stream._state is not None:
            stream.io_loop.remove_handler(stream.fileno())
        stream._state = IOLoop.READ | IOLoop.ERROR
        stream.io_loop.add_handler(stream.fileno(), self._handle_events, stream._state)

    def _update_events(self) -> None:
        stream = self.stream
        if self.lost is not None or not self._open:
            return
        events = IOLoop.ERROR
        if not self._paused:
            events |= IOLoop.READ
        if self.full or stream.writing():
            events |= IOLoop.WRITE
        stream._state = events
        stream.io_loop.update_handler(stream.fileno(), events)

    def _handle_events(self, fd: object, events: int) -> None:
        if events & IOLoop.READ:
            self._receive()
        if events & IOLoop.WRITE and self.lost is None:
            if self.stream.writing():
                # Somebody wrote bytes of their own to the stream.
                self.stream._handle_write()
            self._flush()

    def _receive(self) -> None:
        self._sent_in_turn = False
        self._read_in_turn = self._written_in_turn = 0
        received = self._receive_once()
        if self._tls:
            # The TLS layer may hold bytes that no event will announce.
            while received and received < _RECEIVE_TLS and (more := self._receive_once()):
                received += more
            if received >= _RECEIVE_TLS and self.lost is None:
                self.loop.call_soon(self._receive)
        if received == 0:
            return
        self._ready()
        if self.on_ready is None and self.unread >= _HIGH_WATER and not self._paused:
            self._paused = True
            self._update_events()

    def _receive_once(self) -> int:
        """Receive what one system call gives; 0 if there was nothing, or the peer is gone."""
        buffer = self._buffer
        try:
            size = self._receive_into(buffer.prepare(_RECEIVE))
        except BlockingIOError:
            size = None
        except OSError as error:
            buffer.commit(0)
            self.close(error)
            return 0
        buffer.commit(size or 0)
        if size == 0:
            self.close()
        return size or 0

    def close(self, error: BaseException | None = None) -> None:
        """Close the stream because of an error, or because the peer closed it."""
        if self.loop.is_closed():
            # There is no loop any more to take the registration from.
            self.stream._state = None
        self.stream.close(exc_info=error if error is not None else False)

    def close_from_any_thread(self) -> None:
        """Close the stream in its own loop's thread if that runs, else at once."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self.loop or not self.loop.is_running():
            self.close()
        else:
            self.loop.call_soon_threadsafe(self.close)

    def _before_close(self) -> None:
        """Run while the stream is closing, whoever closes it."""
        if self._unsent and self._open and self.stream.error is None:
            # Messages of this turn, that their writer was told are on their way.
            try:
                while self._unsent and (sent := self._send_some()):
                    self._advance(sent)
            except OSError:
                logger.info("closing the connection to %s with %d bytes unsent", self.peer, self._unsent)
        self._close_fd()
        self._end()

    def _end(self) -> None:
        """Tell everybody who waits that the connection has ended."""
        middle = " in the middle of a message" if self.unread else ""
        self.lost = f"the connection to {self.peer} was closed{middle}"
        self._out.clear()
        self._unsent = 0
        writers, self._writers = self._writers, deque()
        if self.on_lost is not None:
            self.on_lost()
        if self.loop.is_closed():
            return
        for _, future in writers:
            if not future.done():
                future.set_exception(self.lost_error())
                unobserved(future)
        if self.on_ready is not None:
            self.loop.call_soon(self._ready)
        if self.on_drained is not None:
            self.loop.call_soon(self.on_drained)

    def claim(self, on_ready: Callable[[], None]) -> None:
        """Become the one reader; the callback is called when there is something to take.

        Raises
        ------
        RuntimeError
            If somebody else reads.
        """
        if self.on_ready is not None and not self._reader_gave_up():
            raise RuntimeError(f"two readers at once: messages from {self.peer} are being read")
        self.on_ready = on_ready

    def lost_error(self) -> ConnectionLost:
        """Make the error for somebody who needed the connection after it ended."""
        return ConnectionLost(self.lost or "", self.stream.error)


_ATTRIBUTE: Final = "_fastcore_channel"


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
    """
    channel: Channel | None = getattr(stream, _ATTRIBUTE, None)
    if channel is None:
        channel = Channel(stream, limits, compression)
    return channel


def _peer_name(stream: IOStream) -> str:
    try:
        name = stream.socket.getpeername()
    except (OSError, AttributeError):
        return "a peer that isn't connected"
    if isinstance(name, tuple):
        return format_address((name[0], name[1]))
    return f"unix:{name}" if name else "a unix socket"


def _given_up(future: asyncio.Future[Any]) -> bool:
    """Whether nobody waits for a Future any more.

    ``gen.with_timeout`` doesn't cancel what it waited for. The one trace that it leaves
    is the callback that will log the error, should there be one.
    """
    if future.done():
        return True
    callbacks = getattr(future, "_callbacks", None) or ()
    return any(
        getattr(callback, "__qualname__", "") == "with_timeout.<locals>.error_callback"
        for callback, _ in callbacks
    )


def unobserved(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """Keep the loop from logging an error that nobody looked at."""
    if not future.cancelled():
        future.exception()
    return future


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
