"""How a worker gets its connections: its parent accepts them, and hands them in by a door.

A door is a pair of unix sockets, by which descriptors go one way. It also says when a worker is
to end: when its parent closes the door, or dies, nothing further comes, and all that came before
was taken. So no connection is lost between a worker that ends and the next one.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["Door", "hand_in"]


def hand_in(door: socket.socket, connection: socket.socket) -> bool:
    """Hand a connection to the worker behind a door; False if it takes none now.

    Parameters
    ----------
    door : socket.socket
        The parent's end.
    connection : socket.socket
        It stays open here, and has to be closed.
    """
    try:
        socket.send_fds(door, [b"."], [connection.fileno()])
    except OSError:
        return False
    return True


class Door(socket.socket):
    """The worker's end: to a server, it is a socket that listens.

    Parameters
    ----------
    fd : int
        The descriptor that the worker was given.
    name : Any
        What the listening socket of its parent is called.
    on_closed : callable
        Called when nothing further comes, maybe more than once.
    """

    def __init__(self, fd: int, name: Any, on_closed: Callable[[], object]) -> None:
        super().__init__(fileno=fd)
        self.setblocking(False)
        self._name = name
        self._on_closed = on_closed

    @property
    def family(self) -> int:  # type: ignore[override]
        """That of the connections."""
        return socket.AF_UNIX if isinstance(self._name, str) else socket.AF_INET

    def getsockname(self) -> Any:
        """Give the name of the socket that the parent listens on."""
        return self._name

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection."""
        said, fds, _, _ = socket.recv_fds(self, 1, 1)
        if not said:
            self._on_closed()
            raise BlockingIOError(errno.EAGAIN, "the door is closed")
        if not fds:
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}; a connection is lost")
        connection = socket.socket(fileno=fds[0])
        try:
            return connection, connection.getpeername()
        except OSError as error:
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "it has gone already") from error
