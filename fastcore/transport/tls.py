"""What went wrong with TLS, in words that say what to do."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Final

from fastcore._wire import encode
from fastcore.logs import shown
from fastcore.remote_errors import error_reply

__all__ = ["answer_plainly", "check_ssl_options", "explain"]

_NO_TLS: Final = "the peer doesn't speak TLS here"
_NO_CERTIFICATE: Final = (
    "the server asks for a client certificate; load one into the context that is given as ssl_options="
)
_NOT_TRUSTED: Final = "the peer doesn't trust this {side}'s certificate"

_TLS_ONLY: Final = ConnectionRefusedError("this port speaks TLS; pass ssl_options=")

#: What Tornado makes a context of.
_OF_A_CONTEXT: Final = frozenset(("ssl_version", "certfile", "keyfile", "cert_reqs", "ca_certs", "ciphers"))

# By OpenSSL's name of the reason.
_EXPLANATIONS: Final = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "UNKNOWN_PROTOCOL": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "HTTPS_PROXY_REQUEST": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "BAD_RECORD_TYPE": _NO_TLS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer showed no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NO_CERTIFICATE,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": _NOT_TRUSTED,
    "TLSV1_ALERT_DECRYPT_ERROR": _NOT_TRUSTED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _NOT_TRUSTED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NOT_TRUSTED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says that this {side}'s certificate has expired",
}


def check_ssl_options(options: object) -> None:
    """Raise the error for what makes no context.

    Examples
    --------
    >>> check_ssl_options({'cert': 'server.pem'})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: ssl_options has no 'cert': there are ca_certs, cert_reqs, certfile, ciphers, keyfile...
    """
    if isinstance(options, dict):
        for name in options.keys() - _OF_A_CONTEXT:
            known = ", ".join(sorted(_OF_A_CONTEXT))
            raise ValueError(f"ssl_options has no {shown(name)}: there are {known}")
    elif options is not None and not isinstance(options, ssl.SSLContext):
        kinds = "an ssl.SSLContext, or a dict of what makes one"
        raise TypeError(f"ssl_options is {kinds}, not {shown(options)}")


def explain(error: BaseException | None, *, server_side: bool = False) -> str | None:
    """Say what a TLS error means.

    Parameters
    ----------
    error : BaseException, optional
        Why a connection has ended.
    server_side : bool
        Whether it was accepted here.

    Returns
    -------
    str or None
        None for errors that aren't TLS's, and those that say it themselves.
    """
    if not isinstance(error, ssl.SSLError):
        return None
    text = _EXPLANATIONS.get(error.reason)
    return text and text.format(side="server" if server_side else "client")


def answer_plainly(sock: ssl.SSLSocket, error: BaseException | None) -> None:
    """Tell a client that speaks no TLS, in the words that it knows, that this port does.

    Parameters
    ----------
    sock : ssl.SSLSocket
        A connection whose handshake has failed, about to be closed.
    error : BaseException, optional
        Why it failed.
    """
    if sock.server_side and explain(error) == _NO_TLS:
        frame = encode(error_reply(_TLS_ONLY, "message"))
        assert isinstance(frame, bytes)
        with suppress(OSError):
            socket.socket.send(sock, frame)
