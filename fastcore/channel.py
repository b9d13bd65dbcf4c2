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
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream

from fastcore._framing import MessageBuffer
from fastcore.addressing import format_address
from fastcore.errors import ConnectionLost, FrameTooLarge, LimitReached
from fastcore.futures import given_up, set_result_now, unobserved
from fastcore.limits import DEFAULT_LIMITS, MAX_DEPTH, Limits
from fastcore.logs import get_logger
from fastcore.outbox import Outbox
from fastcore.protocol import Piece, bad_payload, decode, encode, read_header, unpack
from fastcore.sockets import set_peer_timeout
from fastcore.tls import answer_plainly, explain
from fastcore.watchdog import Watchdog

__all__ = ["CHANNEL", "NOTHING", "Channel", "channel_of"]

logger = get_logger("fastcore.channel")

#: What ``next_message`` gives while no message is complete; None is a message.
NOTHING: Final = object()

#: Bytes asked for in one receive. What is lent may be more, where a frame's length is known.
_RECEIVE = 128 * 1024
#: TLS records, of at most 16 KiB each, before other connections have their turn.
_TLS_RECORDS = 64
#: Small writes of one turn leave together, at the latest when there are this many bytes.
_BATCH = 64 * 1024
#: Messages that may be read, or written, without giving other connections a turn.
MESSAGES_PER_TURN: Final = 256


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
        Called without arguments whenever there may be a message, and when the connection
        has ended. Whoever has set it is the channel's one reader.
    """

    # With more than 30 attributes, a dict would make each access slower.
    __slots__ = (
        "_checks_depth",
        "_close_fd",
        "_fd",
        "_handshake_timer",
        "_max_decompressed_size",
        "_max_waiting",
        "_on_readable",
        "_open",
        "_outbox",
        "_read_in_turn",
        "_reader",
        "_receive_into",
        "_selector",
        "_send",
        "_sendmsg",
        "_sent_in_turn",
        "_turn_ends",
        "_watchdog",
        "_writers",
        "_written_in_turn",
        "buffer",
        "closing",
        "compression",
        "full",
        "is_idle",
        "limits",
        "loop",
        "lost",
        "messages_out",
        "on_drained",
        "on_limit",
        "on_lost",
        "on_ready",
        "paused",
        "peer",
        "stream",
    )

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
        #: Called with the error when the peer takes longer than it may; ``close`` if None.
        self.on_limit: Callable[[Exception], None] | None = None
        #: Tells whether nobody here works for the peer, so that silence is idleness.
        self.is_idle: Callable[[], bool] | None = None
        #: Messages sent, ever.
        self.messages_out = 0

        self.buffer = MessageBuffer(
            read_header,
            max_frame_size=limits.max_buffer_size,
            max_header_size=limits.max_header_size,
        )
        self._max_decompressed_size = limits.max_decompressed_size or limits.max_buffer_size
        self._checks_depth = limits.max_depth < MAX_DEPTH
        self._max_waiting = limits.max_waiting
        # The Future of the read that waits; then on_ready is _resolve_reader.
        self._reader: asyncio.Future[Any] | None = None
        self._read_in_turn = 0

        self._outbox = Outbox()
        self._sent_in_turn = False
        self._turn_ends = False
        self._written_in_turn = 0
        # (how many bytes must have been sent in all, who waits for that)
        self._writers: deque[tuple[int, asyncio.Future[None]]] = deque()

        # Whether the socket is the channel's: connected, and its TLS handshake done.
        self._open = False
        #: Whether too much has arrived; it goes on when ``next_message`` finds no more.
        self.paused = False
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._watchdog = Watchdog(self, limits)
        self._selector = getattr(stream.io_loop, "selector_loop", self.loop)
        self._on_readable: Callable[[], object]
        self._receive_into: Callable[[memoryview], int | None]
        self._send: Callable[[Any], int]
        self._sendmsg: Callable[[list[Piece]], int] | None = None
        self._attach()

    def __repr__(self) -> str:
        state = "lost" if self.lost else "closing" if self.closing else "open"
        return f"<Channel to {self.peer}: {state}, {self._outbox.unsent} bytes unsent>"

    # -- Reading ------------------------------------------------------------------

    def read(self) -> asyncio.Future[Any]:
        """Give a Future of the next message."""
        future: asyncio.Future[Any] = asyncio.Future(loop=self.loop)
        try:
            if self.on_ready is not None:
                self._take_from_reader()
            if self._read_in_turn < MESSAGES_PER_TURN:
                self._read_in_turn += 1
                message = self.next_message()
                if message is not NOTHING:
                    future.set_result(message)
                    return future
            else:
                # The message stays where it is for a turn, so a read given up loses nothing.
                self._read_in_turn = 0
                self.loop.call_soon(self._ready)
        except Exception as error:
            self._fail_reader(future, error)
            return future
        self._reader = future
        self.on_ready = self._resolve_reader
        return future

    def _resolve_reader(self) -> None:
        future = self._reader
        assert future is not None
        try:
            message = NOTHING if given_up(future) else self.next_message()
        except Exception as error:
            self._reader = self.on_ready = None
            self._fail_reader(future, error)
            return
        if message is not NOTHING:
            self._reader = self.on_ready = None
            set_result_now(future, message)

    def _fail_reader(self, future: asyncio.Future[Any], error: Exception) -> None:
        future.set_exception(error)
        unobserved(future)
        if self.failure is not None:
            self.close(error)

    def claim(self, on_ready: Callable[[], None]) -> None:
        """Become the one reader; the callback is called when there is something to take.

        Raises
        ------
        RuntimeError
            If somebody else reads.
        """
        if self.on_ready is not None:
            self._take_from_reader()
        self.on_ready = on_ready

    def _take_from_reader(self) -> None:
        """Let the next reader have the messages, if the last one has given up."""
        if self._reader is None or not given_up(self._reader):
            raise self.busy_error()
        self._reader = self.on_ready = None

    def busy_error(self) -> RuntimeError:
        """Make the error for somebody who would read beside the one reader."""
        return RuntimeError(f"two readers at once: messages from {self.peer} are being read")

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
            parts = self.buffer.next_message()
        except FrameTooLarge as error:
            if error.what == "frame":
                error.keyword = "max_buffer_size"
            raise
        if parts is not None:
            header, payload = parts
            if header or self._checks_depth:
                return decode(header, payload, self._max_decompressed_size, self.limits.max_depth)
            try:
                return unpack(payload, strict_map_key=False)
            except Exception as error:
                raise bad_payload(error) from error
        if self.lost is not None:
            raise self.lost_error(", in the middle of a message" if self.unread else "")
        if self.paused:
            self._resume()
        if self.buffer.pending:
            self._watchdog.wake()
        return NOTHING

    @property
    def failure(self) -> Exception | None:
        """The error after which no further message can be read, if there was one."""
        return self.buffer.failure

    @property
    def unread(self) -> int:
        """Bytes that have arrived, of messages that nobody took."""
        return self.buffer.pending

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self._outbox.unsent

    @property
    def held(self) -> int:
        """Bytes of memory that hold what has arrived and what waits to be sent."""
        return (sys.getsizeof(self.buffer) if self.buffer else 0) + self._outbox.unsent

    @property
    def messages_in(self) -> int:
        """Messages that were taken, ever."""
        return self.buffer.taken

    @property
    def bytes_in(self) -> int:
        """Bytes received, ever."""
        return self.buffer.received

    @property
    def bytes_out(self) -> int:
        """Bytes sent, ever."""
        return self._outbox.sent

    def _ready(self) -> None:
        if self.on_ready is not None:
            self.on_ready()

    # -- Writing ------------------------------------------------------------------

    def write(self, message: object) -> asyncio.Future[None]:
        """Send a message; give a Future that is done when it is safe to go on.

        It is done at once unless the connection is full; then it is done when the
        message has left. It holds the error, where there is one.
        """
        future: asyncio.Future[None] = asyncio.Future(loop=self.loop)
        try:
            self.send(message)
        except Exception as error:
            future.set_exception(error)
            return unobserved(future)
        self._written_in_turn += 1
        if self.full:
            self._writers.append((self._outbox.sent + self._outbox.unsent, future))
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
        frame = encode(message, self.compression)
        self.messages_out += 1
        outbox = self._outbox
        if self._sent_in_turn or self.full or not self._open:
            if type(frame) is bytes:
                outbox.pieces.append(frame)
                outbox.unsent += len(frame)
            else:
                outbox.put(frame)  # type: ignore[arg-type]
            if not self._turn_ends or outbox.unsent >= _BATCH:
                self._send_later()
            return
        self._sent_in_turn = True
        if type(frame) is not bytes:
            outbox.put(frame)  # type: ignore[arg-type]
            self._flush()
            return
        # What costs the least: nothing waits, and the socket takes it all.
        try:
            sent = self._send(frame)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.close(error)
            return
        outbox.sent += sent
        if sent < len(frame):
            outbox.put([memoryview(frame)[sent:]])
            self._set_full(True)

    def _send_later(self) -> None:
        if self.full or not self._open:
            return
        if self._outbox.unsent >= _BATCH:
            self._flush()
        elif not self._turn_ends:
            self._turn_ends = True
            self.loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = False
        self._sent_in_turn = False
        self._written_in_turn = 0
        if self._open and not self.full:
            self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        outbox = self._outbox
        try:
            outbox.flush(self._send, self._sendmsg)
        except OSError as error:
            self.close(error)
            return
        writers = self._writers
        while writers and writers[0][0] <= outbox.sent:
            _set_done(writers.popleft()[1])
        self._set_full(outbox.unsent > 0)

    def _set_full(self, full: bool) -> None:
        if full is not self.full:
            self.full = full
            self._update_writer()
            if full:
                self._watchdog.wake()
        if full:
            return
        if self.closing:
            self.close()
        elif self.on_drained is not None:
            on_drained, self.on_drained = self.on_drained, None
            on_drained()

    def close_when_sent(self) -> None:
        """Close the stream as soon as all messages have left."""
        self.closing = True
        if not self._outbox.unsent:
            self.close()

    def divert(self, on_readable: Callable[[], object]) -> None:
        """Receive no further messages; the callback takes what the socket has."""
        self.on_ready = None
        self._on_readable = on_readable
        if self._open:
            self.paused = False
            self._selector.add_reader(self._fd, on_readable)

    # -- The stream ---------------------------------------------------------------

    def _attach(self) -> None:
        """Take the stream over, once it is connected and its handshake done."""
        stream = self.stream
        setattr(stream, CHANNEL, self)
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
            self._flush()

    def _take_over(self) -> None:
        stream = self.stream
        self._open = True
        self.peer = _peer_name(stream)
        if self.limits.peer_timeout is not None:
            set_peer_timeout(stream.socket, self.limits.peer_timeout)
        if isinstance(stream, SSLIOStream):
            self._on_readable = self._receive_tls
            self._receive_into = stream.read_from_fd
            self._send = stream.write_to_fd
        else:
            # Nothing stands between the socket and the bytes.
            self._on_readable = self._receive
            self._receive_into = stream.socket.recv_into
            self._send = stream.socket.send
            self._sendmsg = getattr(stream.socket, "sendmsg", None)
        if stream._read_buffer_size:
            self.buffer.feed(bytes(stream._read_buffer))
            stream._read_buffer.clear()
            stream._read_buffer_size = 0
        if stream._state is not None:
            stream.io_loop.remove_handler(stream.fileno())
            stream._state = None
        # From here on the channel has the socket registered, and not the stream.
        stream._add_io_state = self._stream_wants  # type: ignore[method-assign]
        self._fd: int = stream.socket.fileno()
        self._selector.add_reader(self._fd, self._on_readable)
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        self._watchdog.start()

    def _stream_wants(self, state: int) -> None:
        if state & IOLoop.WRITE:
            # Somebody writes bytes of their own to the stream, and the socket is full.
            self._update_writer()

    def _update_writer(self) -> None:
        if self.full or self.stream.writing():
            self._selector.add_writer(self._fd, self._writable)
        else:
            self._selector.remove_writer(self._fd)

    def _writable(self) -> None:
        if self.stream.writing():
            self.stream._handle_write()
        if self._open:
            self._flush()
        if self._open:
            self._update_writer()

    def _receive(self) -> bool:
        """Receive what one system call gives, and have it read; False if there was nothing."""
        # What waits for the end of its turn goes first: uvloop receives before that.
        self._sent_in_turn = self._turn_ends
        self._read_in_turn = self._written_in_turn = 0
        buffer = self.buffer
        try:
            lent = buffer.prepare(_RECEIVE)
            try:
                size = self._receive_into(lent)
            except BlockingIOError:
                size = None
            except OSError as error:
                buffer.commit(0)
                self.close(error)
                return False
            buffer.commit(size or 0)
        except MemoryError as error:
            self.close(error)
            return False
        if not size:
            if size == 0:
                self.close()
            return False
        if self._reader is not None:
            self._notice_end()
        if self.on_ready is not None:
            self.on_ready()
        elif len(buffer) >= self._max_waiting:
            self.paused = True
            self._selector.remove_reader(self._fd)
        return True

    def _notice_end(self) -> None:
        """Close at once if the end came with the last bytes: who reads by hand looks for it then."""
        if not isinstance(self.stream, SSLIOStream):
            with suppress(OSError):
                if not self.stream.socket.recv(1, socket.MSG_PEEK):
                    self.close()

    def _receive_tls(self) -> None:
        """Receive record after record: no event announces what the TLS layer holds."""
        for _ in range(_TLS_RECORDS):
            if self.paused or not self._open or not self._receive():
                return
        self.loop.call_soon(self._receive_tls)

    def _resume(self) -> None:
        """Receive again, after nobody read for a while."""
        self.paused = False
        self._selector.add_reader(self._fd, self._on_readable)
        self.loop.call_soon(self._on_readable)

    def close(self, error: BaseException | None = None) -> None:
        """Close the stream because of an error, or because the peer closed it."""
        self.stream.close(exc_info=error if error is not None else False)

    def close_from_any_thread(self) -> None:
        """Close the stream in its own loop's thread if that runs, else at once."""
        if self._in_its_thread():
            self.close()
        else:
            self.loop.call_soon_threadsafe(self.close)

    def _in_its_thread(self) -> bool:
        """Whether nothing else can be using the channel right now."""
        if not self.loop.is_running():
            return True
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def _before_close(self) -> None:
        """Run while the stream is closing, whoever closes it.

        Classic programs close a stream from a thread that isn't its loop's. For them it is
        closed when this returns, and its socket is soon after.
        """
        if self._in_its_thread():
            self._finish()
        else:
            self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if self._open:
            if self._outbox.unsent and self.stream.error is None:
                self._send_the_rest()
            if not self.loop.is_closed():
                self._selector.remove_reader(self._fd)
                self._selector.remove_writer(self._fd)
            self._open = False
        elif isinstance(self.stream, SSLIOStream):
            answer_plainly(self.stream.socket, self.stream.error)
        self._close_fd()
        self._end()

    def _send_the_rest(self) -> None:
        """Send the messages of this turn, that their writer was told are on their way."""
        with suppress(OSError):
            self._outbox.flush(self._send, self._sendmsg)
        if self._outbox.unsent:
            logger.info("closed the connection to %s with %d bytes unsent", self.peer, self._outbox.unsent)

    def _end(self) -> None:
        """Tell everybody who waits that the connection has ended."""
        why = explain(self.stream.error)
        self.lost = f"the connection to {self.peer} was closed{': ' + why if why else ''}"
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        self._watchdog.stop()
        self._outbox.clear()
        writers, self._writers = self._writers, deque()
        if self.on_lost is not None:
            self.on_lost()
        if self.loop.is_closed():
            return
        for _, future in writers:
            if not future.done():
                future.set_exception(self.lost_error())
                unobserved(future)
        self.loop.call_soon(self._ready)
        if self.on_drained is not None:
            self.loop.call_soon(self.on_drained)

    def lost_error(self, when: str = "") -> ConnectionLost:
        """Make the error for somebody who needed the connection after it ended."""
        return ConnectionLost(f"{self.lost}{when}", self.stream.error)


#: The attribute of a stream that holds its channel.
CHANNEL: Final = "_fastcore_channel"


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
    channel: Channel | None = getattr(stream, CHANNEL, None)
    if channel is not None:
        return channel
    if not isinstance(stream, IOStream):
        raise TypeError(f"messages go over a tornado.iostream.IOStream, not {stream!r}")
    return Channel(stream, limits, compression)


def _peer_name(stream: IOStream) -> str:
    try:
        name = stream.socket.getpeername()
    except (OSError, AttributeError):
        return "a peer that isn't connected"
    if isinstance(name, tuple):
        return format_address((name[0], name[1]))
    return f"unix:{name}" if name else "a unix socket"


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
