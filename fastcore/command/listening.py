"""The sockets that a command listens on: of its own, or of the service manager's."""

from __future__ import annotations

import argparse
import socket
from typing import Any

from tornado.netutil import bind_sockets

from fastcore.addressing import UNIX_SCHEME, format_address
from fastcore.command.systemd import inherited_sockets
from fastcore.command.usage import CommandError, WrongUsage
from fastcore.server.accepting import SocketFile, bind_unix

__all__ = ["Listening"]

_LOOPBACK = "127.0.0.1"


class Listening:
    """Sockets that listen for one server.

    Parameters
    ----------
    arguments : argparse.Namespace
        ``host`` and ``port``, each None where nobody said it.
    default_port : int
        The port where nobody says one; 0 picks a free one.

    Attributes
    ----------
    sockets : list of socket.socket
        At least one.
    address : str
        Where the first of them is.

    Raises
    ------
    CommandError
        If it can't be listened there.
    """

    def __init__(self, arguments: argparse.Namespace, default_port: int = 0) -> None:
        self._file: SocketFile | None = None
        self.sockets = inherited_sockets()
        if self.sockets:
            if arguments.host is not None or arguments.port is not None:
                raise WrongUsage("the service manager says where to listen; leave --host and --port out")
        else:
            self.sockets = self._bind(arguments.host or _LOOPBACK, arguments.port, default_port)
        self.address = _name(self.sockets[0].getsockname())

    def _bind(self, host: str, port: int | None, default_port: int) -> list[socket.socket]:
        try:
            if host.startswith(UNIX_SCHEME):
                sock, self._file = bind_unix(host)
                return [sock]
            return bind_sockets(default_port if port is None else port, host)
        except (OSError, OverflowError) as error:
            where = host if port is None else f"{host}, port {port}"
            raise CommandError(f"can't listen on {where}: {error}") from error

    def leave_path(self) -> None:
        """Take a unix socket's path away, so that no further client finds it.

        Before it is closed: as soon as it is, somebody else may have a socket there.
        """
        if self._file is not None:
            self._file.remove()

    def close(self) -> None:
        """Listen no more."""
        self.leave_path()
        for sock in self.sockets:
            sock.close()


def _name(name: Any) -> str:
    return format_address((name[0], name[1])) if isinstance(name, tuple) else f"{UNIX_SCHEME}{name}"
