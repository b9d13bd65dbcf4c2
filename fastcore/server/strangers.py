"""Who else knocks at a port: other protocols, known by their first bytes, and messages that are none."""

from __future__ import annotations

from typing import Final

from fastcore._channel import Channel
from fastcore.errors import FrameTooLarge, LimitReached, TooDeep
from fastcore.logs import get_logger
from fastcore.server.figures import ServerStats

__all__ = ["other_protocol", "tell_of_refusal"]

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


def tell_of_refusal(figures: ServerStats, channel: Channel, error: Exception) -> None:
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
    figures.errors[error.keyword if isinstance(error, LimitReached) else type(error).__name__] += 1
    if channel.is_hopeless and (protocol := other_protocol(channel.first_bytes)):
        logger.warning("%s speaks %s, this port doesn't", channel.peer, protocol)
    elif isinstance(error, FrameTooLarge | TooDeep | LimitReached):
        logger.warning("refused a message from %s: %s", channel.peer, error)
    else:
        logger.info("refused a message from %s: %s", channel.peer, error)
