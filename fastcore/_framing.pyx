"""Bytes in, frames out, and no socket.

FrameBuffer     everything up to a sentinel is a frame.
MessageBuffer   a frame is: header length, header, payload. The header may say how long
                the payload is; then nothing is looked for, and the payload may go straight
                into memory that somebody else provides (a Sink).

How bytes come in and where they lie is the same for both: see ``_buffer.pyx``.

What it costs
-------------
next_frame      one search over each byte ever received, one copy: the result.
next_view       the search alone.
next_message    as next_frame for small payloads, as next_view for large ones; a payload
                whose length is known isn't searched.
a bad message   one search over its bytes. What a sink had of it is copied once, and as
                that peer gets no sink again, once for each buffer.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from fastcore._blocks cimport Block, new_block, view_of
from fastcore._buffer cimport BUSY, FREE, LARGEST_SIZE, Buffer, Scanner, scan_state, scanner

from fastcore._buffer import SENTINEL
from fastcore.engine_errors import BadFrame, FrameTooLarge

cdef extern from "_scanner.h" nogil:
    void scan_start(const scanner *s, scan_state *search)
    Py_ssize_t scan(const scanner *s, const uint8_t *data, Py_ssize_t end, scan_state *search)

cdef enum:
    # A payload up to here is copied out; a larger one is a view, which costs as much.
    SMALL_PAYLOAD = 4096
    # What says more than the number of a call has more bytes.
    SHORT_HEADER = 32

DEFAULT_MAX_FRAME_SIZE = 1 << 30
DEFAULT_MAX_HEADER_SIZE = 64 * 1024


@cython.final
cdef class FrameBuffer(Buffer):
    """Cuts a stream of bytes into frames: what stands before each sentinel.

    Parameters
    ----------
    sentinel : bytes, optional
        What ends a frame: any 1 to 255 bytes.
    max_frame_size : int, optional
        In bytes, without the sentinel. A longer frame is the end of the buffer.

    Attributes
    ----------
    sentinel : bytes
    max_frame_size : int
    failure : Exception or None
        The error that ended the buffer. Every use raises it again.

    Examples
    --------
    >>> buffer = FrameBuffer(b"--")
    >>> buffer.feed(b"one--two-")
    >>> buffer.next_frame()
    b'one'
    >>> buffer.next_frame() is None
    True
    >>> buffer.feed(b"-")
    >>> buffer.next_frame()
    b'two'
    """

    def __cinit__(self, sentinel=SENTINEL, *, max_frame_size=DEFAULT_MAX_FRAME_SIZE):
        self.set_up(sentinel, max_frame_size)

    def next_frame(self):
        """Take the next frame out.

        Returns
        -------
        bytes or None
            The frame without its sentinel; None while none is complete.

        Raises
        ------
        FrameTooLarge
            A frame is over `max_frame_size`: the buffer has failed.
        BufferMisuse
            While memory is lent, or from inside a callback of the buffer.
        """
        if self.state != FREE:
            self.refuse("next_frame")
        cdef Py_ssize_t size = self.find_frame()
        if size < 0:
            return None
        return self.take(size)

    def next_view(self):
        """Take the next frame out without a copy.

        Returns
        -------
        memoryview or None
            Read-only. It keeps its memory alive and still for as long as it exists.

        Raises
        ------
        FrameTooLarge
            A frame is over `max_frame_size`: the buffer has failed.
        BufferMisuse
            While memory is lent, or from inside a callback of the buffer.

        Examples
        --------
        >>> buffer = FrameBuffer(b"--")
        >>> buffer.feed(b"one--")
        >>> bytes(buffer.next_view())
        b'one'
        """
        if self.state != FREE:
            self.refuse("next_view")
        cdef Py_ssize_t size = self.find_frame()
        if size < 0:
            return None
        cdef Block block = self.block
        cdef Py_ssize_t head = self.head
        self.consume(size + self.sentinel_size)
        return view_of(block, head, size, True)

    def __iter__(self):
        return self

    def __next__(self):
        if self.state != FREE:
            self.refuse("next")
        cdef Py_ssize_t size = self.find_frame()
        if size < 0:
            raise StopIteration
        return self.take(size)

    cdef bytes take(self, Py_ssize_t size):
        frame = PyBytes_FromStringAndSize(<char *> self.block.data + self.head, size)
        self.consume(size + self.sentinel_size)
        return frame


cdef object too_short():
    return BadFrame("a message ends before its header does")


cdef object untrue(Py_ssize_t length):
    return BadFrame(f"a message claims a payload of {length:,} bytes, but no sentinel follows them")


@cython.final
cdef class MessageBuffer(Buffer):
    """Cuts a stream of bytes into messages: header length, header, payload, sentinel.

    Parameters
    ----------
    read_header : callable
        Called with the bytes of each header that isn't empty. It says where the payload
        ends: None, at the first sentinel; an int, after so many bytes; a `Sink`, after
        ``sink.length`` bytes, which are to be received into the sink. It raises
        ValueError when the header makes no sense.
    sentinel : bytes, optional
        What ends a message: any 1 to 255 bytes.
    max_frame_size : int, optional
        In bytes: header length, header and payload together.
    max_header_size : int, optional
        In bytes.
    limit_name : str, optional
        What errors call `max_frame_size`, where its user knows it by another name.

    Attributes
    ----------
    sentinel : bytes
    max_frame_size : int
    max_header_size : int
    failure : Exception or None
        The error that ended the buffer. Every use raises it again.

    Notes
    -----
    A message that is wrong costs an error and that message: the next one begins after
    the first sentinel from its start on. Only when no sentinel comes within
    `max_frame_size` bytes the buffer has failed. A peer whose length wasn't true once
    gets no sink again, so that finding the way back stays cheap.

    Examples
    --------
    >>> buffer = MessageBuffer(lambda header: int(header), b"--")
    >>> buffer.feed(bytes([0, 0, 0, 0]) + b"plain--")
    >>> buffer.feed(bytes([1, 0, 0, 0]) + b"5" + b"a--bc--")
    >>> buffer.next_message()
    (b'', b'plain')
    >>> buffer.next_message()
    (b'5', b'a--bc')
    >>> buffer.next_message() is None
    True
    """

    def __cinit__(self, read_header, sentinel=SENTINEL, *, max_frame_size=DEFAULT_MAX_FRAME_SIZE,
                  max_header_size=DEFAULT_MAX_HEADER_SIZE, limit_name="max_frame_size"):
        self.set_up(sentinel, max_frame_size, limit_name)
        if not callable(read_header):
            raise TypeError(f"read_header is called with each header; {read_header!r} can't be")
        if max_header_size < 0:
            raise ValueError(f"max_header_size is 0 or more, not {max_header_size!r}")
        self.max_header_size = max_header_size
        self.read_header = read_header

    @property
    def pending(self):
        """Bytes of messages that nobody has taken yet, wherever they are kept."""
        cdef Py_ssize_t size = self.tail - self.head
        if self.stage == SKIPPING:
            size += self.skipped
        if self.sink is not None:
            size += self.sink_length - self.sink_missing
        return size

    cpdef next_message(self):
        """Take the next message out.

        Returns
        -------
        tuple or None
            The header, as bytes, and the payload: bytes when it is small, a read-only
            memoryview when it is large, the sink where `read_header` gave one. None
            while no message is complete.

        Raises
        ------
        BadFrame
            This message is wrong, as is known by now. It is skipped; call again.
        FrameTooLarge
            As BadFrame; but when no sentinel came within `max_frame_size` bytes, the
            buffer has failed.
        BufferMisuse
            While memory is lent, or from inside a callback of the buffer.
        """
        cdef Py_ssize_t size
        if self.state != FREE:
            self.refuse("next_message")
        if self.stage == SKIPPING:
            self.skip()
        if self.stage == AT_START:
            self.open_message()
        if self.stage == TO_SENTINEL:
            size = self.find_frame()
            if 0 <= size < self.body:
                raise self.rejected(too_short())
        elif self.stage == TO_LENGTH:
            size = self.find_length()
        elif self.stage == INTO_SINK:
            return self.take_sink()
        else:
            size = -1
            self.settle()
        return self.take(size) if size >= 0 else None

    cdef bint is_simple(self):
        """Whether the next message has a short header or none, and nothing of it was looked at yet."""
        cdef const uint8_t *start
        if self.stage != AT_START or self.tail - self.head < LENGTH_SIZE:
            return False
        start = self.block.data + self.head
        return (start[1] | start[2] | start[3]) == 0 and start[0] <= SHORT_HEADER

    cdef bytes next_header(self):
        """The header of the next message, as far as it is here and short; nothing is taken."""
        cdef const uint8_t *start
        if self.stage != AT_START:
            return self.header
        if not self.is_simple():
            return None
        start = self.block.data + self.head
        if self.tail - self.head < LENGTH_SIZE + start[0]:
            return None
        return PyBytes_FromStringAndSize(<const char *> start + LENGTH_SIZE, start[0])

    cdef int open_message(self) except -1:
        """Read header length and header, and move on to the stage that they lead to."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t header_size
        cdef uint8_t *start
        if held < LENGTH_SIZE:
            if self.find(held) >= 0:
                raise self.rejected(too_short())
            return 0
        start = self.block.data + self.head
        header_size = (start[0] | start[1] << 8 | start[2] << 16 | <Py_ssize_t> start[3] << 24)
        self.body = LENGTH_SIZE + header_size
        self.header = b""
        if header_size == 0:
            self.stage = TO_SENTINEL
            return 0
        if self.find(LENGTH_SIZE) >= 0:
            raise self.rejected(too_short())
        if header_size > self.max_header_size:
            raise self.rejected(FrameTooLarge("header", header_size, self.max_header_size, "max_header_size"))
        if self.body > self.max_frame_size:
            raise self.rejected(FrameTooLarge("frame", self.body, self.max_frame_size, self.limit_name))
        if self.find(min(held, self.body)) >= 0:
            raise self.rejected(too_short())
        if held < self.body:
            return 0
        self.header = PyBytes_FromStringAndSize(<char *> start + LENGTH_SIZE, header_size)
        self.ask_header()
        return 0

    cdef int ask_header(self) except -1:
        """Let the caller's function say where the payload ends."""
        self.state = BUSY
        try:
            answer = self.read_header(self.header)
            if answer is not None:
                length = answer if isinstance(answer, int) else answer.length
                self.check_length(length)
        except BaseException as error:
            raise self.rejected(error)
        finally:
            self.state = FREE
        if answer is None:
            self.stage = TO_SENTINEL
        elif isinstance(answer, int) or self.distrusted:
            self.stage = TO_LENGTH
            self.expected = self.body + <Py_ssize_t> length + self.sentinel_size
        else:
            self.open_sink(answer, length)
        return 0

    cdef int check_length(self, object length) except -1:
        if not isinstance(length, int) or length < 0:
            raise ValueError(f"read_header gave {length!r} as the length of a payload; it is 0 or more bytes")
        cdef Py_ssize_t limit = min(self.max_frame_size, LARGEST_SIZE)
        if length > limit - self.body:
            raise FrameTooLarge("frame", self.body + length, limit, self.limit_name)
        return 0

    cdef Py_ssize_t find_length(self) except -2:
        """As `find_frame`, where the length is known: the sentinel must be there."""
        cdef Py_ssize_t size = self.expected - self.sentinel_size
        if self.tail - self.head < self.expected:
            return -1
        if not self.sentinel_at(size):
            self.distrusted = True
            raise self.rejected(untrue(size - self.body))
        return size

    cdef bint sentinel_at(self, Py_ssize_t position):
        return memcmp(
            self.block.data + self.head + position, self.scanner.tables.sentinel, self.sentinel_size
        ) == 0

    cdef object take(self, Py_ssize_t size):
        """The message at the head, of `size` bytes without its sentinel."""
        cdef Block block = self.block
        cdef bytes header = self.header
        cdef Py_ssize_t start = self.head + self.body
        size -= self.body
        if size <= SMALL_PAYLOAD:
            payload = PyBytes_FromStringAndSize(<char *> block.data + start, size)
        else:
            payload = None
        self.finish(self.body + size + self.sentinel_size)
        if payload is None:
            payload = view_of(block, start, size, True)
        return header, payload

    cdef int finish(self, Py_ssize_t size) except -1:
        self.taken += 1
        self.stage = AT_START
        self.header = None
        self.consume(size)
        return 0

    cdef int drop(self) except -1:
        self.sink = None
        self.sink_missing = 0
        self.skipped = 0
        self.finish(self.tail - self.head)
        return 0

    # ---- a payload that goes into a sink

    cdef int open_sink(self, object sink, Py_ssize_t length) except -1:
        """From here on the payload goes into the sink, first of all what is held of it."""
        cdef Py_ssize_t held
        self.stage = INTO_SINK
        self.sink = sink
        self.sink_length = self.sink_missing = length
        held = min(self.tail - self.head - self.body, length)
        if held:
            self.pour(self.block.data + self.head + self.body, held)
        self.consume(self.body + held)
        return 0

    cdef int pour(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Copy bytes into the sink."""
        cdef Py_buffer memory
        cdef Py_ssize_t part
        self.state = BUSY
        try:
            while size:
                PyObject_GetBuffer(self.sink.prepare(size), &memory, PyBUF_WRITABLE)
                part = min(size, memory.len)
                memcpy(memory.buf, data, part)
                PyBuffer_Release(&memory)
                if part == 0:
                    raise ValueError("the sink lent no memory, but its payload isn't complete")
                self.sink.commit(part)
                data += part
                size -= part
                self.sink_missing -= part
        except BaseException as error:
            raise self.sink_failed(error)
        self.state = FREE
        return 0

    cdef object sink_failed(self, object error):
        """What to raise: the sink is broken, and with it the place in the stream."""
        failure = BadFrame(
            f"the sink for a payload of {self.sink_length:,} bytes failed ({type(error).__name__}: {error}); "
            "what it has received is lost, close the connection"
        )
        failure.__cause__ = error
        self.failed(failure)
        return failure if isinstance(error, Exception) else error

    cdef int absorb(self, const uint8_t *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t part = min(size, self.sink_missing)
        if part:
            self.pour(data, part)
        Buffer.absorb(self, data + part, size - part)
        return 0

    cdef object lend(self, Py_ssize_t size):
        if not self.sink_missing:
            return Buffer.lend(self, size)
        try:
            memory = memoryview(self.sink.prepare(min(size, self.sink_missing))).cast("B")
            if memory.readonly or not len(memory):
                raise ValueError("the sink lent memory that is read-only or empty")
        except BaseException as error:
            raise self.sink_failed(error)
        self.lent_size = min(len(memory), self.sink_missing)
        return memory[:self.lent_size]

    cdef int take_back(self, Py_ssize_t size) except -1:
        if not self.sink_missing:
            return Buffer.take_back(self, size)
        if size:
            try:
                self.sink.commit(size)
            except BaseException as error:
                raise self.sink_failed(error)
            self.sink_missing -= size
        return 0

    cdef object take_sink(self):
        if self.sink_missing or self.tail - self.head < self.sentinel_size:
            self.settle()
            return None
        if not self.sentinel_at(0):
            self.distrusted = True
            error = untrue(self.sink_length)
            self.recover()
            raise self.rejected(error)
        message = self.header, self.sink
        self.sink = None
        self.finish(self.sentinel_size)
        return message

    cdef int recover(self) except -1:
        """Put what the sink has received back in front of the held bytes, to be searched."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t header_size = PyBytes_GET_SIZE(self.header)
        cdef Py_ssize_t total = self.body + self.sink_length + held
        cdef Py_ssize_t at = self.body
        cdef Py_buffer source
        cdef int i
        cdef Block block = new_block(total)
        for i in range(LENGTH_SIZE):
            block.data[i] = header_size >> 8 * i & 0xff
        memcpy(block.data + LENGTH_SIZE, PyBytes_AS_STRING(self.header), header_size)
        self.state = BUSY
        try:
            for piece in self.sink.pieces():
                PyObject_GetBuffer(piece, &source, PyBUF_SIMPLE)
                if source.len <= self.body + self.sink_length - at:
                    memcpy(block.data + at, source.buf, source.len)
                at += source.len
                PyBuffer_Release(&source)
            if at != self.body + self.sink_length:
                raise ValueError(f"its pieces have {at - self.body:,} bytes")
        except BaseException as error:
            raise self.sink_failed(error)
        self.state = FREE
        memcpy(block.data + at, self.block.data + self.head, held)
        self.block = block
        self.head, self.tail = 0, total
        self.sink = None
        return 0

    # ---- after a message that is wrong

    cdef object rejected(self, object error):
        """The error, to be raised once. Where the search is, it goes on."""
        self.bad_header = self.header
        self.stage = SKIPPING
        self.skipped = 0
        self.expected = 0
        self.header = None
        return error

    cdef int skip(self) except -1:
        """Drop everything up to the first sentinel and with it, as far as it has come."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t found = self.find(held)
        # Without a sentinel, its first bytes may be the last ones here.
        cdef Py_ssize_t gone = found if found >= 0 else max(held - self.sentinel_size + 1, 0)
        self.skipped += gone
        if self.skipped > self.max_frame_size:
            raise self.failed(FrameTooLarge("frame", self.skipped, self.max_frame_size, self.limit_name))
        if found >= 0:
            self.finish(found + self.sentinel_size)
        else:
            self.discard(gone)
        return 0


# ---- the other way

cdef Scanner _usual_scanner = FrameBuffer().scanner


cpdef frame(bytes payload, bytes header=None):
    """Make the frame of a payload that needs no length: one search, one copy.

    Parameters
    ----------
    payload : bytes
        Any.
    header : bytes, optional
        Any, without its length.

    Returns
    -------
    bytes or None
        What goes on the wire; None if the payload holds the protocol's sentinel, so that
        a header must tell its length.

    Examples
    --------
    >>> frame(b"pong")
    b'\\x00\\x00\\x00\\x00pong7d629535c4f3a6963f566af7d3e3a2d2'
    """
    if payload is None:
        raise TypeError("a payload is bytes, not None")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    cdef Py_ssize_t header_size = 0 if header is None else PyBytes_GET_SIZE(header)
    cdef Py_ssize_t sentinel_size = _usual_scanner.tables.size
    cdef const uint8_t *data = <const uint8_t *> PyBytes_AS_STRING(payload)
    cdef scan_state search
    cdef int i
    scan_start(&_usual_scanner.tables, &search)
    if scan(&_usual_scanner.tables, data, size, &search) >= 0:
        return None
    made = PyBytes_FromStringAndSize(NULL, LENGTH_SIZE + header_size + size + sentinel_size)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(made)
    for i in range(LENGTH_SIZE):
        out[i] = <uint8_t> (header_size >> 8 * i & 0xff)
    out += LENGTH_SIZE
    if header_size:
        memcpy(out, PyBytes_AS_STRING(header), header_size)
    memcpy(out + header_size, data, size)
    memcpy(out + header_size + size, _usual_scanner.tables.sentinel, sentinel_size)
    return made
