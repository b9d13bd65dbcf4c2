"""Bytes in, frames out: the scanner's results, the memory, and no socket.

The plan
--------
Received bytes lie in one Block, from head to tail. The frame at the head is looked
for by the scanner (``_scanner.h``), which remembers where it stopped.

    Block   |......|frame SENTINEL frame SENTINEL half a fr|..........|
            0      head                                    tail       capacity

    FrameBuffer     everything up to a sentinel is a frame.
    MessageBuffer   a frame is: header length, header, payload. The header may say how
                    long the payload is; then nothing is looked for, and the payload may
                    go straight into memory that somebody else provides (a Sink).

Who owns what
-------------
A Block owns its memory and counts who looks at it. Every memoryview that leaves this
file comes from a Window, which holds its Block. A Block that is looked at is never
moved, resized or reused: the buffer takes another one and leaves it to its viewers.
A buffer that is empty has no Block. One Block of the usual size is kept for whoever
needs one next, since fresh memory costs more than receiving into it.

What it costs
-------------
feed                one copy.
prepare, commit     no copy, except that a few bytes received into a large Block are put
                    next to those that wait in a small one, so that many connections with
                    half a message each are small.
next_frame          one search over each byte ever received, one copy: the result.
next_view           the search alone.
next_message        as next_frame for small payloads, as next_view for large ones; a
                    payload whose length is known isn't searched.
making room         bytes move only when at least as many have been consumed, or the
                    memory doubles: on average each byte moves once or less.

Misuse
------
``state`` is looked at first by every method. While memory is lent, while somebody else's
code runs in the middle of an operation (header, sink) or a long search runs without the
GIL, every other use raises BufferMisuse. So a second thread, or a callback that comes
back, finds a closed door and not a half-made change.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE,
    PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memmove

from fastcore._memory cimport HUGE_PAGE, giant_free, giant_grow, giant_new

from weakref import WeakValueDictionary

from fastcore.errors import BadFrame, BufferMisuse, FrameTooLarge

cdef extern from "_scanner.h" nogil:
    const bint FASTCORE_DEBUG
    size_t bytes_examined
    const Py_ssize_t LONGEST_SENTINEL
    ctypedef struct scanner:
        Py_ssize_t size
        uint8_t *sentinel
    ctypedef struct scan_state:
        Py_ssize_t at
        Py_ssize_t enough
    void scanner_init(scanner *s, const uint8_t *sentinel, Py_ssize_t size)
    void scan_start(const scanner *s, scan_state *search)
    void scan_shift(scan_state *search, Py_ssize_t size)
    Py_ssize_t scan(const scanner *s, const uint8_t *data, Py_ssize_t end, scan_state *search)

#: What separates messages unless told otherwise. No proper prefix of it is also a suffix.
SENTINEL = b"7d629535c4f3a6963f566af7d3e3a2d2"

cdef enum:
    # What `prepare` lends when nothing is known, and the size of the Block that is kept.
    STEP = 128 * 1024
    SMALLEST_BLOCK = 256
    # A payload up to here is copied out; a larger one is a view, which costs some 0.2 us.
    SMALL_PAYLOAD = 4 * 1024
    # A search that isn't over after so many bytes goes on without the GIL.
    LONG_SEARCH = 256 * 1024
    # From this size on a Block consists of huge pages.
    GIANT_BLOCK = 4 * 1024 * 1024
    LENGTH_SIZE = 4

# Far more than there is, and far from overflowing in a sum.
cdef Py_ssize_t LARGEST_BLOCK = (<Py_ssize_t> 1) << (8 * sizeof(Py_ssize_t) - 4)

DEFAULT_MAX_FRAME_SIZE = 1 << 30
DEFAULT_MAX_HEADER_SIZE = 64 * 1024


# ---- memory

# Bytes moved inside the buffers: counted in a debug build, for the tests of the costs.
cdef Py_ssize_t _moved = 0


cdef inline void count_moved(Py_ssize_t size) noexcept:
    global _moved
    if FASTCORE_DEBUG:
        _moved += size


# The kept Block memory, or NULL. Guarded by the GIL.
cdef uint8_t *_kept = NULL


@cython.final
@cython.freelist(16)
cdef class Block:
    """Owns `capacity` bytes; `views` memoryviews look at them.

    Its memory comes from one of three places, as the capacity tells: GIANT_BLOCK or more
    from the system, STEP from the kept memory if there is some, and else from malloc.
    """

    cdef uint8_t *data
    cdef Py_ssize_t capacity
    cdef Py_ssize_t views

    def __dealloc__(self):
        global _kept
        if self.capacity >= GIANT_BLOCK:
            giant_free(self.data, self.capacity)
        elif self.capacity == STEP and _kept is NULL:
            _kept = self.data
        else:
            PyMem_RawFree(self.data)

    cdef int grow(self, Py_ssize_t capacity) except -1:
        """The same bytes and more room behind them. Only while nobody looks at them."""
        cdef void *data
        if capacity < GIANT_BLOCK:
            data = PyMem_RawRealloc(self.data, capacity)
        else:
            capacity = whole_huge_pages(capacity)
            if self.capacity >= GIANT_BLOCK:
                data = giant_grow(self.data, self.capacity, capacity)
            else:
                data = giant_new(capacity)
                if data is not NULL and self.capacity:
                    memcpy(data, self.data, self.capacity)
                    PyMem_RawFree(self.data)
        if data is NULL:
            raise MemoryError(f"no memory for a block of {capacity:,} bytes")
        self.data = <uint8_t *> data
        self.capacity = capacity
        return 0


cdef Block new_block(Py_ssize_t capacity):
    global _kept
    cdef Block block = Block.__new__(Block)
    if capacity == STEP and _kept is not NULL:
        block.data = _kept
        block.capacity = STEP
        _kept = NULL
    else:
        block.grow(capacity)
    return block


cdef Py_ssize_t whole_huge_pages(Py_ssize_t size) noexcept:
    return (size + <Py_ssize_t> HUGE_PAGE - 1) // <Py_ssize_t> HUGE_PAGE * <Py_ssize_t> HUGE_PAGE


cdef char *BYTE_FORMAT = "B"


cdef Py_ssize_t small_capacity(Py_ssize_t size):
    """For a few bytes: a power of two that holds twice as many."""
    cdef Py_ssize_t capacity = SMALLEST_BLOCK
    while capacity < 2 * size:
        capacity *= 2
    return capacity


@cython.final
@cython.freelist(16)
cdef class Window:
    """Some bytes of a Block, for memoryviews to look at."""

    cdef Block block
    cdef uint8_t *start
    cdef Py_ssize_t size
    cdef bint readonly

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.readonly and flags & PyBUF_WRITABLE:
            raise BufferError("a received frame is read-only")
        view.obj = self
        view.buf = self.start
        view.len = self.size
        view.itemsize = 1
        view.readonly = self.readonly
        view.format = BYTE_FORMAT if flags & PyBUF_FORMAT else <char *> NULL
        view.ndim = 1
        view.shape = &view.len if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL
        self.block.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.block.views -= 1


cdef object view_of(Block block, Py_ssize_t start, Py_ssize_t size, bint readonly):
    cdef Window window = Window.__new__(Window)
    window.block = block
    window.start = block.data + start
    window.size = size
    window.readonly = readonly
    return PyMemoryView_FromObject(window)


# ---- the scanner of a sentinel, shared by all buffers that use it

_scanners = WeakValueDictionary()


@cython.final
cdef class Scanner:
    """A sentinel, made ready to be looked for."""

    cdef scanner tables
    cdef readonly bytes sentinel
    cdef object __weakref__


cdef Scanner scanner_for(object sentinel):
    if type(sentinel) is not bytes:
        raise TypeError(f"a sentinel is bytes, not {type(sentinel).__name__}")
    known = _scanners.get(sentinel)
    if known is not None:
        return known
    size = len(sentinel)
    if not 1 <= size <= LONGEST_SENTINEL:
        raise ValueError(f"a sentinel has 1 to {LONGEST_SENTINEL} bytes, not {size}")
    cdef Scanner made = Scanner()
    made.sentinel = sentinel
    scanner_init(&made.tables, <const uint8_t *> PyBytes_AS_STRING(sentinel), size)
    _scanners[sentinel] = made
    return made


cdef Scanner _usual_scanner = scanner_for(SENTINEL)


# ---- the buffers

cdef enum State:
    FREE     # may be used
    LENT     # memory is lent: commit comes next
    BUSY     # in the middle of an operation
    FAILED   # beyond repair


cdef class Buffer:
    """Bytes on their way from a transport to frames: the part that all buffers share."""

    cdef Scanner scanner
    cdef readonly Py_ssize_t max_frame_size
    cdef readonly object failure
    cdef State state

    # The bytes that are held: block.data[head:tail]. No Block when there are none.
    cdef Block block
    cdef Py_ssize_t head
    cdef Py_ssize_t tail
    # How far the frame at the head has been searched.
    cdef scan_state search
    # How many bytes from the head on are known to be needed, where a length said so.
    cdef Py_ssize_t expected

    # Between `prepare` and `commit`: what is lent, and where it lies. `lent_block` is the
    # Block above, or a larger one whose first bytes are left free for those held.
    cdef object lent
    cdef Block lent_block
    cdef Py_ssize_t lent_at
    cdef Py_ssize_t lent_size

    def __cinit__(self):
        self.scanner = _usual_scanner

    cdef int set_up(self, object sentinel, object max_frame_size) except -1:
        self.scanner = scanner_for(sentinel)
        scan_start(&self.scanner.tables, &self.search)
        if max_frame_size < 1:
            raise ValueError(f"max_frame_size is 1 or more, not {max_frame_size!r}")
        self.max_frame_size = max_frame_size
        return 0

    @property
    def sentinel(self):
        """What ends a frame."""
        return self.scanner.sentinel

    def __len__(self):
        return self.tail - self.head

    def __sizeof__(self):
        size = type(self).__basicsize__
        if self.block is not None:
            size += self.block.capacity
        if self.lent_block is not None and self.lent_block is not self.block:
            size += self.lent_block.capacity
        return size

    # ---- in

    def feed(self, data, /):
        """Copy received bytes in.

        Parameters
        ----------
        data : bytes-like
            Any bytes, cut anywhere.

        Raises
        ------
        BufferMisuse
            While memory is lent, or from inside a callback of the buffer.
        FrameTooLarge
            After the buffer has failed.

        Examples
        --------
        >>> buffer = FrameBuffer(b"--")
        >>> buffer.feed(b"one--tw")
        >>> buffer.feed(b"o--")
        >>> list(buffer)
        [b'one', b'two']
        """
        cdef Py_buffer source
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        try:
            if self.state != FREE:
                self.refuse("feed")
            self.absorb(<const uint8_t *> source.buf, source.len)
        finally:
            PyBuffer_Release(&source)

    def prepare(self, size=-1, /):
        """Lend the memory where the next bytes belong.

        Parameters
        ----------
        size : int, optional
            How many bytes are about to come, as far as the caller knows. A hint: what is
            lent may be shorter or longer, but never empty.

        Returns
        -------
        memoryview
            Writable. `commit` takes it back.

        Raises
        ------
        BufferMisuse
            When it is lent already, or from inside a callback of the buffer.
        FrameTooLarge
            After the buffer has failed.

        Examples
        --------
        >>> buffer = FrameBuffer(b"--")
        >>> memory = buffer.prepare()
        >>> memory[:5] = b"one--"
        >>> buffer.commit(5)
        >>> buffer.next_frame()
        b'one'
        """
        cdef Py_ssize_t wanted = size
        if self.state != FREE:
            self.refuse("prepare")
        lent = self.lend(wanted if wanted > 0 else STEP)
        self.lent = lent
        self.state = LENT
        return lent

    def commit(self, size, /):
        """Take the lent memory back, with so many received bytes at its start.

        Parameters
        ----------
        size : int
            From 0 (nothing was received) to the length of what was lent.

        Raises
        ------
        BufferMisuse
            When nothing is lent, or `size` is more than what is. Nothing changes then.
        """
        cdef Py_ssize_t received = size
        if self.state != LENT:
            self.refuse("commit")
        if not 0 <= received <= self.lent_size:
            raise BufferMisuse(
                f"commit of {received:,} bytes, but {self.lent_size:,} were lent; "
                "commit what was received, at most the length of what prepare() returned"
            )
        self.state = BUSY
        lent, self.lent = self.lent, None
        try:
            lent.release()
        except BufferError:
            pass  # someone exports it further; it keeps the Block, so nothing moves under it
        self.take_back(received)
        self.state = FREE

    def clear(self):
        """Drop all bytes held, and what is known of the frame that they begin.

        A buffer that has failed stays failed.
        """
        if self.state == LENT or self.state == BUSY:
            self.refuse("clear")
        self.drop()

    cdef int absorb(self, const uint8_t *data, Py_ssize_t size) except -1:
        if size == 0:
            return 0
        self.make_room(size, size)
        memcpy(self.lent_block.data + self.lent_at, data, size)
        self.keep(size)
        return 0

    cdef object lend(self, Py_ssize_t size):
        """A writable view of free memory, described by the `lent_` fields."""
        cdef Py_ssize_t missing = self.expected - (self.tail - self.head)
        if missing > 0:
            self.make_room(missing, missing + size)
        else:
            # A quarter of what is wanted is better than moving what is held.
            self.make_room((size + 3) // 4, size)
        return view_of(self.lent_block, self.lent_at, self.lent_size, False)

    cdef int take_back(self, Py_ssize_t size) except -1:
        self.keep(size)
        return 0

    # ---- memory

    cdef int make_room(self, Py_ssize_t least, Py_ssize_t wanted) except -1:
        """Point the `lent_` fields at free memory of `least` bytes or more, better `wanted`.

        Where the Block has to be left, the held bytes stay in it until `keep` knows
        whether they have to move.
        """
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t capacity = room_for(held, least, wanted)
        cdef Block block = self.block
        if block is not None:
            if block.capacity - self.tail < least and not block.views:
                if self.head >= held:
                    memmove(block.data, block.data + self.head, held)
                    count_moved(held)
                    self.head, self.tail = 0, held
                if block.capacity - self.tail < least and block.capacity >= STEP:
                    block.grow(self.head + capacity)
            if block.capacity - self.tail >= least:
                self.lent_block = block
                self.lent_at = self.tail
                self.lent_size = block.capacity - self.tail
                return 0
        self.lent_block = new_block(capacity)
        self.lent_at = held
        self.lent_size = capacity - held
        return 0

    cdef int keep(self, Py_ssize_t size) except -1:
        """`size` bytes have been written to where the `lent_` fields point."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Block lent = self.lent_block
        self.lent_block = None
        if lent is self.block:
            self.tail += size
        elif self.block is not None and size <= self.block.capacity - self.tail:
            memcpy(self.block.data + self.tail, lent.data + self.lent_at, size)
            count_moved(size)
            self.tail += size
        elif size:
            if held:
                memcpy(lent.data + self.lent_at - held, self.block.data + self.head, held)
                count_moved(held)
            self.block = lent
            self.head = self.lent_at - held
            self.tail = self.lent_at + size
        return 0

    cdef int consume(self, Py_ssize_t size) except -1:
        """The frame at the head is done with; the next one begins `size` bytes further."""
        scan_start(&self.scanner.tables, &self.search)
        self.expected = 0
        self.head += size
        if self.head == self.tail:
            self.block = None
            self.head = self.tail = 0
        return 0

    cdef int settle(self) except -1:
        """No frame is complete: hold no more memory than the bytes that are here need."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Block small
        if self.block is None or self.expected > held:
            return 0
        if held == 0:
            self.block = None
            self.head = self.tail = 0
        elif self.block.capacity > SMALLEST_BLOCK and 8 * held <= self.block.capacity:
            small = new_block(small_capacity(held))
            memcpy(small.data, self.block.data + self.head, held)
            count_moved(held)
            self.block = small
            self.head, self.tail = 0, held
        return 0

    cdef int drop(self) except -1:
        """Forget everything that was received."""
        self.consume(self.tail - self.head)
        return 0

    # ---- the search

    cdef Py_ssize_t find(self, Py_ssize_t end) except -2:
        """Where the first sentinel starts within `end` bytes from the head, or -1."""
        cdef const uint8_t *data
        cdef Py_ssize_t found
        if end < self.search.enough:
            return -1
        data = self.block.data + self.head
        found = scan(&self.scanner.tables, data, min(end, self.search.at + LONG_SEARCH), &self.search)
        if found < 0 and end >= self.search.enough:
            self.state = BUSY
            with nogil:
                found = scan(&self.scanner.tables, data, end, &self.search)
            self.state = FREE
        return found

    cdef Py_ssize_t find_frame(self) except -2:
        """The size of the frame at the head, or -1 when it isn't complete."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t size = self.find(held)
        if size < 0:
            # What is held may end with all but one byte of the sentinel.
            size = held - self.scanner.tables.size + 1
            if size <= self.max_frame_size:
                self.settle()
                return -1
        if size > self.max_frame_size:
            self.fail(FrameTooLarge("frame", size, self.max_frame_size, "max_frame_size"))
        return size

    # ---- errors

    cdef int fail(self, object error) except -1:
        """For good: the bytes are dropped, and every use from now on raises the error."""
        self.drop()
        self.failure = error
        self.state = FAILED
        raise error

    cdef int refuse(self, str method) except -1:
        """Raise what the state says."""
        if self.state == FAILED:
            # Without what earlier raises have put there, which would grow and grow.
            raise self.failure.with_traceback(None)
        if self.state == LENT:
            raise BufferMisuse(f"{method}() while memory is lent; commit() what was received first")
        if self.state == BUSY:
            raise BufferMisuse(
                f"{method}() while another call on this buffer runs; "
                "use a buffer from one thread, and not from its own callbacks"
            )
        raise BufferMisuse(f"{method}() without prepare(); nothing is lent")


