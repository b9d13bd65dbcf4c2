"""The buffer of messages, for the message path."""

cimport cython
from libc.stdint cimport uint8_t

from fastcore._buffer cimport Buffer


cdef enum:
    # What every message begins with: how long its header is.
    LENGTH_SIZE = 4


cdef enum Stage:
    AT_START     # header length and header come next
    TO_SENTINEL  # the payload ends at the first sentinel
    TO_LENGTH    # it ends where `expected` says
    INTO_SINK    # the same, and it is received elsewhere
    SKIPPING     # the message is wrong; drop everything up to a sentinel


@cython.final
cdef class MessageBuffer(Buffer):
    cdef readonly Py_ssize_t max_header_size
    # Messages that are done with, ever: taken out, or skipped.
    cdef readonly long long taken
    cdef object read_header
    cdef Stage stage
    # Of the message at the head: its header, and where its payload starts.
    cdef bytes header
    cdef Py_ssize_t body
    # Of the message that was wrong last, its header as far as it was read.
    cdef readonly bytes bad_header
    # INTO_SINK: whose bytes come next, and how many. The held bytes are those after them.
    cdef object sink
    cdef Py_ssize_t sink_length
    cdef Py_ssize_t sink_missing
    # A length wasn't true: the peer gets no sink again.
    cdef bint distrusted
    # SKIPPING: bytes of the bad message that are gone already.
    cdef Py_ssize_t skipped

    cpdef next_message(self)
    cdef bint is_simple(self)
    cdef bytes next_header(self)
    cdef int open_message(self) except -1
    cdef int ask_header(self) except -1
    cdef int check_length(self, object length) except -1
    cdef Py_ssize_t find_length(self) except -2
    cdef bint sentinel_at(self, Py_ssize_t position)
    cdef object take(self, Py_ssize_t size)
    cdef int finish(self, Py_ssize_t size) except -1
    cdef int open_sink(self, object sink, Py_ssize_t length) except -1
    cdef int pour(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef object sink_failed(self, object error)
    cdef object take_sink(self)
    cdef int recover(self) except -1
    cdef object rejected(self, object error)
    cdef int skip(self) except -1


cpdef frame(bytes payload, bytes header=*)
