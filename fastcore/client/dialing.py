"""Making a connection that blocks: to whichever of a host's addresses answers first, in the time there is."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
from time import monotonic, sleep
from typing import Any

from tornado.netutil import ssl_wrap_socket

from fastcore.addressing import UNIX_SCHEME, Address, format_address, unix_family
from fastcore.client.blocking import BlockingConnection, is_of_a_signal
from fastcore.limits import Limits
from fastcore.transport.connecting import (
    MAX_RETRY,
    NEXT_ADDRESS,
    RETRY,
    more_hopeful,
    not_connected,
    targets_of,
)
from fastcore.transport.keepalive import set_peer_timeout
from fastcore.transport.tls import certified_name

__all__ = ["dial"]


def dial(
    address: Address,
    timeout: float,
    limits: Limits,
    ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
    compression: str | None = None,
    writable_values: bool = False,
    token: str | None = None,
) -> BlockingConnection:
    """Connect to a server, as :func:`fastcore.connect` does, and wait for that.

    Raises
    ------
    ConnectionLost
        If there was no connection until the timeout.
    PermissionError
        If the server doesn't take the token.
    """
    deadline = monotonic() + timeout
    reason: BaseException | None = None
    pause = RETRY
    while True:
        try:
            sock = _open(address, deadline, ssl_options)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            # The server may be about to listen. The error's frames know who keeps it.
            error.__traceback__ = None
            reason = error
        except (OSError, UnicodeError) as error:
            # The last one: a name that can't be asked for.
            if isinstance(error, OSError) and is_of_a_signal(error, deadline):
                raise
            error.__traceback__ = None
            if isinstance(error, TimeoutError):
                raise not_connected(address, f"not within {timeout:g} s", reason) from error
            raise not_connected(address, f"timeout {timeout:g} s", error) from error
        else:
            if limits.peer_timeout is not None:
                set_peer_timeout(sock, limits.peer_timeout)
            peer = format_address(address)
            connection = BlockingConnection(sock, peer, limits, compression, writable_values)
            if token is not None:
                _show(connection, token, address, timeout, deadline)
            return connection
        left = deadline - monotonic()
        if left <= 0:
            raise not_connected(address, f"not within {timeout:g} s", reason) from reason
        sleep(min(pause, left))
        pause = min(2 * pause, MAX_RETRY)


def _show(
    connection: BlockingConnection, token: str, address: Address, timeout: float, deadline: float
) -> None:
    """Show a token; where the server doesn't take it, nothing is left of the connection."""
    try:
        connection.show(token, deadline)
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError) and not is_of_a_signal(error, deadline):
            raise not_connected(address, f"not within {timeout:g} s", None) from error
        raise


def _open(
    address: Address, deadline: float, ssl_options: dict[str, Any] | ssl.SSLContext | None
) -> socket.socket:
    host, port = address
    if port is None:
        targets: list[tuple[int, Any]] = [(unix_family(host), host.removeprefix(UNIX_SCHEME))]
    else:
        targets = targets_of(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    sock = _first_of(targets, deadline)
    try:
        sock.settimeout(_left(deadline))
        if port is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if ssl_options is not None:
            secure: Any = ssl_wrap_socket(
                sock, ssl_options, server_hostname=certified_name(host), server_side=False
            )
            # An end without the peer's word is to be told from one that it wanted.
            secure.suppress_ragged_eofs = False
            sock = secure
    except BaseException:
        sock.close()
        raise
    return sock


def _first_of(targets: list[tuple[int, Any]], deadline: float) -> socket.socket:
    """Try the host's addresses, each a moment after the one before, and take the first that answers."""
    reason: BaseException | None = None
    attempts: dict[socket.socket, int] = {}
    winner = None
    with selectors.DefaultSelector() as selector:
        try:
            while targets or attempts:
                if targets:
                    family, target = targets.pop(0)
                    try:
                        sock = _begin(family, target)
                    except OSError as error:
                        # This machine may have no IPv6, whatever the host has.
                        reason = more_hopeful(reason, error)
                        continue
                    attempts[sock] = family
                    selector.register(sock, selectors.EVENT_WRITE)
                wait = min(_left(deadline), NEXT_ADDRESS) if targets else _left(deadline)
                for key, _ in selector.select(wait):
                    assert isinstance(key.fileobj, socket.socket)
                    sock = key.fileobj
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not number and not _is_itself(sock, attempts[sock]):
                        winner = sock
                        return sock
                    number = number or errno.ECONNREFUSED
                    reason = more_hopeful(reason, OSError(number, os.strerror(number)))
                    selector.unregister(sock)
                    attempts.pop(sock)
                    sock.close()
            raise reason or OSError(errno.EADDRNOTAVAIL, "the host has no address")
        finally:
            for sock in attempts:
                if sock is not winner:
                    sock.close()


def _begin(family: int, target: Any) -> socket.socket:
    """Make a socket that connects."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    number = sock.connect_ex(target)
    if number not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        sock.close()
        raise OSError(number, os.strerror(number))
    return sock


def _is_itself(sock: socket.socket, family: int) -> bool:
    """Whether TCP has connected a port where nobody listens to itself."""
    return family != getattr(socket, "AF_UNIX", None) and sock.getsockname() == sock.getpeername()


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
