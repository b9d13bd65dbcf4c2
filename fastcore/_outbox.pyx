"""What is on its way out: the pieces of messages that the socket hasn't taken yet.

Sending may run anything: a view that is made or given back wakes the garbage collector,
and that whoever has a ``__del__``; a socket in Python may be interrupted by a signal. All of
them may write to the same connection, or close it. So what they write is put behind, a
second one doesn't send while the first is at it, and the list of pieces is looked at anew
after each step that may have run somebody.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE

from fastcore._socket cimport MAX_PIECES, Socket
from fastcore._wire cimport size_of

cdef enum:
    # Below this size, gluing pieces together costs less than handing them over one by one.
    GLUE = 16_384


@cython.final
cdef class Outbox:
    """A queue of pieces, sent in order and in as few system calls as it takes.

    Small pieces are glued together; large ones are sent from where they lie.

    Attributes
    ----------
    unsent : int
        Bytes that wait.
    sent : int
        Bytes that have been sent, ever.
    """

    def __cinit__(self):
        self.pieces = []

    cpdef int put(self, object frame) except -1:
        """Append a frame: bytes, or a list of its pieces."""
        if type(frame) is bytes:
            self.unsent += PyBytes_GET_SIZE(frame)
            self.pieces.append(frame)
        else:
            self.unsent += size_of(frame)
            self.pieces.extend(frame)
        return 0

    cdef bint send_now(self, object frame, Socket socket) except -1:
        """Send a frame while nothing else waits; whether the socket has taken it whole.

        The least that it can cost: one that is taken whole never gets into the list. What isn't
        comes first from now on; until it is in the list nobody else sends.
        """
        cdef list pieces = self.pieces
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame) if type(frame) is bytes else size_of(frame)
        cdef Py_ssize_t sent
        self.is_sending = True
        try:
            sent = socket.send(frame)
            if sent == size:
                self.sent += sent
                return True
            if self.pieces is pieces:
                pieces[:0] = [frame] if type(frame) is bytes else frame
                self.unsent += size
                self.advance(pieces, sent)
        finally:
            self.is_sending = False
        return False

    cdef int own_all(self) except -1:
        """Copy what waits of memory that its owner may change before it has left."""
        cdef list pieces = self.pieces
        cdef Py_ssize_t at
        cdef bint was_sending = self.is_sending
        # As long as nobody sends, no piece goes from the list.
        self.is_sending = True
        try:
            for at in range(PyList_GET_SIZE(pieces)):
                piece = pieces[at]
                if type(piece) is not bytes and type(piece.obj) is not bytes:
                    copy = bytes(piece)
                    if self.pieces is not pieces:
                        break
                    pieces[at] = copy
        finally:
            self.is_sending = was_sending
        return 0

    cpdef int clear(self) except -1:
        """Give up what hasn't been sent."""
        self.unsent = 0
        self.pieces = []
        return 0

    cpdef int flush(self, Socket socket) except -1:
        """Send until all is sent or the socket takes no more.

        Raises
        ------
        OSError
            As the socket raises it, but for BlockingIOError.
        """
        cdef list pieces
        cdef Py_ssize_t sent
        if self.is_sending:
            return 0
        self.is_sending = True
        try:
            while self.pieces:
                self.glue(self.pieces)
                pieces = self.pieces
                if not pieces:
                    break
                frame = pieces[:MAX_PIECES] if PyList_GET_SIZE(pieces) > 1 else pieces[0]
                if not socket.takes(frame):
                    frame = pieces[0]
                sent = socket.send(frame)
                if not sent:
                    break
                if self.pieces is pieces:
                    self.advance(pieces, sent)
        finally:
            self.is_sending = False
        return 0

    cdef int glue(self, list pieces) except -1:
        """Make one piece of the small ones at the front."""
        cdef Py_ssize_t small = 0
        if PyList_GET_SIZE(pieces) == 1:
            return 0
        if self.unsent <= GLUE:
            small = PyList_GET_SIZE(pieces)
        elif PyList_GET_SIZE(pieces) > 3:
            # More than one message. The pieces of a single large one stay as they are.
            while small < PyList_GET_SIZE(pieces) and len(pieces[small]) < GLUE:
                small += 1
        if small > 1:
            glued = b"".join(pieces[:small])
            if self.pieces is pieces:
                pieces[:small] = [glued]
        return 0

    cdef int advance(self, list pieces, Py_ssize_t sent) except -1:
        """Forget so many bytes that have left."""
        cdef Py_ssize_t gone = 0
        self.sent += sent
        self.unsent -= sent
        while sent:
            piece = pieces[gone]
            if len(piece) > sent:
                rest = memoryview(piece)[sent:]
                if self.pieces is not pieces:
                    return 0
                pieces[gone] = rest
                break
            sent -= len(piece)
            gone += 1
        # Together: each removal from the front moves all that comes after.
        del pieces[:gone]
        return 0
