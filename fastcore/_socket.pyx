"""The bytes of one connection: received into a buffer, sent from a frame.

Whether that is done by the descriptor or by the socket object is decided here and nowhere
else. Directly, where a socket is a file descriptor and nothing stands between it and the
bytes: the socket object's way there (arguments, a view of the memory, letting the GIL go
and getting it back) costs about as much as the system call.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.list cimport PyList_GET_SIZE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER

from fastcore._framing cimport INTO_SINK, MessageBuffer

cdef extern from "_socket.h":
    const bint SOCKETS_ARE_FILES
    Py_ssize_t socket_recv(int fd, void *data, size_t size)
    Py_ssize_t socket_send(int fd, const void *data, size_t size)
    struct iovec:
        void *iov_base
        size_t iov_len
    Py_ssize_t socket_send_pieces(int fd, iovec *pieces, int count) nogil
    Py_ssize_t socket_peek(int fd)
    # Whether this thread is in the middle of what some socket does by functions in Python. OpenSSL has one
    # queue of errors for each thread: who comes in between, such as the collector, would be told those of
    # another connection. So he hears that nothing can be received or sent for now.
    const int is_inside
    void enter()
    void leave()

cdef enum:
    # Bytes asked for in one receive. What is lent may be more, where a frame's length is known.
    RECEIVE = 131_072
    # Received of a large message in one turn, at most, where each value has memory of its own.
    AT_ONCE = 1_048_576
    # Pieces of one message that leave without the steps of Python's socket object.
    FEW_PIECES = 16


@cython.final
cdef class Socket:
    """Receives and sends; never blocks.

    Parameters
    ----------
    source : socket.socket or what stands before one, such as TLS
        Has a non-blocking socket's ``recv_into``, which may give None where there is nothing, and
        ``send``, which may give 0 where no more is taken for now.
    gathers : bool
        Whether its ``sendmsg`` may be used, too.
    fileno : callable, optional
        Gives the descriptor, or -1 when it is closed; None where there is something
        between. Asked each time: whoever has the stream may close its socket, and the
        number is somebody else's then.
    bare_fileno : callable, optional
        As ``fileno``, of the socket under what stands between. It is only asked whether it has bytes.
    """

    def __init__(self, source, bint gathers=False, *, fileno=None, bare_fileno=None):
        self.source = source
        self.gathers = gathers
        self.fileno = fileno if SOCKETS_ARE_FILES else None
        self.bare_fileno = bare_fileno or fileno if SOCKETS_ARE_FILES else None

    cdef int descriptor(self) except? -1:
        """The socket's number where it may be used directly, else -1."""
        return -1 if self.fileno is None else self.fileno()

    cdef Py_ssize_t receive(self, MessageBuffer buffer) except? -1:
        """What one system call gives: the number of bytes, 0 at the end, or WOULD_BLOCK.

        Of a message that is received into memory of its own, what several give: a turn of the loop for
        each value, and for what comes meanwhile, would cost more than receiving it.
        """
        cdef Py_ssize_t size
        cdef Py_ssize_t total
        cdef void *memory
        cdef int fd = self.descriptor()
        if fd >= 0 and not buffer.sink_missing:
            memory = buffer.prepare_memory(RECEIVE)
            size = socket_recv(fd, memory, buffer.lent_size)
            try:
                if size == -1:
                    PyErr_SetFromErrno(OSError)
            finally:
                buffer.commit_memory(max(size, 0))
            return size
        total = size = self.receive_by_function(buffer)
        # Where there was much, its sender is at it, and more has come meanwhile.
        while (size == buffer.lent_size or size >= RECEIVE) and buffer.stage == INTO_SINK and total < AT_ONCE:
            size = self.receive_by_function(buffer)
            # The end will be told again.
            total += max(size, 0)
        return total

    cdef Py_ssize_t receive_by_function(self, MessageBuffer buffer) except? -1:
        """What one call of the socket's own function gives, into the memory that is lent next."""
        cdef Py_ssize_t size = 0
        if is_inside:
            return WOULD_BLOCK
        enter()
        try:
            lent = buffer.prepare(RECEIVE)
            try:
                received = self.source.recv_into(lent)
                size = received or 0
            except BlockingIOError:
                received = None
            finally:
                buffer.commit(size)
        finally:
            leave()
        return WOULD_BLOCK if received is None else size

    cdef bint is_at_end(self) except -1:
        """Whether the peer has closed its side and all was received, as far as that can be seen."""
        cdef int fd = self.descriptor()
        return fd >= 0 and socket_peek(fd) == 0

    cdef bint has_something(self) except -1:
        """Whether bytes wait to be received, or the end, as far as that can be seen."""
        cdef int fd = -1 if self.bare_fileno is None else self.bare_fileno()
        return fd >= 0 and socket_peek(fd) != WOULD_BLOCK

    cdef bint takes(self, object frame):
        """Whether `send` may be given it as it is."""
        return type(frame) is not list or (self.gathers and PyList_GET_SIZE(frame) <= MAX_PIECES)

    cdef Py_ssize_t send(self, object frame) except? -1:
        """Send what the socket takes at once of bytes, a memoryview or a list of them; how much that was."""
        cdef int fd = self.descriptor()
        cdef Py_ssize_t sent
        if fd >= 0 and type(frame) is bytes:
            sent = socket_send(fd, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
        elif fd >= 0 and type(frame) is list and PyList_GET_SIZE(frame) <= FEW_PIECES:
            sent = send_pieces(fd, frame)
        elif is_inside:
            return 0
        else:
            enter()
            try:
                send = self.source.sendmsg if type(frame) is list else self.source.send
                return send(frame) or 0
            except BlockingIOError:
                return 0
            finally:
                leave()
        if sent == -1:
            PyErr_SetFromErrno(OSError)
        return max(sent, 0)


def undisturbed(function):
    """Call what a socket does by itself, such as a handshake; this thread receives and sends nothing else."""
    enter()
    try:
        return function()
    finally:
        leave()


cdef Py_ssize_t send_pieces(int fd, list frame) except? -1:
    """As `socket_send`, for a frame in few pieces. They are the frame's: nobody changes it meanwhile."""
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
