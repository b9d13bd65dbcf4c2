"""What is on its way out: the pieces of messages that the socket hasn't taken yet."""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE

from fastcore._encode cimport size_of

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
            self.pieces.append(frame)
            self.unsent += PyBytes_GET_SIZE(frame)
        else:
            self.pieces += <list> frame
            self.unsent += size_of(frame)
        return 0

    cdef bint put_rest(self, object frame, Py_ssize_t sent) except -1:
        """Count a frame of which so many bytes were sent, and append the rest; True if there is none.

        Only while nothing else waits.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame) if type(frame) is bytes else size_of(frame)
        if sent == size:
            self.sent += sent
            return True
        self.put(frame)
        self.advance(sent)
        return False

    cpdef int clear(self) except -1:
        """Give up what hasn't been sent."""
        self.pieces.clear()
        self.unsent = 0
        return 0

    cpdef int flush(self, object send, object sendmsg) except -1:
        """Send until all is sent or the socket takes no more.

        Parameters
        ----------
        send, sendmsg : callable
            The socket's, non-blocking. ``sendmsg`` is None where there is something
            between these bytes and the socket, such as TLS.

        Raises
        ------
        OSError
            As the socket raises it, but for BlockingIOError.
        """
        cdef Py_ssize_t sent
        try:
            while self.pieces:
                if PyList_GET_SIZE(self.pieces) > 1:
                    self.glue()
                if PyList_GET_SIZE(self.pieces) > 1 and sendmsg is not None:
                    sent = sendmsg(self.pieces[:MAX_PIECES])
                else:
                    sent = send(self.pieces[0])
                if not sent:
                    return 0
                self.advance(sent)
        except BlockingIOError:
            pass
        return 0

    cdef int glue(self) except -1:
        """Make one piece of the small ones at the front."""
        cdef list pieces = self.pieces
        cdef Py_ssize_t small = 0
        if self.unsent <= GLUE:
            small = PyList_GET_SIZE(pieces)
        elif PyList_GET_SIZE(pieces) > 3:
            # More than one message. The pieces of a single large one stay as they are.
            while small < PyList_GET_SIZE(pieces) and len(pieces[small]) < GLUE:
                small += 1
        if small > 1:
            pieces[:small] = [b"".join(pieces[:small])]
        return 0

    cdef int advance(self, Py_ssize_t sent) except -1:
        cdef list pieces = self.pieces
        cdef Py_ssize_t gone = 0
        self.sent += sent
        self.unsent -= sent
        while sent:
            piece = pieces[gone]
            if len(piece) > sent:
                pieces[gone] = memoryview(piece)[sent:]
                break
            sent -= len(piece)
            gone += 1
        # Together: each removal from the front moves all that comes after.
        del pieces[:gone]
        return 0
