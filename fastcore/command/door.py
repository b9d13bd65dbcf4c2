"""How a worker gets its connections: its parent accepts them, and hands them in by a door.

A door is a pair of unix sockets. One way go descriptors, and when the parent has shut its side, or
has died, nothing further comes and the worker is to end; all that came before was taken. The
other way the worker says that it has taken a connection. Until then the parent keeps it: where a
worker dies with connections in its door, another one gets them, and their peers don't notice.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

__all__ = ["Door", "DoorToWorker"]

_TAKEN: Final = b"."
_LEAVING: Final = b"!"


class DoorToWorker:
    """The parent's end.

    Parameters
    ----------
    sock : socket.socket
        One of a pair.

    Attributes
    ----------
    in_door : deque of socket.socket
        Connections that were handed in, and maybe not taken.
    is_over : bool
        Whether the worker says nothing more.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._is_shut = self.is_over = False
        self.in_door: deque[socket.socket] = deque()

    def fileno(self) -> int:
        """Give its descriptor, for a loop that waits for what the worker says."""
        return self._sock.fileno()

    def hand_in(self, connection: socket.socket) -> bool:
        """Give the worker a connection; False if it takes none now, and the connection stays the caller's."""
        if self._is_shut:
            return False
        try:
            socket.send_fds(self._sock, [_TAKEN], [connection.fileno()])
        except OSError:
            return False
        self.in_door.append(connection)
        return True

    def hear(self) -> bool:
        """Hear what the worker has said; False if it takes no more."""
        takes = True
        with suppress(BlockingIOError):
            while takes:
                try:
                    said = self._sock.recv(4096)
                except ConnectionError:
                    said = b""
                for _ in range(said.count(_TAKEN)):
                    self.in_door.popleft().close()
                self.is_over = not said
                takes = bool(said) and _LEAVING not in said
        return takes

    def shut(self) -> None:
        """Hand in nothing more."""
        if not self._is_shut:
            self._is_shut = True
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hear no more, either: the worker has ended."""
        self._is_shut = True
        self._sock.close()


class Door(socket.socket):
    """The worker's end: to a server, it is a socket that listens.

    Parameters
    ----------
    fd : int
        The descriptor that the worker was given.
    name : Any
        What the listening socket of its parent is called.
    on_shut : callable
        Called when nothing further comes, or is wanted; maybe more than once.
    """

    def __init__(self, fd: int, name: Any, on_shut: Callable[[], object]) -> None:
        super().__init__(fileno=fd)
        self.setblocking(False)
        self._name = name
        self._on_shut = on_shut

    @property
    def family(self) -> int:  # type: ignore[override]
        """That of the connections."""
        return socket.AF_UNIX if isinstance(self._name, str) else socket.AF_INET

    def getsockname(self) -> Any:
        """Give the name of the socket that the parent listens on."""
        return self._name

    def close(self) -> None:
        """Take nothing more: the server was stopped."""
        super().close()
        self._on_shut()

    def ask_to_leave(self) -> None:
        """Have the parent shut it; may be called from a signal's handler."""
        with suppress(OSError):
            self.send(_LEAVING)

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection."""
        said, fds, _, _ = socket.recv_fds(self, 1, 1)
        if not said:
            self._on_shut()
            raise BlockingIOError(errno.EAGAIN, "the door is shut")
        # Whatever becomes of it here, it is nobody else's from now on.
        self.send(_TAKEN)
        if not fds:
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}; a connection is lost")
        connection = socket.socket(fileno=fds[0])
        try:
            return connection, connection.getpeername()
        except OSError as error:
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "it has gone already") from error
