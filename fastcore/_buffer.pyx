"""Bytes on their way from a transport to frames: the part that all buffers share.

The plan
--------
Received bytes lie in one Block, from head to tail. The frame at the head is looked
for by the scanner (``_scanner.h``), which remembers where it stopped.

    Block   |......|frame SENTINEL frame SENTINEL half a fr|..........|
            0      head                                    tail       capacity

A buffer that is empty has no Block. One that holds little has a small Block, also while
it lends a large one for the next bytes.

What it costs
-------------
feed                one copy.
prepare, commit     no copy, except that a few bytes received into a large Block are put
                    next to those that wait in a small one, so that many connections with
                    half a message each are small.
find_frame          one search over each byte ever received.
making room         bytes move only when at least as many have been consumed, or the
                    memory doubles: on average each byte moves once or less.
memory              at most twice what has arrived, and STEP. What a peer claims reserves
                    nothing: a claim only keeps the memory from growing further than that.

Misuse
------
``state`` is looked at first by every method. While memory is lent, while somebody else's
code runs in the middle of an operation or a long search runs without the GIL, every other
use raises BufferMisuse. So a second thread, or a callback that comes back, finds a closed
door and not a half-made change.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memmove

from fastcore._blocks cimport STEP, Block, new_block, view_of

from weakref import WeakValueDictionary

from fastcore.engine_errors import BufferMisuse, FrameTooLarge

cdef extern from "_scanner.h" nogil:
    const bint FASTCORE_DEBUG
    const Py_ssize_t LONGEST_SENTINEL
    const size_t bytes_examined
    void scanner_init(scanner *s, const uint8_t *sentinel, Py_ssize_t size)
    void scan_start(const scanner *s, scan_state *search)
    void scan_shift(scan_state *search, Py_ssize_t size)
    Py_ssize_t scan(const scanner *s, const uint8_t *data, Py_ssize_t end, scan_state *search)

#: What separates messages unless told otherwise. No proper prefix of it is also a suffix.
SENTINEL = b"7d629535c4f3a6963f566af7d3e3a2d2"

cdef enum:
    SMALLEST_BLOCK = 256
    # A search that isn't over after so many bytes goes on without the GIL.
    LONG_SEARCH = 262_144

cdef Py_ssize_t LARGEST_SIZE = (<Py_ssize_t> 1) << (8 * sizeof(Py_ssize_t) - 4)

# Bytes moved by all buffers; counted in a debug build, for the tests of the costs.
cdef Py_ssize_t _moved = 0


cdef inline void count_moved(Py_ssize_t size) noexcept:
    global _moved
    if FASTCORE_DEBUG:
        _moved += size


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


# Sentinel -> Scanner, shared by all buffers that use it.
_scanners = WeakValueDictionary()


cdef class Scanner:
    """A sentinel, made ready to be looked for."""


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


# Kept, as nearly every buffer uses it.
cdef Scanner _usual_scanner = scanner_for(SENTINEL)


cdef Py_ssize_t small_capacity(Py_ssize_t size):
    """For a few bytes: a power of two that holds twice as many."""
    cdef Py_ssize_t capacity = SMALLEST_BLOCK
    while capacity < 2 * size:
        capacity *= 2
    return capacity


cdef class Buffer:
    """Holds received bytes and looks for the sentinel in them."""

    def __cinit__(self):
        self.scanner = _usual_scanner
        scan_start(&self.scanner.tables, &self.search)

    cdef int set_up(self, object sentinel, object max_frame_size, str limit_name="max_frame_size") except -1:
        self.limit_name = limit_name
        self.scanner = scanner_for(sentinel)
        self.sentinel_size = self.scanner.tables.size
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
        >>> from fastcore._framing import FrameBuffer
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
            self.received += source.len
        finally:
            PyBuffer_Release(&source)

    cpdef prepare(self, Py_ssize_t size=-1):
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
        >>> from fastcore._framing import FrameBuffer
        >>> buffer = FrameBuffer(b"--")
        >>> memory = buffer.prepare()
        >>> memory[:5] = b"one--"
        >>> buffer.commit(5)
        >>> buffer.next_frame()
        b'one'
        """
        cdef Py_ssize_t wanted = min(size, LARGEST_SIZE)
        if self.state != FREE:
            self.refuse("prepare")
        self.state = BUSY
        try:
            self.lent = self.lend(wanted if wanted > 0 else STEP)
            self.state = LENT
        finally:
            if self.state == BUSY:
                self.state = FREE
        return self.lent

    cpdef commit(self, Py_ssize_t size):
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
        if self.state != LENT:
            self.refuse("commit")
        if not 0 <= size <= self.lent_size:
            raise BufferMisuse(
                f"commit of {size:,} bytes, but {self.lent_size:,} were lent; "
                "commit what was received, at most the length of what prepare() returned"
            )
        self.state = BUSY
        lent = self.lent
        self.lent = None
        try:
            lent.release()
        except BufferError:
            pass  # someone exports it further; it keeps the Block, so nothing moves under it
        self.take_back(size)
        self.received += size
        self.state = FREE
        if FASTCORE_DEBUG:
            self.check()

    cdef uint8_t *prepare_memory(self, Py_ssize_t size) except NULL:
        """As `prepare`, for compiled code that has no need of a view: `lent_size` bytes."""
        if self.state != FREE:
            self.refuse("prepare")
        # A quarter of what is wanted is better than moving what is held.
        self.make_room((size + 3) // 4, size)
        self.state = LENT
        return self.lent_block.data + self.lent_at

    cdef int commit_memory(self, Py_ssize_t size) except -1:
        """As `commit`, after `prepare_memory`."""
        self.keep(size)
        self.received += size
        self.state = FREE
        if FASTCORE_DEBUG:
            self.check()
        return 0

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
        cdef Py_ssize_t capacity = self.room_for(least, wanted)
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

    cdef Py_ssize_t room_for(self, Py_ssize_t least, Py_ssize_t wanted) except -1:
        """The capacity of a Block for the held bytes and those that are to come."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Py_ssize_t missing = self.expected - held
        if wanted > LARGEST_SIZE:
            raise MemoryError(f"no memory for {wanted:,} more bytes")
        if held + wanted <= STEP // 4:
            return small_capacity(held + wanted)
        if held + least <= STEP:
            return STEP
        if missing > 0:
            return held + max(wanted, min(held, missing + wanted))
        return held + max(wanted, held)

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

    cdef int discard(self, Py_ssize_t size) except -1:
        """Drop bytes from the front that begin no sentinel; the search goes on."""
        scan_shift(&self.search, size)
        self.head += size
        return 0

    cdef int settle(self) except -1:
        """No frame is complete: hold no more memory than the bytes that are here need."""
        cdef Py_ssize_t held = self.tail - self.head
        cdef Block small
        if self.block is None:
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
        if FASTCORE_DEBUG:
            self.check()
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
            size = held - self.sentinel_size + 1
            if size <= self.max_frame_size:
                self.settle()
                return -1
        if size > self.max_frame_size:
            raise self.failed(FrameTooLarge("frame", size, self.max_frame_size, self.limit_name))
        return size

    # ---- errors

    cdef int check(self) except -1:
        """What is true between any two calls; only a debug build looks."""
        assert 0 <= self.head <= self.tail
        assert self.tail <= (self.block.capacity if self.block is not None else 0)
        assert self.search.enough > 0 and self.search.at >= 0
        return 0

    cdef object failed(self, object error):
        """The error, to be raised now and at every use from now on. The bytes are dropped."""
        self.drop()
        self.failure = error
        self.state = FAILED
        return error

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
