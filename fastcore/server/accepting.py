"""Accepting connections, and the sockets that listen for them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any, Final

from fastcore.addressing import UNIX_SCHEME, parse_address, unix_family

__all__ = ["Acceptor", "SocketFile", "bind_unix"]

#: Seconds to wait before accepting again, after there were no descriptors left.
_PAUSE: Final = 0.1
#: Connections accepted before others have their turn.
_ACCEPTS_PER_TURN: Final = 128
#: The machine lacks something that it may have again soon.
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Accepts connections of one listening socket, and outlives a lack of descriptors.

    Parameters
    ----------
    sock : socket.socket
        It listens, and doesn't block.
    loop : asyncio.AbstractEventLoop
        Where it is watched.
    on_connection : callable
        Called with each new socket and its peer's address.
    on_scarcity : callable
        Called with the error when the machine has no descriptors, or no memory, for
        another connection. Those that knock wait in the kernel until it has.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_connection: Callable[[socket.socket, Any], None],
        on_scarcity: Callable[[OSError], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_connection = on_connection
        self._on_scarcity = on_scarcity
        self._scarce = False
        self._pause: asyncio.TimerHandle | None = None
        # By its number: not every loop takes a socket object.
        self._fd = sock.fileno()
        self._made_by = os.getpid()
        loop.add_reader(self._fd, self._accept)

    def __call__(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        # What the loop watches is the parent's too, after a fork; and where somebody has closed the
        # socket, the number may be somebody else's.
        is_own = self._made_by == os.getpid() and self._sock.fileno() == self._fd
        if is_own and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept in another loop from now on."""
        if loop is not self._loop:
            self()
            self._loop, self._made_by = loop, os.getpid()
            loop.add_reader(self._fd, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._sock.fileno() < 0:
                return
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                # All that knocked are in.
                self._scarce = False
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if self._sock.fileno() < 0:
                    # Somebody who came in between has closed it.
                    return
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                self._wait(error)
                return
            self._on_connection(connection, address)

    def _wait(self, error: OSError) -> None:
        self._loop.remove_reader(self._fd)
        self._pause = self._loop.call_later(_PAUSE, self._go_on)
        if not self._scarce:
            self._scarce = True
            self._on_scarcity(error)

    def _go_on(self) -> None:
        self._pause = None
        if self._sock.fileno() == self._fd:
            self._loop.add_reader(self._fd, self._accept)


class SocketFile:
    """The file of a unix socket, as long as it is the one that was made here.

    Parameters
    ----------
    path : str
        Where it is; from now on it doesn't matter which folder is the current one.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._made_by = os.getpid()
        self._mark = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove it, if nobody has put another one there; before its socket is closed."""
        if self._mark is not None and self._mark == self._look() and self._made_by == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def bind_unix(address: str, backlog: int = 128) -> tuple[socket.socket, SocketFile]:
    """Listen on a unix socket that only its owner can reach.

    Parameters
    ----------
    address : str
        ``'unix:/path'``. A socket that a dead server left there is taken over.
    backlog : int
        How many connections may wait to be accepted.

    Returns
    -------
    socket.socket, SocketFile

    Raises
    ------
    OSError
        If somebody listens there, or there is something else than a socket.
    """
    family = unix_family(address)
    parse_address(address)
    path = address.removeprefix(UNIX_SCHEME)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _is_alive(path):
            os.unlink(path)
    sock = socket.socket(family)
    try:
        sock.setblocking(False)
        # Nobody gets in between bind and chmod: until it listens it refuses.
        sock.bind(path)
        file = SocketFile(path)
        os.chmod(path, 0o600)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        # A path that is too long has no number.
        why = str(error) if error.errno is None else os.strerror(error.errno)
        raise OSError(error.errno or errno.EINVAL, f"{why}: {address}") from error
    return sock, file


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            pass
    return True
