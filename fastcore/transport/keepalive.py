"""When a silent peer counts as dead.

The kernel probes a connection on which nothing is sent, and gives up one whose bytes nobody
acknowledges. For the second it counts too how long a peer takes no more because it doesn't read,
although such a peer is alive and says so. So before bytes may have to wait for that, the kernel's
own limit is taken off, and the connection is looked at now and then (see ``_watchdog``). How long a
peer may leave what is sent to it unread is ``write_timeout``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final, NamedTuple

__all__ = ["Acknowledgements", "set_peer_timeout"]

#: The kernel's ``struct tcp_info``, as far as it is asked for here.
_TCP_INFO: Final = struct.Struct("=3xB20xI92xQ12xII52xQQ12xI")
_UNLIMITED: Final = 2**62


def set_peer_timeout(sock: socket.socket, seconds: float) -> Acknowledgements | None:
    """Have the kernel end a connection whose other end is silent.

    A connection that sends nothing is probed; one that sends is given up when nothing
    is acknowledged. Both take about ``seconds``.

    Parameters
    ----------
    sock : socket.socket
        A TCP socket; others are left as they are.
    seconds : float
        At least 3, where the system counts in seconds.

    Returns
    -------
    Acknowledgements or None
        What is to be looked at beside that; None where the kernel has no such limit.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
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
    return Acknowledgements(sock, seconds) if hasattr(socket, "TCP_USER_TIMEOUT") else None


class _Info(NamedTuple):
    """What the kernel knows of a connection."""

    probes: int
    packets: int
    acknowledged: int
    heard: int
    unsent: int
    sent: int
    repeated: int
    window: int


class Acknowledgements:
    """What a peer's machine says of the bytes that were sent to it.

    Parameters
    ----------
    sock : socket.socket
        A TCP socket.
    seconds : float
        The kernel's own limit, after `set_peer_timeout`.
    """

    __slots__ = ("_limit", "_sock")

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._limit = round(seconds * 1000)

    def _info(self) -> _Info | None:
        try:
            data = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            return _Info(*_TCP_INFO.unpack(data))
        except (OSError, struct.error):
            return None

    def room(self) -> int:
        """Tell how many bytes more the peer takes, whether or not somebody reads them there."""
        info = self._info()
        if info is None:
            return _UNLIMITED
        return info.window - info.unsent - (info.sent - info.repeated - info.acknowledged)

    def arrived(self) -> int | None:
        """Tell how many bytes have arrived at the peer's machine; None when none is on its way there."""
        info = self._info()
        return info.acknowledged if info is not None and (info.packets or info.unsent) else None

    def watch(self) -> None:
        """Take the kernel's limit off, as somebody looks from now on."""
        self._set_limit(0)

    def figure(self) -> object:
        """Give what moves while the peer's machine is alive; None when all is acknowledged.

        Then the kernel's own limit holds again.
        """
        info = self._info()
        if info is None or not (info.packets or info.unsent):
            self._set_limit(self._limit)
            return None
        # Where nothing is on its way but what the peer has no room for, its answer to the last probe counts
        # until the next one, which can take its time.
        return info.heard if info.packets or info.probes else object()

    def _set_limit(self, milliseconds: int) -> None:
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
