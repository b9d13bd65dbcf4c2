"""Where a peer is: ``host:port`` in all the forms that callers use.

An address is a pair ``(host, port)``. A unix socket is ``('unix:/path', None)``.
"""

from __future__ import annotations

import errno
import operator
import socket
from typing import TypeAlias

from fastcore.logs import shown

__all__ = [
    "Address",
    "AddressLike",
    "format_address",
    "listening_port",
    "parse_address",
    "port_number",
    "unix_family",
]

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
    if isinstance(port, str | bytes):
        # Python would take '8_786' and '+8786' for one, and other scripts' digits.
        text = port.strip()
        return int(text) if text.isascii() and text.isdigit() else None
    try:
        return None if isinstance(port, bool) else operator.index(port)  # type: ignore[arg-type]
    except TypeError:
        return None


def listening_port(given: object) -> int:
    """Give the number of a port to listen on, or raise the error for what is none.

    Examples
    --------
    >>> listening_port(80_000)
    Traceback (most recent call last):
        ...
    ValueError: no such port: 80000; there are 0, which picks a free one, to 65535; and there is 'unix:/path'
    """
    number = port_number(given)
    if number is None or not 0 <= number < 65536:
        raise ValueError(
            f"no such port: {shown(given)}; there are 0, which picks a free one, to 65535; and there is "
            "'unix:/path'"
        )
    return number


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
    path = address.removeprefix(UNIX_SCHEME)
    # The system would take what stands before the NUL; one that begins with it is Linux's own kind.
    if not path or "\0" in path[1:]:
        raise ValueError(f"no path in the address {address!r}; write 'unix:/path'")
    return address


def _split(text: str) -> Address:
    if text.startswith(UNIX_SCHEME):
        return _with_path(text), None
    host, colon, port = text.rpartition(":")
    if "://" in text:
        raise ValueError(f"an address has no scheme, unlike {text!r}; write 'host:port', or 'unix:/path'")
    if not colon or text.endswith("]") or (":" in host and not (host[0] == "[" and host[-1] == "]")):
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
