"""Where a peer is: ``host:port`` in all the forms that callers use.

An address is a pair ``(host, port)``. A unix socket is ``('unix:/path', None)``.
"""

from __future__ import annotations

import errno
import operator
import socket
from typing import TypeAlias

__all__ = ["Address", "AddressLike", "format_address", "parse_address", "port_number", "unix_family"]

Address: TypeAlias = tuple[str, "int | None"]
AddressLike: TypeAlias = "str | bytes | tuple[str | bytes, int | str | None] | list[str | bytes | int | None]"

UNIX_SCHEME = "unix:"


def parse_address(
    arg: AddressLike | None = None,
    *,
    addr: AddressLike | None = None,
    ip: str | bytes | None = None,
    port: int | str | bytes | None = None,
) -> Address:
    """Read an address, whichever way it was given.

    Parameters
    ----------
    arg, addr : str, bytes, tuple or list, optional
        ``'host:port'``, ``b'host:port'``, ``('host', port)`` or ``'unix:/path'``.
        An IPv6 host stands in brackets: ``'[::1]:8786'``.
    ip : str or bytes, optional
        The host, where it comes apart from the port.
    port : int, str or bytes, optional
        The port.

    Returns
    -------
    tuple of (str, int or None)
        Host and port; the port is None for a unix socket.

    Raises
    ------
    ValueError
        If there is no address in what was given, or more than one.
    TypeError
        If it is of a type that can't be an address.

    Examples
    --------
    >>> parse_address('127.0.0.1:8786')
    ('127.0.0.1', 8786)
    >>> parse_address(b'[::1]:8786')
    ('::1', 8786)
    >>> parse_address(ip=b'localhost', port='8786')
    ('localhost', 8786)
    >>> parse_address('unix:/run/scheduler.sock')
    ('unix:/run/scheduler.sock', None)
    """
    given: object = arg if arg is not None else addr
    if given is None:
        given = (ip, port)
    elif ip is not None or port is not None:
        raise ValueError(f"an address was given twice: {given!r} and ip={ip!r}, port={port!r}")
    if isinstance(given, str | bytes):
        return _split(_text(given))
    if not isinstance(given, tuple | list):
        raise TypeError(f"an address is 'host:port' or (host, port), not {given!r}")
    if len(given) < 2:
        raise ValueError(f"no port in the address {given!r}")
    host = _text(given[0])
    if host.startswith(UNIX_SCHEME):
        return _with_path(host), None
    return _check(host.strip("[]"), given[1], given)


def format_address(address: Address) -> str:
    """Write an address the way :func:`parse_address` reads it.

    Examples
    --------
    >>> format_address(('127.0.0.1', 8786))
    '127.0.0.1:8786'
    >>> format_address(('::1', 8786))
    '[::1]:8786'
    """
    host, port = address
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_number(port: object) -> int | None:
    """Give the number that a port is given by; None where that isn't one, such as 1.5.

    Examples
    --------
    >>> port_number('8786'), port_number(8786), port_number(1.5)
    (8786, 8786, None)
    """
    try:
        return int(port) if isinstance(port, str | bytes) else operator.index(port)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def unix_family(address: str) -> int:
    """Give the family of unix sockets.

    Raises
    ------
    OSError
        If this system's Python has none, as on Windows.
    """
    family: int | None = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, f"this system's Python has no unix sockets: {address}")
    return family


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise ValueError(f"no host in the address: {value!r}; give 'host:port' or ip= and port=")


def _with_path(address: str) -> str:
    if address == UNIX_SCHEME:
        raise ValueError(f"no path in the address {address!r}; write 'unix:/path'")
    return address


def _split(text: str) -> Address:
    if text.startswith(UNIX_SCHEME):
        return _with_path(text), None
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise ValueError(f"no port in the address {text!r}; write 'host:port', IPv6 as '[::1]:port'")
    return _check(host.strip("[]"), port, text)


def _check(host: str, port: object, given: object) -> Address:
    if not host or "\0" in host:
        # The system would take what stands before the NUL.
        raise ValueError(f"no host in the address {given!r}")
    number = port_number(port)
    if number is None:
        hint = "; give both, or 'host:port' where one alone is taken" if port is None else ""
        raise ValueError(f"no port in the address {given!r}: {port!r} isn't a number{hint}")
    if not 0 < number < 65536:
        raise ValueError(f"no such port in the address {given!r}: {number}")
    return host, number
