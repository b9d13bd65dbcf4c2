"""Who else knocks at a port: other protocols, known by their first bytes."""

from __future__ import annotations

from typing import Final

__all__ = ["other_protocol"]

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
