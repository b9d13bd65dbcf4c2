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

#: How protocols begin: the first that fits, so what is more than a beginning of another goes first.
_BEGINNINGS: Final = {
    rb"CONNECT \{": "NATS",
    rb"(CONNECT|STOMP)\n": "STOMP",
    rb"[A-Z]+ rtsp": "RTSP",
    rb"[A-Z]+ sips?:": "SIP",
    rb"PRI \* ": "HTTP/2",
    rb"[A-Z]{3,12} [/*h]|CONNECT ": "HTTP",
    rb"\x16\x03|\x15\x03": "TLS",
    rb"\x80.\x01[\x00\x03]": "SSL",
    rb"SSH-": "SSH",
    rb"EHLO|HELO|MAIL": "SMTP",
    rb"\*\d+\r|PING|AUTH|INFO\r|HELLO [23]": "Redis",
    rb"(gets? |set |stats\r|version\r)": "memcached",
    rb"AMQP": "AMQP",
    rb"RFB \d": "VNC",
    rb"PROXY |\r\n\r\n\x00\r\nQUIT": "the PROXY protocol",
    rb"\x13BitTorr": "BitTorrent",
    rb"\x03\x00\x00[^\x00]": "RDP",
    rb"\x05[\x01-\x08][\x00-\x03]|\x04[\x01\x02](?!\x00\x00)": "SOCKS",
    rb"\x30.{1,5}\x02\x01.[\x42\x60\x63\x77]": "LDAP",
    rb"\x10.{1,4}\x00[\x04\x06]MQ": "MQTT",
    rb"\x80\x01\x00[\x01-\x04]|\x00.{3}\x80\x01\x00[\x01-\x04]": "Thrift",
    # What follows has its length first.
    rb"\x00.{3}[\xfe\xff]SMB": "SMB",
    rb"\x00\x00.{2}\x00\x12\x00[\x00-\x0f]": "Kafka",
    rb".{4}\x00\x03\x00\x00|.{4}\x04\xd2\x16[\x2e-\x30]": "PostgreSQL",
    rb"\x00.{3}[\x00\x01]\x00\x00\x01\x00\x00": "DNS",
    rb"[\x01-\x7f]\x00{7}": "today's Dask",
    rb"\{\s*\"": "JSON",
}


def other_protocol(first: bytes) -> str | None:
    r"""Tell which protocol a connection begins like, if it is a known one.

    Parameters
    ----------
    first : bytes
        The first bytes of a peer whose first message was none; 16 of them are enough.

    Examples
    --------
    >>> other_protocol(b'POST / H'), other_protocol(b'\x16\x03\x01\x02'), other_protocol(b'\xde\xad\xbe\xef')
    ('HTTP', 'TLS', None)
    """
    return next((name for how, name in _BEGINNINGS.items() if re.match(how, first, re.DOTALL)), None)


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
