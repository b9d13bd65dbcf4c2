"""A token that a caller shows before its first request, so that the server knows who it is.

It is the first message of a connection, ``{'op': 'authenticate', 'token': ...}``, and the server
answers ``'OK'``. It has no number, so any program that reads and writes messages can say it.
"""

from __future__ import annotations

from typing import Any, Final

from fastcore.logs import shown
from fastcore.remote_errors import is_error_reply, remote_exception

__all__ = ["AUTHENTICATE", "WELCOME", "check_token", "greeting", "is_public", "refusal"]

#: The op of the message that shows a token.
AUTHENTICATE: Final = "authenticate"
#: Bytes of a token; the message that shows it has 64 KiB at most.
MAX_TOKEN_SIZE: Final = 4096
#: Its answer.
WELCOME: Final = "OK"


def check_token(token: object) -> str:
    """Give a token back that can be one.

    Raises
    ------
    TypeError, ValueError
        If it is no text, empty, or longer than the message that shows it may be.
    """
    if not isinstance(token, str):
        # Without its value: errors are logged.
        raise TypeError(f"a token is a str, not a {type(token).__name__}")
    if not token:
        raise ValueError("a token isn't empty; secrets.token_urlsafe() makes one")
    if len(token.encode()) > MAX_TOKEN_SIZE:
        raise ValueError(f"a token has up to {MAX_TOKEN_SIZE:,} bytes, not {len(token.encode()):,}")
    return token


def greeting(token: str) -> dict[str, Any]:
    """Make the message that shows a token."""
    return {"op": AUTHENTICATE, "token": token}


def refusal(answer: object, peer: str) -> BaseException | None:
    """Give the error that a server answered to a greeting; None where it lets the caller in.

    Examples
    --------
    >>> refusal('OK', '127.0.0.1:8786')
    >>> refusal('what?', '127.0.0.1:8786')
    PermissionError("127.0.0.1:8786 answered the token by 'what?'")
    """
    if is_error_reply(answer):
        return remote_exception(answer, peer, AUTHENTICATE)
    return None if answer == WELCOME else PermissionError(f"{peer} answered the token by {shown(answer)}")


def is_public(host: str) -> bool:
    """Tell whether others than this machine's programs may be on the way to an address.

    Parameters
    ----------
    host : str
        A numeric address; where a socket listens, or whom it is connected to.

    Examples
    --------
    >>> is_public('127.0.0.1'), is_public('::1'), is_public('10.0.0.7'), is_public('0.0.0.0')
    (False, False, True, True)
    """
    from ipaddress import ip_address  # which most programs don't need

    address = ip_address(host.partition("%")[0])
    return not (getattr(address, "ipv4_mapped", None) or address).is_loopback
