"""Blocks of memory that are never moved or reused while somebody looks at them.

A Block owns its memory and counts who looks at it. Every memoryview that the buffers
give away comes from a Window, which holds its Block: so a view keeps its memory alive,
and whoever has the Block can ask before touching it.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from fastcore._memory cimport HUGE_PAGE, giant_free, giant_grow, giant_new

cdef enum:
    # From this size on a Block consists of huge pages.
    GIANT_BLOCK = 4_194_304

# The kept Block memory, or NULL. Guarded by the GIL.
cdef uint8_t *_kept = NULL


@cython.freelist(16)
cdef class Block:
    """Owns `capacity` bytes; `views` memoryviews look at them.

    Its memory comes from one of three places, as the capacity tells: GIANT_BLOCK or more
    from the system, STEP from the kept memory if there is some, and else from malloc.
    """

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


@cython.final
@cython.freelist(16)
@cython.no_gc
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
    # Making the view may run the garbage collector, and that anything.
    block.views += 1
    try:
        return PyMemoryView_FromObject(window)
    finally:
        block.views -= 1