cdef Py_ssize_t room_for(Py_ssize_t held, Py_ssize_t least, Py_ssize_t wanted) except -1:
    """The capacity of a Block for the `held` bytes and those that are to come."""
    if wanted > LARGEST_BLOCK:
        raise MemoryError(f"no memory for {wanted:,} more bytes")
    if held + wanted <= STEP // 4:
        return small_capacity(held + wanted)
    if held + least <= STEP:
        return STEP
    return held + max(wanted, held)


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
        self.consume(size + self.scanner.tables.size)
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
        self.consume(size + self.scanner.tables.size)
        return frame


cdef enum Stage:
    AT_START     # header length and header come next
    TO_SENTINEL  # the payload ends at the first sentinel
    TO_LENGTH    # it ends where `expected` says
    INTO_SINK    # the same, and it is received elsewhere
    SKIPPING     # the message is wrong; drop everything up to a sentinel


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

    cdef readonly Py_ssize_t max_header_size
    cdef object read_header
    cdef Stage stage
    # Of the message at the head: its header, and where its payload starts.
    cdef bytes header
    cdef Py_ssize_t body
    # INTO_SINK: whose bytes come next, and how many. The held bytes are those after them.
    cdef object sink
    cdef Py_ssize_t sink_length
    cdef Py_ssize_t sink_missing
    # A length wasn't true: the peer gets no sink again.
    cdef bint distrusted
    # SKIPPING: bytes of the bad message that are gone already.
    cdef Py_ssize_t skipped

    def __cinit__(self, read_header, sentinel=SENTINEL, *, max_frame_size=DEFAULT_MAX_FRAME_SIZE,
                  max_header_size=DEFAULT_MAX_HEADER_SIZE):
        self.set_up(sentinel, max_frame_size)
        if not callable(read_header):
            raise TypeError(f"read_header is called with each header; {read_header!r} can't be")
        if max_header_size < 0:
            raise ValueError(f"max_header_size is 0 or more, not {max_header_size!r}")
        self.max_header_size = max_header_size
        self.read_header = read_header

    def next_message(self):
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
                self.reject(BadFrame(f"a message of {size} bytes ends inside its header"))
        elif self.stage == TO_LENGTH:
            size = self.find_length()
        elif self.stage == INTO_SINK:
            return self.take_sink()
        else:
            size = -1
            self.settle()
        return self.take(size) if size >= 0 else None

    cdef int open_message(self) except -1:
        """Read header length and header, and move on to the stage that they lead to."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t header_size
        cdef uint8_t *start
        if held < LENGTH_SIZE:
            if self.find(held) >= 0:
                self.reject(BadFrame("a message ends inside its header length"))
            return 0
        start = self.block.data + self.head
        header_size = (start[0] | start[1] << 8 | start[2] << 16 | <Py_ssize_t> start[3] << 24)
        self.body = LENGTH_SIZE + header_size
        self.header = b""
        if header_size == 0:
            self.stage = TO_SENTINEL
            return 0
        if self.find(LENGTH_SIZE) >= 0:
            self.reject(BadFrame("a message ends inside its header length"))
        if header_size > self.max_header_size:
            self.reject(FrameTooLarge("header", header_size, self.max_header_size, "max_header_size"))
        if self.body > self.max_frame_size:
            self.reject(FrameTooLarge("frame", self.body, self.max_frame_size, "max_frame_size"))
        if self.find(min(held, self.body)) >= 0:
            self.reject(BadFrame(f"a message ends inside its header of {header_size} bytes"))
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
            length = None
            if isinstance(answer, int):
                length = answer
            elif answer is not None:
                length = answer.length
            self.check_length(length)
        except BaseException:
            self.start_skipping()
            raise
        finally:
            self.state = FREE
        if answer is None:
            self.stage = TO_SENTINEL
        elif isinstance(answer, int) or self.distrusted:
            self.stage = TO_LENGTH
            self.expected = self.body + <Py_ssize_t> length + self.scanner.tables.size
        else:
            self.open_sink(answer, length)
        return 0

    cdef int check_length(self, object length) except -1:
        if length is None:
            return 0
        if not isinstance(length, int) or length < 0:
            raise ValueError(f"read_header gave {length!r} as the length of a payload; it is 0 or more bytes")
        limit = min(self.max_frame_size, LARGEST_BLOCK)
        if self.body + length > limit:
            raise FrameTooLarge("frame", self.body + length, limit, "max_frame_size")
        return 0

    cdef Py_ssize_t find_length(self) except -2:
        """As `find_frame`, where the length is known: the sentinel must be there."""
        cdef Py_ssize_t size = self.expected - self.scanner.tables.size
        if self.tail - self.head < self.expected:
            return -1
        if not self.sentinel_at(size):
            self.distrusted = True
            self.reject(self.untrue(size - self.body))
        return size

    cdef bint sentinel_at(self, Py_ssize_t position):
        return memcmp(
            self.block.data + self.head + position, self.scanner.tables.sentinel, self.scanner.tables.size
        ) == 0

    cdef object untrue(self, Py_ssize_t length):
        return BadFrame(f"a message claims a payload of {length:,} bytes, but no sentinel follows them")

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
        self.finish(self.body + size + self.scanner.tables.size)
        if payload is None:
            payload = view_of(block, start, size, True)
        return header, payload

    cdef int finish(self, Py_ssize_t size) except -1:
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
            self.fail_sink(error)
        self.state = FREE
        return 0

    cdef int fail_sink(self, object error) except -1:
        """The sink is broken, and with it the place in the stream."""
        failure = BadFrame(
            f"the sink for a payload of {self.sink_length:,} bytes failed ({type(error).__name__}: {error}); "
            "what it has received is lost, close the connection"
        )
        failure.__cause__ = error
        self.fail(failure)
        return 0

    cdef int absorb(self, const uint8_t *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t part = min(size, self.sink_missing)
        if part:
            self.pour(data, part)
        Buffer.absorb(self, data + part, size - part)
        return 0

    cdef object lend(self, Py_ssize_t size):
        if not self.sink_missing:
            return Buffer.lend(self, size)
        self.state = BUSY
        try:
            memory = memoryview(self.sink.prepare(min(size, self.sink_missing))).cast("B")
            if memory.readonly or not len(memory):
                raise ValueError("the sink lent memory that is read-only or empty")
        except BaseException as error:
            self.fail_sink(error)
        self.lent_size = min(len(memory), self.sink_missing)
        self.state = FREE
        return memory[:self.lent_size]

    cdef int take_back(self, Py_ssize_t size) except -1:
        if not self.sink_missing:
            return Buffer.take_back(self, size)
        if size:
            try:
                self.sink.commit(size)
            except BaseException as error:
                self.fail_sink(error)
            self.sink_missing -= size
        return 0

    cdef object take_sink(self):
        if self.sink_missing or self.tail - self.head < self.scanner.tables.size:
            self.settle()
            return None
        if not self.sentinel_at(0):
            self.distrusted = True
            error = self.untrue(self.sink_length)
            self.recover()
            self.reject(error)
        message = self.header, self.sink
        self.sink = None
        self.finish(self.scanner.tables.size)
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
            self.fail_sink(error)
        self.state = FREE
        memcpy(block.data + at, self.block.data + self.head, held)
        self.block = block
        self.head, self.tail = 0, total
        self.sink = None
        return 0

    # ---- after a message that is wrong

    cdef int reject(self, object error) except -1:
        self.start_skipping()
        raise error

    cdef int start_skipping(self) except -1:
        """The search goes on where it is: from the start of the bad message on."""
        self.stage = SKIPPING
        self.skipped = 0
        self.expected = 0
        self.header = None
        return 0

    cdef int skip(self) except -1:
        """Drop everything up to the first sentinel and with it, as far as it has come."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t found = self.find(held)
        # Without a sentinel, its first bytes may be the last ones here.
        cdef Py_ssize_t gone = found if found >= 0 else max(held - self.scanner.tables.size + 1, 0)
        self.skipped += gone
        if self.skipped > self.max_frame_size:
            self.fail(FrameTooLarge("frame", self.skipped, self.max_frame_size, "max_frame_size"))
        if found >= 0:
            self.finish(found + self.scanner.tables.size)
        else:
            self.head += gone
            scan_shift(&self.search, gone)
        return 0


def work_done():
    """What all buffers have done so far, in a debug build; for the tests of the costs.

    Returns
    -------
    tuple of int, or None
        The bytes examined by searches, and the bytes moved inside the buffers.
    """
    if not FASTCORE_DEBUG:
        return None
    return bytes_examined, _moved
