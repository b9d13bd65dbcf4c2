"""Who else knocks at a port: those that aren't let in, and those that speak another protocol."""

from __future__ import annotations

import logging
import ssl

from fastcore._channel import Channel
from fastcore.errors import FrameTooLarge, LimitReached, TooDeep
from fastcore.logs import get_logger
from fastcore.protocols import other_protocol
from fastcore.server.figures import ServerStats
from fastcore.transport.tls import HAS_LEFT, explain

__all__ = ["tell_of_bad_message", "tell_of_refused"]

logger = get_logger("fastcore.server")


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
    elif isinstance(error, ssl.SSLError) and not isinstance(error, HAS_LEFT):
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
