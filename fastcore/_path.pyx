"""The message path: what is done for each message of a connection.

in     socket, receive, MessageBuffer, take: the Future of a read, or a Reader
out    write or send, encode: the socket at once, or the Outbox until the turn ends

What is done once for a connection (taking a stream over, TLS, time limits, its end) is
in ``channel.py``: a Channel is a MessagePath. This half is compiled because a small
message costs hardly more than the steps between its socket and its handler.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.list cimport PyList_GET_SIZE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject, PyObject_Call
from cpython.time cimport monotonic

import asyncio

import msgpack

from fastcore._encode cimport encode
from fastcore._framing cimport MessageBuffer
from fastcore._header cimport length_of
from fastcore._outbox cimport MAX_PIECES, Outbox

from fastcore._header import read_header
from fastcore._values import PayloadSink
from fastcore.engine_errors import FrameTooLarge
from fastcore._futures import given_up, is_busy, set_result_now, unobserved
from fastcore.limits import MAX_DEPTH
from fastcore.protocol import bad_payload, decode

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)
    bint PyExceptionInstance_Check(object)

cdef extern from "_socket.h":
    const bint SOCKETS_ARE_FILES
    const Py_ssize_t WOULD_BLOCK
    Py_ssize_t socket_recv(int fd, void *data, size_t size)
    Py_ssize_t socket_send(int fd, const void *data, size_t size)
    struct iovec:
        void *iov_base
        size_t iov_len
    Py_ssize_t socket_send_pieces(int fd, iovec *pieces, int count) nogil
    bint socket_at_end(int fd)

cdef enum:
    # Bytes asked for in one receive. What is lent may be more, where a frame's length is known.
    RECEIVE = 131_072
    # Small writes of one turn leave together, at the latest when there are this many bytes.
    BATCH = 65_536
    # Messages that may be read, or written, without giving other connections a turn.
    MESSAGES_PER_TURN = 256
    # Bytes of further small messages that are decoded together with the first one.
    AHEAD = 4_096
    # Pieces of one message that leave without the steps of Python's socket object.
    FEW_PIECES = 16

# Seconds that are longer than most turns of a loop.
cdef double A_TURN = 0.001

# What `take` gives while no message is complete; None is a message.
cdef object NOTHING = object()
cdef type Future = asyncio.Future
# Looked up once, and not for each message.
cdef object set_result = Future.set_result
cdef object unpack = msgpack.unpackb


cdef class MessagePath:
    """The way of messages from a socket to their reader, and from their writer to the socket.

    A Channel adds what is done now and then: ``close``, ``pause``, ``resume``, ``watch``,
    ``rest``, ``update_writer``, and the errors ``lost_error`` and ``busy_error``.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Where it is used; never from another thread.
    limits : Limits
        What the peer may cost.
    compression : str or None
        The compression of outgoing messages.
    """

    cdef readonly object loop
    # What a new Future is told; kept because there is one for each read and write.
    cdef dict future_options
    cdef readonly object limits
    cdef readonly object compression
    # Who is given the messages, if not a read; see `claim`.
    cdef public object reader
    # Called when the socket takes bytes again.
    cdef public object on_drained
    # Why the connection has ended; None while it lasts.
    cdef public object lost
    # Whether the socket takes no more for now.
    cdef readonly bint full
    # Whether the stream will be closed when all messages have left.
    cdef public bint closing
    # Whether too much has arrived; it goes on when `take` finds no more.
    cdef public bint paused
    # Whether somebody has an eye on the time that the peer takes; see `watchdog.py`.
    cdef public bint watched
    # Whether the socket may be used: connected, and its TLS handshake done.
    cdef readonly bint is_open
    # Gives the socket's number, or -1 when it is closed; None where something stands between
    # it and the bytes. Asked each time: whoever has the stream may close its socket, and the
    # number is somebody else's then.
    cdef object fileno
    # The functions of the socket, or of the TLS layer; sendmsg is None there.
    cdef readonly object recv_into
    cdef readonly object send_bytes
    cdef readonly object sendmsg

    # Messages sent, ever.
    cdef readonly long long messages_out
    cdef readonly MessageBuffer buffer
    cdef readonly Outbox outbox

    cdef bint checks_depth
    cdef Py_ssize_t max_decompressed_size
    cdef Py_ssize_t max_waiting
    # Messages that nobody has taken yet, decoded already; the next one is the last here.
    # What MessagePack never gives stands for itself: the parts of a large one, an error.
    cdef list ahead
    # How many bytes those were, at first.
    cdef readonly Py_ssize_t size_ahead
    # The Future of the read that waits.
    cdef object waiting
    # Pairs: how many bytes must have been sent in all, and the Future that waits for that.
    cdef list writers
    # What writes are answered with as long as nobody has to wait.
    cdef object written
    # What was done in this turn of the loop.
    cdef int read_in_turn
    cdef int written_in_turn
    cdef bint sent_in_turn
    cdef double sent_at
    # Whether `end_turn` will be called.
    cdef bint turn_ends
    # Whether the reader goes on in the next turn, with messages that are here already.
    cdef bint goes_on_later

    def __init__(self, loop, limits, compression):
        self.loop = loop
        self.future_options = {"loop": loop}
        self.limits = limits
        self.compression = compression
        self.buffer = MessageBuffer(
            read_header,
            max_frame_size=limits.max_buffer_size,
            max_header_size=limits.max_header_size,
        )
        self.outbox = Outbox()
        self.checks_depth = limits.max_depth < MAX_DEPTH
        self.max_decompressed_size = limits.max_decompressed_size or limits.max_buffer_size
        self.max_waiting = limits.max_waiting
        self.ahead = []
        self.writers = []

    def use(self, recv_into, send_bytes, sendmsg, fileno=None):
        """Receive and send from now on, by these functions of a non-blocking socket.

        Parameters
        ----------
        recv_into, send_bytes, sendmsg : callable
            As a socket has them. ``sendmsg`` is None where there is something between
            the bytes and the socket, such as TLS.
        fileno : callable, optional
            The socket's, where there is nothing.
        """
        self.is_open = True
        self.recv_into = recv_into
        self.send_bytes = send_bytes
        self.sendmsg = sendmsg
        self.fileno = fileno if SOCKETS_ARE_FILES else None

    def leave(self):
        """Use the socket no more."""
        self.is_open = False
        self.fileno = None

    cdef int descriptor(self) except? -1:
        """The socket's number where it may be used directly, else -1."""
        return -1 if self.fileno is None else self.fileno()

    # ---- in

    def receive(self):
        """Receive what one system call gives, and have it read; False if there was nothing."""
        # What waits for the end of its turn goes first: uvloop receives before that.
        self.sent_in_turn = self.turn_ends
        self.read_in_turn = self.written_in_turn = 0
        cdef Py_ssize_t size
        cdef int fd
        try:
            size = self.receive_bytes()
        except (OSError, MemoryError) as error:
            self.close(error)
            return False
        if size <= 0:
            if size == 0:
                self.close()
            return False
        if self.waiting is not None:
            fd = self.descriptor()
            if fd >= 0 and socket_at_end(fd):
                # The end came with the last bytes, and who reads by hand looks for it then.
                self.close()
            if is_busy(self.loop):
                # Taken by then only, so that a read given up until then loses nothing.
                self.look_later()
            else:
                self.resolve()
        elif self.reader is not None and not self.goes_on_later:
            self.deliver()
        elif len(self.buffer) >= self.max_waiting:
            self.pause()
        return True

    cdef Py_ssize_t receive_bytes(self) except? -1:
        """What one system call gives: the number of bytes, 0 at the end, or WOULD_BLOCK."""
        cdef MessageBuffer buffer = self.buffer
        cdef Py_ssize_t size
        cdef void *memory
        cdef int fd = self.descriptor()
        if fd >= 0 and not buffer.sink_missing:
            memory = buffer.open(RECEIVE)
            size = socket_recv(fd, memory, buffer.lent_size)
            try:
                if size == -1:
                    PyErr_SetFromErrno(OSError)
            finally:
                buffer.close(max(size, 0))
            return size
        lent = buffer.prepare(RECEIVE)
        size = 0
        try:
            received = self.recv_into(lent)
            size = received or 0
        except BlockingIOError:
            received = None
        finally:
            buffer.commit(size)
        return WOULD_BLOCK if received is None else size

    def look(self):
        """Give the one who reads what is here: messages, or the end."""
        self.goes_on_later = False
        if self.waiting is not None:
            self.resolve()
        elif self.reader is not None:
            self.deliver()

    cdef int look_later(self) except -1:
        if not self.goes_on_later:
            self.goes_on_later = True
            self.loop.call_soon(self.look)
        return 0

    cdef int deliver(self) except -1:
        """Give the reader its messages, as long as it goes on and they are here."""
        cdef int _
        reader = self.reader
        for _ in range(MESSAGES_PER_TURN):
            try:
                message = self.take()
            except Exception as error:
                self.reader = None
                goes_on = reader.on_error(error)
            else:
                if message is NOTHING:
                    return 0
                # It may have the messages read otherwise in the meantime.
                self.reader = None
                goes_on = reader.on_message(message)
            if not goes_on:
                return 0
            try:
                self.check_free()
            except RuntimeError as error:
                # It has left a read of its own, which would take what comes next.
                self.close(error)
                return 0
            self.reader = reader
            if not self.ahead and not len(self.buffer) and not self.paused:
                return 0
        self.look_later()
        return 0

    cdef object take(self):
        """The next message, or NOTHING.

        Raises
        ------
        BadFrame, BadMessage
            Its bytes are no message. The next call gives the next message, unless the
            buffer has failed: then there will be none.
        ConnectionLost
            The connection has ended and all its messages were taken.
        """
        if not self.ahead:
            parts = self.next_parts()
            if parts is None:
                return NOTHING
            message = self.message_of(parts)
            if len(self.buffer):
                self.decode_ahead()
            return message
        message = self.ahead.pop()
        if not self.ahead:
            self.size_ahead = 0
        if type(message) is tuple:
            return self.message_of(message)
        if PyExceptionInstance_Check(message):
            raise message
        return message

    cdef int decode_ahead(self) except -1:
        """Decode some of the small messages that are here.

        One after the other, without what their readers do in between, each takes a
        quarter less: the processor has at hand what decoding needs. A large one waits for
        its turn, as it may become much larger yet.
        """
        cdef Py_ssize_t held = len(self.buffer)
        if held > self.buffer.max_frame_size:
            # The buffer could fail, and what is ahead of that would be lost.
            return 0
        while len(self.buffer) > max(held - AHEAD, 0) and self.buffer.is_plain():
            try:
                message = self.buffer.next_message()
                if message is None:
                    break
                if type((<tuple> message)[1]) is bytes:
                    message = self.message_of(message)
            except Exception as error:
                message = error
            self.ahead.append(message)
        self.ahead.reverse()
        if self.ahead:
            self.size_ahead = held - len(self.buffer)
        return 0

    cdef tuple next_parts(self):
        """Header and payload of the next message, or None while it isn't complete."""
        try:
            parts = self.buffer.next_message()
        except FrameTooLarge as error:
            if error.what == "frame":
                error.keyword = "max_buffer_size"
            raise
        if parts is not None:
            if self.watched and not len(self.buffer):
                self.rest()
            return parts
        if self.lost is not None:
            raise self.lost_error(", in the middle of a message" if self.buffer.pending else "")
        if self.paused:
            self.resume()
        if not self.watched and self.buffer.pending:
            self.watch()
        return None

    cdef object message_of(self, tuple parts):
        header, payload = parts
        if self.checks_depth or header and (length_of(header) < 0 or type(payload) is PayloadSink):
            return decode(header, payload, self.max_decompressed_size, self.limits.max_depth)
        try:
            return unpack(payload, strict_map_key=False)
        except Exception as error:
            raise bad_payload(error) from error

    def read(self):
        """Give a Future of the next message."""
        future = self.new_future()
        try:
            self.check_free()
            if self.read_in_turn < MESSAGES_PER_TURN:
                self.read_in_turn += 1
                message = self.take()
                if message is not NOTHING:
                    set_result(future, message)
                    return future
            else:
                # The message stays where it is for a turn, so a read given up loses nothing.
                self.read_in_turn = 0
                self.loop.call_soon(self.look)
        except Exception as error:
            self.fail(future, error)
            return future
        self.waiting = future
        if not self.watched and self.buffer.pending:
            # Only now there is somebody for whom its rest is late.
            self.watch()
        return future

    cdef int resolve(self) except -1:
        """Give the read that waits its message, if there is one."""
        future = self.waiting
        if given_up(future):
            # Nobody reads any more: what comes now counts as waiting.
            self.waiting = None
            return 0
        try:
            message = self.take()
        except Exception as error:
            self.waiting = None
            self.fail(future, error)
            return 0
        if message is not NOTHING:
            self.waiting = None
            set_result_now(future, message)
        return 0

    cdef object new_future(self):
        return PyObject_Call(Future, (), self.future_options)

    cdef int fail(self, object future, object error) except -1:
        future.set_exception(error)
        unobserved(future)
        if self.buffer.failure is not None:
            self.close(error)
        return 0

    def claim(self, reader):
        """Give all messages to a reader from now on, until it wants no more.

        Parameters
        ----------
        reader : Reader
            ``on_message(message)`` is called with each message, ``on_error(error)`` when
            one is wrong and when the connection has ended. While they are called, and
            after one has given False, there is no reader.

        Raises
        ------
        RuntimeError
            If somebody else reads.
        """
        self.check_free()
        self.reader = reader

    cdef int check_free(self) except -1:
        """Raise if somebody reads already, and hasn't given up."""
        if self.waiting is not None and given_up(self.waiting):
            self.waiting = None
        if self.reader is not None or self.waiting is not None:
            raise self.busy_error()
        return 0

    @property
    def is_read(self):
        """Whether somebody reads, or waits for the next message."""
        return self.reader is not None or self.waiting is not None

    @property
    def in_step(self):
        """Whether the connection lasts, and nothing has arrived that nobody asked for."""
        return self.lost is None and not self.closing and not self.ahead and not len(self.buffer)

    # ---- out

    def write(self, message):
        """Send a message; give a Future that is done when it is safe to go on.

        It is done at once unless the connection is full, or isn't open yet; then it is
        done when the message has left. It holds the error, where there is one.
        """
        try:
            self.put(message)
            if self.lost is not None:
                raise self.lost_error()
        except Exception as error:
            future = self.new_future()
            future.set_exception(error)
            return unobserved(future)
        self.written_in_turn += 1
        if self.full or not self.is_open:
            future = self.new_future()
            self.writers.append((self.outbox.sent + self.outbox.unsent, future))
        elif self.written_in_turn > MESSAGES_PER_TURN:
            self.written_in_turn = 0
            future = self.new_future()
            self.loop.call_soon(_set_done, future)
        else:
            future = self.done_future()
        return future

    cdef object done_future(self):
        """A Future that is done: the same as last time, if nobody has kept it.

        Making one costs more than sending a small message.
        """
        if self.written is None or Py_REFCNT(<PyObject *> self.written) > 1:
            self.written = self.new_future()
            set_result(self.written, None)
        return self.written

    def send(self, message):
        """Send a message without waiting until it has left.

        The first one of a turn leaves at once; what follows in the same turn leaves
        together at its end. True as long as the socket takes more.
        """
        self.put(message)
        return not self.full

    cdef int put(self, object message) except -1:
        cdef Py_ssize_t sent
        if self.lost is not None:
            raise self.lost_error()
        frame = encode(message, self.compression)
        self.messages_out += 1
        if self.outbox.unsent or not self.is_open or self.has_sent_in_turn():
            self.outbox.put(frame)
            if not self.turn_ends or self.outbox.unsent >= BATCH:
                self.send_later()
            return 0
        self.sent_in_turn = True
        self.sent_at = monotonic()
        if type(frame) is list and (self.sendmsg is None or len(frame) > MAX_PIECES):
            self.outbox.put(frame)
            self.send_waiting()
            return 0
        # What costs the least: nothing waits, and the socket takes it all.
        try:
            sent = self.send_frame(frame)
        except OSError as error:
            self.close(error)
            return 0
        if not self.outbox.put_rest(frame, sent):
            self.set_full(True)
        return 0

    cdef bint has_sent_in_turn(self):
        """Whether a message has left in this turn of the loop.

        What ends a turn tells nobody, unless it was asked to. One that sent a while ago
        counts as over: otherwise its next message would come later than those that
        other connections send in the same turn.
        """
        return self.turn_ends or self.sent_in_turn and monotonic() - self.sent_at < A_TURN

    cdef Py_ssize_t send_frame(self, object frame) except? -1:
        """Send what the socket takes at once; the number of bytes."""
        cdef Py_ssize_t sent
        cdef int fd = self.descriptor()
        if fd >= 0 and (type(frame) is bytes or PyList_GET_SIZE(frame) <= FEW_PIECES):
            if type(frame) is bytes:
                sent = socket_send(fd, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
            else:
                sent = send_pieces(fd, frame)
            if sent == -1:
                PyErr_SetFromErrno(OSError)
            return max(sent, 0)
        try:
            return self.send_bytes(frame) if type(frame) is bytes else self.sendmsg(frame)
        except BlockingIOError:
            return 0

    cdef int send_later(self) except -1:
        if self.full or not self.is_open:
            return 0
        if self.outbox.unsent >= BATCH:
            self.send_waiting()
        elif not self.turn_ends:
            self.turn_ends = True
            self.loop.call_soon(self.end_turn)
        return 0

    def end_turn(self):
        """Send what was written in this turn of the loop."""
        self.turn_ends = False
        self.sent_in_turn = False
        self.written_in_turn = 0
        if self.is_open and not self.full:
            self.send_waiting()

    def flush(self):
        """Send what waits, as far as the socket takes it."""
        self.send_waiting()

    cdef int send_waiting(self) except -1:
        try:
            self.outbox.flush(self.send_bytes, self.sendmsg)
        except OSError as error:
            self.close(error)
            return 0
        if self.writers:
            self.answer_writers()
        self.set_full(self.outbox.unsent > 0)
        return 0

    cdef int answer_writers(self) except -1:
        cdef list writers = self.writers
        cdef Py_ssize_t done = 0
        while done < PyList_GET_SIZE(writers) and writers[done][0] <= self.outbox.sent:
            _set_done(writers[done][1])
            done += 1
        del writers[:done]
        return 0

    cdef int set_full(self, bint full) except -1:
        if full is not self.full:
            self.full = full
            self.update_writer()
            if full:
                self.watch()
            elif self.watched:
                self.rest()
        if full:
            return 0
        if self.closing:
            self.close()
        elif self.on_drained is not None:
            on_drained, self.on_drained = self.on_drained, None
            on_drained()
        return 0

    def give_up_writers(self):
        """Drop what waits to be sent; give the Futures of those who wait for that."""
        self.outbox.clear()
        self.full = False
        writers, self.writers = self.writers, []
        return [future for _, future in writers]


cdef Py_ssize_t send_pieces(int fd, list frame) except? -1:
    """As `socket_send`, for a frame in few pieces."""
    cdef iovec pieces[FEW_PIECES]
    cdef int count = 0
    cdef Py_ssize_t sent
    for piece in frame:
        if type(piece) is bytes:
            pieces[count].iov_base = PyBytes_AS_STRING(piece)
            pieces[count].iov_len = PyBytes_GET_SIZE(piece)
        else:
            pieces[count].iov_base = PyMemoryView_GET_BUFFER(piece).buf
            pieces[count].iov_len = PyMemoryView_GET_BUFFER(piece).len
        count += 1
    # These may be many bytes: other threads can run meanwhile.
    with nogil:
        sent = socket_send_pieces(fd, pieces, count)
    return sent


def _set_done(future):
    if not future.done():
        future.set_result(None)
