"""What went wrong with TLS: with which connection, and in words that say what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from fastcore._wire import encode
from fastcore.logs import shown
from fastcore.remote_errors import error_reply

__all__ = [
    "CUT_OFF",
    "HAS_LEFT",
    "answer_plainly",
    "certified_name",
    "check_ssl_options",
    "explain",
    "forget_errors",
    "is_refusal",
    "with_own_errors",
]

T = TypeVar("T")

#: Why a connection has ended whose peer didn't say that it would.
CUT_OFF: Final = (
    "cut off: TLS wasn't ended by the peer's own word (close_notify), so something may be missing"
)

_NO_TLS: Final = "the peer doesn't speak TLS here"
_NO_CERTIFICATE: Final = (
    "the server asks for a client certificate; load one into the context that is given as ssl_options= "
    "(or pass --certfile to the command)"
)
_NOT_TRUSTED: Final = "the peer doesn't trust this {side}'s certificate"
_OTHER_VERSION: Final = "there is no version of TLS that both ends take"
_LEFT: Final = "the peer left during the TLS handshake"
#: How it shows that a peer has left: without a word, or with TLS's own.
HAS_LEFT: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError)

_TLS_ONLY: Final = ConnectionRefusedError("this port speaks TLS; pass ssl_options= (or --tls to the command)")

#: What Tornado makes a context of.
_CONTEXT_OPTIONS: Final = frozenset(
    ("ssl_version", "certfile", "keyfile", "cert_reqs", "ca_certs", "ciphers")
)

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
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the peer says that this {side}'s certificate has been revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says that this {side}'s certificate has expired",
    "TLSV1_ALERT_PROTOCOL_VERSION": _OTHER_VERSION,
    "UNSUPPORTED_PROTOCOL": _OTHER_VERSION,
    "NO_PROTOCOLS_AVAILABLE": _OTHER_VERSION,
    "NO_SHARED_CIPHER": "there is no cipher that both ends take",
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
        for name in options.keys() - _CONTEXT_OPTIONS:
            known = ", ".join(sorted(_CONTEXT_OPTIONS))
            raise ValueError(f"ssl_options has no {shown(name)}: there are {known}")
    elif options is not None and not isinstance(options, ssl.SSLContext):
        kinds = "an ssl.SSLContext, or a dict of what makes one"
        raise TypeError(f"ssl_options is {kinds}, not {shown(options)}")


def certified_name(host: str) -> str:
    """Give what a host's certificate calls it, without the interface of a link-local address.

    Examples
    --------
    >>> certified_name('fe80::1%eth0')
    'fe80::1'
    """
    return host.partition("%")[0]


def with_own_errors(sock: ssl.SSLSocket, function: Callable[..., T], *args: Any) -> T:
    """Call what uses OpenSSL for a connection, and raise no error of another one.

    OpenSSL keeps errors for each thread. Python leaves there what the system said of one connection (a
    reset, a broken pipe), and takes it for the answer to the next one that has just nothing to receive.

    Parameters
    ----------
    sock : ssl.SSLSocket
        The connection.
    function : callable
        What does something with it that doesn't block. It is called once more if it was told such an error.
    *args
        What it is called with.

    Raises
    ------
    OSError
        What it raises, if that is this connection's own.
    """
    try:
        return function(*args)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise
    except OSError as error:
        forget_errors(sock)
        if isinstance(error, ssl.SSLError) and error.errno != ssl.SSL_ERROR_SYSCALL:
            raise
        try:
            return function(*args)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            # The first one says more: of a connection that was reset, the second is a broken pipe.
            raise error from None
        finally:
            forget_errors(sock)


def forget_errors(sock: socket.socket) -> None:
    """Have OpenSSL forget the errors of this thread, after one of this connection."""
    if isinstance(sock, ssl.SSLSocket):
        # It is what Python does before it begins a connection.
        sock.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), sock.server_side, sock.server_hostname)


def explain(error: BaseException | None, *, server_side: bool = False) -> str | None:
    """Say what a TLS error means.

    Parameters
    ----------
    error : BaseException, optional
        Why a connection has ended, or there is none.
    server_side : bool
        Whether it was accepted here.

    Returns
    -------
    str or None
        None for errors that aren't TLS's, and those that say it themselves.
    """
    if not isinstance(error, ssl.SSLError):
        return None
    if isinstance(error, HAS_LEFT):
        return _LEFT
    if isinstance(error, ssl.SSLCertVerificationError) and server_side:
        return f"the peer's certificate isn't trusted: {error.verify_message}"
    text = _EXPLANATIONS.get(error.reason)
    return text and text.format(side="server" if server_side else "client")


def is_refusal(error: BaseException | None) -> bool:
    """Whether a handshake has failed by what the peer said, so that it may be there and hear of it."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, HAS_LEFT)


def answer_plainly(sock: ssl.SSLSocket, error: BaseException | None) -> None:
    """Tell a client that speaks no TLS, in the words that it knows, that this port does.

    Parameters
    ----------
    sock : ssl.SSLSocket
        A connection whose handshake has failed, about to be closed.
    error : BaseException, optional
        Why it failed.
    """
    if explain(error) == _NO_TLS:
        frame = encode(error_reply(_TLS_ONLY, "message"))
        assert isinstance(frame, bytes)
        with suppress(OSError):
            socket.socket.send(sock, frame)
