"""One connection that blocks: a socket, the engine, and no event loop.

It has one call at a time. What could leave it in the middle of a message (a Ctrl-C, what the
handler of a signal raises) finds ``in_step`` false, and then it is closed, never used again. A call
that is given up between two messages leaves it whole: its number tells its answer from all others.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NoReturn

from fastcore._framing import MessageBuffer
from fastcore._header import (
    CallHeader,
    call_fields,
    call_header,
    read_header,
    read_header_to_write,
    request_fields,
)
from fastcore._parts import Parts
from fastcore._wire import (
    HAS_TO_BE_ASKED,
    SPEAKS_PLAINLY,
    SPEAKS_VALUES,
    Dialect,
    DialectUnknown,
    decode,
    encode,
)
from fastcore.client.calls import value_of_call
from fastcore.client.connection import log_nobodys
from fastcore.errors import BadFrame, BadMessage, BadValue, ConnectionLost, RemoteError
from fastcore.limits import Limits
from fastcore.logs import shown
from fastcore.protocols import spoken_by
from fastcore.remote_errors import is_error_reply, remote_exception
from fastcore.tokens import AUTHENTICATE, greeting, refusal
from fastcore.transport.connecting import (
    tell_if_in_clear,
)
from fastcore.transport.tls import CUT_OFF, forget_errors

__all__ = ["BlockingCall", "BlockingConnection", "StillAnswers", "is_of_a_signal"]

#: Bytes that are asked for at once.
_READ_SIZE: Final = 32 * 1024
#: Seconds after which it is looked whether the server has closed the connection in the meantime.
_CHECK_AFTER: Final = 0.01
#: What is still to come of an answer that nobody wants; more than that isn't worth receiving.
_MAX_DRAINED: Final = 64 * 1024


class BlockingCall:
    """One call, and its answers as far as they have come.

    Parameters
    ----------
    op : object
        What is called.
    """

    __slots__ = ("error", "is_over", "last", "number", "op", "parts", "where")

    def __init__(self, op: object) -> None:
        self.op = op
        self.number = -1
        self.is_over = False
        self.last: Any = None
        self.error: Exception | None = None
        self.parts: Parts | None = None
        self.where: BlockingConnection | None = None

    def begin_parts(self) -> Parts:
        """Make a place for the first of many answers."""
        parts = self.parts = Parts(self)
        return parts

    def result(self) -> Any:
        """Give the answer, or the list of them; raise the error, if that was it."""
        # They have this call, and it has them.
        parts, self.parts = self.parts, None
        if self.error is not None:
            self.raise_error()
        return self.last if parts is None else [*parts.values]

    def raise_error(self) -> NoReturn:
        """Raise the error, and keep nothing of it.

        It holds the frames that it passes, and with them whoever's loop is left by it: kept here, that
        would be freed by the collector alone.
        """
        error, self.error = self.error, None
        assert error is not None
        try:
            raise error
        finally:
            del error


def is_of_a_signal(error: OSError, deadline: float | None) -> bool:
    """Tell whether the handler of a signal has raised an error that looks like one of a socket.

    What the system says has a number, but that a time is over. A handler's may come just when bytes
    were received, or sent, of which nobody knows then.
    """
    if error.errno is not None:
        return False
    is_late = deadline is not None and monotonic() >= deadline
    return not (is_late and isinstance(error, TimeoutError))


class StillAnswers(Exception):
    """A request is better sent over another connection."""


class BlockingConnection:
    """The connection to a server of one caller at a time.

    Parameters
    ----------
    sock : socket.socket
        Connected.
    peer : str
        Who is at the other end, for people.
    limits : Limits
        What the server may cost.
    compression : str, optional
        The compression of requests.
    writable_values : bool
        Whether large binary values are received as ``bytearray``.

    Attributes
    ----------
    in_step : bool
        Whether all bytes of the last message were sent, or received and taken.
    is_last : bool
        Whether the server closes it after the call.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_compression",
        "_dialect",
        "_first",
        "_is_foreign",
        "_is_timed",
        "_last",
        "_limits",
        "_max_decompressed_size",
        "_numbers",
        "_owed",
        "_sock",
        "_used_at",
        "_writable_values",
        "in_step",
        "is_last",
        "peer",
    )

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        limits: Limits,
        compression: str | None,
        writable_values: bool = False,
    ) -> None:
        self._sock = sock
        self.peer = peer
        self._limits = limits
        self._max_decompressed_size = limits.max_decompressed_size or limits.max_buffer_size
        self._compression = compression
        self._writable_values = writable_values
        self._buffer = MessageBuffer(
            read_header_to_write if writable_values else read_header,
            max_frame_size=limits.max_buffer_size,
            max_header_size=limits.max_header_size,
            limit_name="max_buffer_size",
        )
        self._dialect = Dialect()
        self._dialect.speaks = HAS_TO_BE_ASKED
        #: Whether the server numbers its answers; None until the first one.
        self._numbers: bool | None = None
        self._last = -1
        #: What came first, to tell who it is if that makes no sense.
        self._first = b""
        #: The numbers of calls that were given up, and whose last message hasn't come.
        self._owed: set[int] = set()
        self._is_timed = True
        self._is_foreign = False
        self._used_at = monotonic()
        self.in_step = True
        self.is_last = False

    # ---- calls

    @property
    def bytes_in(self) -> int:
        """Bytes that have come, ever."""
        return self._buffer.received

    def begin(self, call: BlockingCall, message: dict[str, Any], deadline: float | None) -> None:
        """Send a request.

        Raises
        ------
        TimeoutError
            At the deadline; some of it may have been sent then.
        ConnectionLost
            If the server has gone.
        StillAnswers
            If the request is large, and the server may not read it before we have read what it
            says to calls that were given up.
        """
        call.number = number = self._last = self._last + 1
        wants_answer = "reply" not in message or message["reply"]
        fields = request_fields(number) if wants_answer else call_fields(number)
        try:
            frame = self._frame(call, message, fields)
        except DialectUnknown:
            # The answer to what every server knows shows which values this one reads.
            question = BlockingCall("identity")
            self.begin(question, {"op": "identity"}, deadline)
            while not question.is_over:
                self.read_for(question, deadline)
            frame = self._frame(call, message, fields)
        if not isinstance(frame, bytes) and self._owed:
            raise StillAnswers
        # First: whatever ends this in the middle, no later call gets what the server says to it.
        call.where = self
        self._send([frame] if isinstance(frame, bytes) else [*frame], call, deadline)
        if not wants_answer:
            call.where = None
        # By its place alone an answer belongs to whoever asked last: until it is here, nobody else may.
        self.in_step = bool(self._numbers) or not wants_answer

    def show(self, token: str, deadline: float) -> None:
        """Show a token, before anything else is said.

        Raises
        ------
        PermissionError
            If the server doesn't take it; or what else it answers.
        TimeoutError
            At the deadline.
        ConnectionLost
            If the server closes the connection instead.
        """
        if not isinstance(self._sock, ssl.SSLSocket):
            tell_if_in_clear(self._sock.getpeername())
        call = BlockingCall(AUTHENTICATE)
        frame = encode(greeting(token), self._compression)
        self._send([frame] if isinstance(frame, bytes) else [*frame], call, deadline)
        while not call.is_over:
            self.read_for(call, deadline)
        error = call.error or refusal(call.last, self.peer)
        if error is not None:
            raise error
        # As the question had no number, its answer shows nothing of the server.
        self._numbers = None
        self._dialect.speaks = HAS_TO_BE_ASKED

    def _frame(
        self, call: BlockingCall, message: dict[str, Any], fields: bytes
    ) -> bytes | list[bytes | memoryview]:
        try:
            return encode(message, self._compression, fields, self._dialect.speaks)
        except BadValue as error:
            raise value_of_call(error, call.op, self.peer) from None

    def _send(self, pieces: list[bytes | memoryview], call: BlockingCall, deadline: float | None) -> None:
        self.in_step = False
        try:
            for piece in pieces:
                if deadline is not None or self._is_timed:
                    self._set_timeout(deadline)
                self._sock.sendall(piece)
        except OSError as error:
            if error.errno is None:
                # The time is over, or it is a signal's.
                raise
            raise self._lost(call, error) from error
        self.in_step = bool(self._numbers)

    def read_for(self, call: BlockingCall, deadline: float | None) -> None:
        """Take one message, and give it to the call if it is that one's.

        Raises
        ------
        TimeoutError
            At the deadline. Nothing is lost then; the rest may still be read.
        ConnectionLost
            If the server has gone.
        BadFrame, BadMessage
            If nobody knows whose message can't be read.
        """
        self.in_step = False
        try:
            while (parts := self._buffer.next_message()) is None:
                self._receive(call, deadline)
            fields, payload = parts
            header = call_header(fields) if fields else None
        except (BadFrame, BadMessage) as error:
            raise self._told(error) from error
        if header is not None and header.call != call.number:
            self._take_others(header, fields, payload)
            self.in_step = bool(self._numbers)
            return
        try:
            limits = self._limits
            value = decode(
                fields,
                payload,
                self._max_decompressed_size,
                limits.max_depth,
                limits.max_values,
                self._writable_values,
                self._dialect,
            )
        except Exception as error:
            self._unreadable(call, header, error)
        else:
            if header is None:
                self._take_classic(call, value)
            elif header.part:
                (call.parts or call.begin_parts()).add(value, True)
            else:
                self._end(call, value, header.error)
            if self._numbers is None:
                self._numbers = True
                self._dialect.speaks = SPEAKS_VALUES
        self.in_step = True

    def _receive(self, call: BlockingCall, deadline: float | None) -> None:
        buffer = self._buffer
        size = 0
        try:
            if deadline is not None or self._is_timed:
                self._set_timeout(deadline)
            if not buffer:
                data = self._sock.recv(_READ_SIZE)
                size = len(data)
                self._first = self._first or data[:16]
                buffer.feed(data)
            else:
                lent = buffer.prepare(_READ_SIZE)
                try:
                    size = self._sock.recv_into(lent)
                finally:
                    buffer.commit(size)
        except OSError as error:
            if error.errno is not None:
                raise self._lost(call, error) from error
            if not is_of_a_signal(error, deadline):
                self.in_step = bool(self._numbers)
            raise
        if not size:
            raise self._lost(call, None)

    def _take_classic(self, call: BlockingCall, value: Any) -> None:
        """Take an answer without a number, from a server that knows none."""
        if self._numbers:
            self.close()
            raise ConnectionLost(f"{self.peer} sent a message that answers no call")
        self._numbers = False
        self._dialect.speaks = SPEAKS_PLAINLY
        self._end(call, value, is_error_reply(value))

    def _end(self, call: BlockingCall, value: Any, failed: bool) -> None:
        """End a call with its answer."""
        call.is_over = True
        call.where = None
        self._used_at = monotonic()
        if not failed:
            call.last = value
        elif is_error_reply(value):
            call.error = remote_exception(value, self.peer, call.op)
        else:
            call.error = RemoteError(
                "unknown", f"{self.peer} answered {call.op!r} by an error: {shown(value)}"
            )

    def _take_others(self, header: CallHeader, fields: bytes, payload: Any) -> None:
        """Take what belongs to a call that was given up, or to none."""
        if header.call is None:
            with suppress(BadMessage):
                log_nobodys(self.peer, decode(fields, payload))
        elif not header.part:
            self._owed.discard(header.call)

    def _unreadable(self, call: BlockingCall, header: CallHeader | None, error: Exception) -> None:
        """End a call whose answer came, but can't be read."""
        if self._numbers is None:
            raise self._told(error) from error
        if header is not None and header.part:
            self._tell_given_up(call)
        self._end(call, None, False)
        error.add_note(f"in the answer of op {shown(call.op, 200)} at {self.peer}")
        call.error = error

    def _told(self, error: Exception) -> Exception:
        """Name the protocol of a server whose first message is none, where it is known."""
        return error if self._numbers is not None else spoken_by(self.peer, self._first, error)

    def grant(self, call: BlockingCall, parts: int) -> None:
        """Let so many more answers come."""
        frame = encode(None, None, call_fields(call.number, 0, -1, parts))
        assert isinstance(frame, bytes)
        # Where the server has gone, what it said before can still be read, and after that shows it.
        self.in_step = False
        try:
            if self._is_timed:
                self._set_timeout(None)
            self._sock.sendall(frame)
            self.in_step = True
        except OSError as error:
            if is_of_a_signal(error, None):
                raise

    # ---- given up

    def give_up(self, call: BlockingCall) -> None:
        """Forget a call that nobody waits for; where that can't be told to the server, close."""
        if call.where is None:
            # It is over, or was never begun.
            return
        if self.in_step and self._buffer.pending <= _MAX_DRAINED:
            self._tell_given_up(call)
        else:
            self.close()
        call.where = None

    def _tell_given_up(self, call: BlockingCall) -> None:
        self.in_step = False
        frame = encode(None, None, call_fields(None, 0, -1, -1, call.number))
        assert isinstance(frame, bytes)
        self._owed.add(call.number)
        try:
            # Where there is no room for so few bytes, the server doesn't read.
            self._set_nonblocking()
            self.in_step = self._sock.send(frame) == len(frame)
        except OSError as error:
            self.close()
            if is_of_a_signal(error, None):
                raise

    # ---- between calls

    def is_ready(self) -> bool:
        """Whether a further call may be begun: it looks what came since the last one."""
        if not self.in_step or self.is_last or self._is_foreign:
            return False
        if not self._owed and monotonic() - self._used_at < _CHECK_AFTER and not len(self._buffer):
            return True
        try:
            self._set_nonblocking()
            return self._drop_what_came()
        except (BadMessage, ValueError):
            return False
        except OSError as error:
            if is_of_a_signal(error, None):
                self.close()
                raise
            return False

    def _drop_what_came(self) -> bool:
        wanted = _MAX_DRAINED
        while wanted > 0:
            while (parts := self._buffer.next_message()) is not None:
                header = call_header(parts[0]) if parts[0] else None
                if header is None:
                    return False
                self._take_others(header, *parts)
            try:
                data = self._sock.recv(_READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                # A classic server has said nothing yet; another one may be in the middle of a message.
                return bool(self._numbers) or not len(self._buffer)
            if not data:
                return False
            wanted -= len(data)
            self._buffer.feed(data)
        return False

    # ---- the socket

    def _set_timeout(self, deadline: float | None) -> None:
        if deadline is None:
            if self._is_timed:
                self._sock.settimeout(None)
                self._is_timed = False
            return
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        self._is_timed = True

    def _set_nonblocking(self) -> None:
        self._sock.settimeout(0)
        self._is_timed = True

    def _lost(self, call: BlockingCall, error: OSError | None) -> Exception:
        if self._is_foreign:
            return RuntimeError(
                f"the connection to {self.peer} was made in another process, before a fork; "
                "call anew in this one"
            )
        self.close()
        how = f"closed: {CUT_OFF}," if isinstance(error, ssl.SSLEOFError) else "lost"
        return ConnectionLost(
            f"the connection to {self.peer} was {how} during the call of {call.op!r}", error
        )

    def abort(self) -> None:
        """End it from another thread: whoever waits for it hears so."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self.is_last = True

    def leave_to_parent(self) -> None:
        """Close this process's copy of what is the parent's."""
        self._is_foreign = True
        self._sock.close()

    def close(self) -> None:
        """Close it."""
        self.in_step = False
        forget_errors(self._sock)
        self._sock.close()

    def __del__(self) -> None:
        self._sock.close()
