"""Other protocols, known by their first bytes, for who is told that there is one at the other end."""

from __future__ import annotations

import re
from typing import Final

from fastcore.engine_errors import BadMessage

__all__ = ["other_protocol", "spoken_by"]

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
    rb"\xff\x00{7}": "ZeroMQ",
    # What servers say: to greet, or of what they haven't understood.
    rb"HTTP/": "HTTP",
    rb"\x00\x00.\x04\x00\x00\x00\x00": "HTTP/2",
    rb"-(ERR|NOAUTH|DENIED)": "Redis",
    rb"220[ -]": "SMTP or FTP",
    rb"\* (OK|PREAUTH)": "IMAP",
    rb"\+OK ": "POP3",
    rb"INFO \{": "NATS",
    rb"ERROR\r": "memcached",
    rb"E\x00\x00\x00": "PostgreSQL",
    rb"[^\x00].\x00\x00\x0a\d": "MySQL",
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


def spoken_by(peer: str, first: bytes, error: Exception) -> Exception:
    """Make the error for a server whose first message is none; the one that there is, where nothing is known.

    Parameters
    ----------
    peer : str
        The server.
    first : bytes
        What it said first.
    error : Exception
        What is wrong with that.
    """
    protocol = other_protocol(first)
    if protocol is None:
        error.add_note(f"in the first message of {peer}")
        return error
    what = "pass ssl_options=" if protocol == "TLS" else "is it the right port?"
    told = BadMessage(f"{peer} speaks {protocol}, and this client doesn't: {what}")
    told.__cause__ = error
    return told
