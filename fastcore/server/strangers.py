"""Who else knocks at a port: those that aren't let in, and other protocols, known by their first bytes."""

from __future__ import annotations

import logging
import re
import ssl
from typing import Final

from fastcore._channel import Channel
from fastcore.errors import FrameTooLarge, LimitReached, TooDeep
from fastcore.logs import get_logger
from fastcore.server.figures import ServerStats
from fastcore.transport.tls import explain

__all__ = ["other_protocol", "tell_of_bad_message", "tell_of_refused"]

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
    b"PING": "Redis",
    b"AUTH": "Redis",
    b"\x03\x00\x00": "RDP",
    b"\x05\x01": "SOCKS",
    b"\x05\x02": "SOCKS",
    b"AMQP": "AMQP",
    b"\x80\x80\x01\x03": "SSL",
}

_PATTERNS: Final = {
    rb"\*\d+\r": "Redis",
    # After its length.
    rb".{4}\x00\x03\x00\x00": "PostgreSQL",
    rb".{4}\x04\xd2\x16[\x2e-\x30]": "PostgreSQL",
    rb"\x00.{3}[\xfe\xff]SMB": "SMB",
    rb"\x10.{1,2}\x00\x04MQ": "MQTT",
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
    for pattern, name in _PATTERNS.items():
        if re.match(pattern, first, re.DOTALL):
            return name
    return None


def _begins_like_ours(first: bytes) -> bool:
    """Whether there is a header's length, and a map after it; or no header."""
    return len(first) > 4 and first[2:4] == b"\0\0" and (first[:2] == b"\0\0" or 0x80 < first[4] < 0x90)


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
    if isinstance(error, ssl.SSLEOFError) and not first:
        # It only looked whether there is somebody, as load balancers do.
        logger.debug("%s came and went", peer)
        return
    level, what = logging.WARNING, "refused %s: %s"
    protocol = other_protocol(first)
    if isinstance(error, LimitReached):
        kind, why = error.keyword, str(error)
        if kind not in ("max_connections", "handshake_timeout"):
            what = "closed the connection to %s: %s"
    elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        kind, why = "tls", explain(error, server_side=True) or f"no TLS: {error.reason or error}"
        if protocol not in (None, "TLS"):
            why = f"{why}, but {protocol}"
    elif isinstance(error, OSError):
        kind, why = "tls", "it left before the TLS handshake was done"
        level = logging.INFO
    else:
        kind = type(error).__name__
        why = f"it speaks {protocol}, this port doesn't"
        if protocol is None and isinstance(error, FrameTooLarge) and _begins_like_ours(first):
            why = str(error)
        elif protocol is None:
            why = f"it speaks another protocol, as its first message is none: {first!r}"
    figures.errors[kind] += 1
    host = peer.rpartition(":")[0] or peer
    about = (figures.started, kind, protocol, type(error), host)
    logger.log(level, what, peer, why, extra={"about": about, "once": True})


def tell_of_bad_message(figures: ServerStats, channel: Channel, error: Exception) -> None:
    """Count a message that is refused, and name its sender in the log.

    Parameters
    ----------
    figures : ServerStats
        The server's.
    channel : Channel
        Whose message it is.
    error : Exception
        What is wrong with it.
    """
    peer = channel.peer
    if channel.is_hopeless or isinstance(error, LimitReached):
        tell_of_refused(figures, error, peer, channel.first_bytes)
        return
    figures.errors[type(error).__name__] += 1
    level = logging.WARNING if isinstance(error, FrameTooLarge | TooDeep) else logging.INFO
    about = (type(error), peer.rpartition(":")[0])
    logger.log(level, "refused a message from %s: %s", peer, error, extra={"about": about})
