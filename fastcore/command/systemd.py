"""What a service manager hands over and wants to hear: sockets that listen, and that it is ready."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from fastcore.command.usage import CommandError

__all__ = ["inherited_sockets", "notify"]

#: The first descriptor that systemd passes.
_FIRST = 3


def inherited_sockets() -> list[socket.socket]:
    """Give the sockets that the service manager listens on for this process; none without one.

    As ``sd_listen_fds`` has it: ``LISTEN_PID`` says whose they are, ``LISTEN_FDS`` how many.

    Raises
    ------
    CommandError
        If one of them doesn't listen for streams.
    """
    mine = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not (mine and count.isdecimal()):
        return []
    sockets = [socket.socket(fileno=fd) for fd in range(_FIRST, _FIRST + int(count))]
    for sock in sockets:
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise CommandError(f"descriptor {sock.fileno()} isn't a socket that listens; is it Accept=no?")
        sock.setblocking(False)
        sock.set_inheritable(False)
    return sockets


def notify(state: str) -> None:
    """Tell the service manager, if there is one, how the service is: ``'READY=1'``, ``'STOPPING=1'``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        # A name that begins with @ is of Linux' abstract ones. Who doesn't listen needn't hear it.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(state.encode())
