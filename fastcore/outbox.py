"""What is on its way out: the pieces of messages that the socket hasn't taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from fastcore.protocol import Piece

__all__ = ["Outbox"]

#: Below this size, gluing pieces together costs less than handing them over one by one.
_GLUE = 16 * 1024
#: The most pieces that one system call takes.
_MAX_PIECES = 512


class Outbox:
    """A queue of pieces, sent in order and in as few system calls as it takes.

    Small pieces are glued together; large ones are sent from where they lie.

    Attributes
    ----------
    pieces : deque of bytes and memoryview
        What waits.
    unsent : int
        Bytes that wait.
    sent : int
        Bytes that have been sent, ever.
    """

    __slots__ = ("pieces", "sent", "unsent")

    def __init__(self) -> None:
        self.pieces: deque[Piece] = deque()
        self.unsent = 0
        self.sent = 0

    def put(self, pieces: list[Piece]) -> None:
        """Append pieces."""
        self.pieces += pieces
        self.unsent += sum(map(len, pieces))

    def clear(self) -> None:
        """Give up what hasn't been sent."""
        self.pieces.clear()
        self.unsent = 0

    def flush(self, send: Callable[[Any], int], sendmsg: Callable[[list[Piece]], int] | None) -> None:
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
        pieces = self.pieces
        try:
            while pieces:
                if len(pieces) > 1:
                    self._glue()
                if len(pieces) > 1 and sendmsg is not None:
                    sent = sendmsg(list(islice(pieces, _MAX_PIECES)))
                else:
                    sent = send(pieces[0])
                if not sent:
                    return
                self._advance(sent)
        except BlockingIOError:
            pass

    def _glue(self) -> None:
        """Make one piece of the small ones at the front."""
        pieces = self.pieces
        if self.unsent <= _GLUE:
            glued = b"".join(pieces)
            pieces.clear()
            pieces.append(glued)
        elif len(pieces) > 3:
            # More than one message. The pieces of a single large one stay as they are.
            small: list[Piece] = []
            while pieces and len(pieces[0]) < _GLUE:
                small.append(pieces.popleft())
            if small:
                pieces.appendleft(b"".join(small))

    def _advance(self, sent: int) -> None:
        self.sent += sent
        self.unsent -= sent
        pieces = self.pieces
        while sent:
            piece = pieces.popleft()
            if len(piece) > sent:
                pieces.appendleft(memoryview(piece)[sent:])
                return
            sent -= len(piece)
