"""The part that all buffers share; see the module."""

cimport cython
from libc.stdint cimport uint8_t

from fastcore._blocks cimport Block

cdef extern from "_scanner.h" nogil:
    ctypedef struct scanner:
        Py_ssize_t size
        uint8_t *sentinel
    ctypedef struct scan_state:
        Py_ssize_t at
        Py_ssize_t enough


@cython.final
cdef class Scanner:
    cdef scanner tables
    cdef readonly bytes sentinel
    cdef object __weakref__


cdef enum State:
    FREE     # may be used
    LENT     # memory is lent: commit comes next
    BUSY     # in the middle of an operation
    FAILED   # beyond repair


cdef class Buffer:
    cdef Scanner scanner
    # In bytes.
    cdef Py_ssize_t sentinel_size
    cdef readonly Py_ssize_t max_frame_size
    # What errors call that limit.
    cdef str limit_name
    cdef readonly object failure
    # Bytes that have come in, ever.
    cdef readonly long long received
    cdef State state

    # The bytes that are held: block.data[head:tail]. No Block when there are none.
    cdef Block block
    cdef Py_ssize_t head
    cdef Py_ssize_t tail
    # How far the frame at the head has been searched.
    cdef scan_state search
    # Where the frame at the head ends, with its sentinel, if that is known; else 0.
    cdef Py_ssize_t expected

    # Between `prepare` and `commit`: what is lent, and where it lies. `lent_block` is the
    # Block above, or a larger one whose first bytes are left free for those held.
    cdef object lent
    cdef Block lent_block
    cdef Py_ssize_t lent_at
    cdef Py_ssize_t lent_size

    cpdef prepare(self, Py_ssize_t size=*)
    cpdef commit(self, Py_ssize_t size)

    cdef uint8_t *prepare_memory(self, Py_ssize_t size) except NULL
    cdef int commit_memory(self, Py_ssize_t size) except -1

    # For the buffers that are made of this one.
    cdef int set_up(self, object sentinel, object max_frame_size, str limit_name=*) except -1
    cdef Py_ssize_t find(self, Py_ssize_t end) except -2
    cdef Py_ssize_t find_frame(self) except -2
    cdef int consume(self, Py_ssize_t size) except -1
    cdef int discard(self, Py_ssize_t size) except -1
    cdef int settle(self) except -1
    cdef object failed(self, object error)
    cdef int refuse(self, str method) except -1

    # Those that a buffer may do in its own way.
    cdef int absorb(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef object lend(self, Py_ssize_t size)
    cdef int take_back(self, Py_ssize_t size) except -1
    cdef int drop(self) except -1

    cdef int make_room(self, Py_ssize_t least, Py_ssize_t wanted) except -1
    cdef int keep(self, Py_ssize_t size) except -1
    cdef Py_ssize_t room_for(self, Py_ssize_t least, Py_ssize_t wanted) except -1
    cdef int check(self) except -1


# Far more bytes than there are, and far from overflowing in a sum.
cdef Py_ssize_t LARGEST_SIZE
