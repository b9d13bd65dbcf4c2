"""Who else knocks at a port: those that aren't let in, and other protocols, known by their first bytes."""

from __future__ import annotations

import logging
import ssl
from typing import Final

from fastcore.errors import LimitReached
from fastcore.logs import get_logger
from fastcore.server.figures import ServerStats
from fastcore.transport.tls import explain

__all__ = ["other_protocol", "tell_of_refused"]

logger = get_logger("fastcore.server")

_BEGINNINGS: Final = {
    b"GET ": "HTTP",
    b"HEAD": "HTTP",
    b"POST": "HTTP",
    b"PUT ": "HTTP",
    b"DELE": "HTTP",
    b"OPTI": "HTTP",
    b"PATC": "HTTP",
    b"CONN": "HTTP",
    b"TRAC": "HTTP",
    b"PRI ": "HTTP/2",
    b"\x16\x03": "TLS",
    b"\x15\x03": "TLS",
    b"SSH-": "SSH",
    b"EHLO": "SMTP",
    b"HELO": "SMTP",
    b"MAIL": "SMTP",
    b"*1\r\n": "Redis",
    b"*2\r\n": "Redis",
    b"*3\r\n": "Redis",
    b"PING": "Redis",
    b"AUTH": "Redis",
    b"\x03\x00\x00": "RDP",
    b"\x05\x01": "SOCKS",
    b"\x05\x02": "SOCKS",
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f": "PostgreSQL",
    b"\xffSMB": "SMB",
    b"\x80\x80\x01\x03": "SSL",
}


def other_protocol(first: bytes) -> str | None:
    r"""Tell which protocol a connection begins like, if it is a known one.

    Parameters
    ----------
    first : bytes
        The first bytes of a peer whose first message was none; 8 of them are enough.

    Examples
    --------
    >>> other_protocol(b'POST / H'), other_protocol(b'\x16\x03\x01\x02'), other_protocol(b'\xde\xad\xbe\xef')
    ('HTTP', 'TLS', None)
    """
    for beginning, name in _BEGINNINGS.items():
        if first.startswith(beginning):
            return name
    return None


def tell_of_refused(figures: ServerStats, error: BaseException, peer: str, first: bytes = b"") -> None:
    """Count who isn't let in, or is turned out, and log it: once for each kind and host.

    Parameters
    ----------
    figures : ServerStats
        The server's.
    error : BaseException
        Why: a limit, what went wrong with TLS, a first message that is none.
    peer : str
        Who it is.
    first : bytes
        What it said first, as far as that is known.
    """
    level = logging.WARNING
    protocol = other_protocol(first)
    if isinstance(error, LimitReached):
        kind, why = error.keyword, str(error)
    elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        kind, why = "tls", explain(error, server_side=True) or f"no TLS: {error.reason or error}"
        if protocol not in (None, "TLS"):
            why = f"{why}, but {protocol}"
    elif isinstance(error, OSError):
        kind, why = "tls", "it left before the TLS handshake was done"
        level = logging.INFO
    else:
        kind, why = type(error).__name__, str(error)
        if protocol is not None:
            why = f"it speaks {protocol}, this port doesn't"
    figures.errors[kind] += 1
    host = peer.rpartition(":")[0] or peer
    logger.log(
        level, "refused %s: %s", peer, why, extra={"about": (figures.started, why, host), "once": True}
    )
