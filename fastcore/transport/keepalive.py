"""When a silent peer counts as dead."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["set_peer_timeout"]


def set_peer_timeout(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end a connection whose other end is silent.

    A connection that sends nothing is probed; one that sends is given up when nothing
    is acknowledged. Both take about ``seconds``.

    Parameters
    ----------
    sock : socket.socket
        A TCP socket; others are left as they are.
    seconds : float
        At least 3, where the system counts in seconds.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Half of the time in silence, the rest for three probes.
    idle = max(1, round(seconds / 2))
    interval = max(1, round(seconds / 6))
    options = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPALIVE": idle,  # its name on macOS
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": round(seconds * 1000),
    }
    # A connection that has just ended takes no options.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
