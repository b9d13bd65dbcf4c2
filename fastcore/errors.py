"""What can go wrong: one small hierarchy.

Every error says what happened, where (which peer, which limit), and what to do
about it. Errors that old programs catch by a standard type (``IOError``,
``StreamClosedError``, ``ValueError``) are of that type too.
"""

from __future__ import annotations

from tornado.iostream import StreamClosedError

from fastcore.engine_errors import (
    BadFrame,
    BadMessage,
    BadValue,
    BufferMisuse,
    FastcoreError,
    FrameTooLarge,
    TooDeep,
    TooManyValues,
)
from fastcore.logs import escaped

__all__ = [
    "BadFrame",
    "BadMessage",
    "BadValue",
    "BufferMisuse",
    "ConnectionLost",
    "FastcoreError",
    "FrameTooLarge",
    "LimitReached",
    "RPCClosed",
    "RemoteError",
    "TooDeep",
    "TooManyValues",
]


class ConnectionLost(FastcoreError, StreamClosedError):
    """The connection ended while somebody still waited for it.

    Parameters
    ----------
    message : str
        What was going on, with which peer.
    real_error : BaseException, optional
        The error that ended the connection, where there was one.
    """

    def __init__(self, message: str, real_error: BaseException | None = None) -> None:
        StreamClosedError.__init__(self, real_error=real_error)
        self.args = (message,)

    def __str__(self) -> str:
        reason = f" ({self.real_error})" if self.real_error is not None else ""
        return f"{self.args[0]}{reason}"


class LimitReached(FastcoreError, TimeoutError):
    """A peer took longer than it may, or there are as many connections as there may be.

    Parameters
    ----------
    keyword : str
        The keyword argument that sets the limit.
    message : str
        What happened.
    """

    def __init__(self, keyword: str, message: str) -> None:
        super().__init__(keyword, message)
        self.keyword = keyword
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.keyword}={self._there})"


class RPCClosed(FastcoreError, IOError):
    """A call on an ``rpc`` after its ``close_rpc()``."""


class RemoteError(FastcoreError):
    """A handler raised an exception of a type that doesn't exist here.

    Parameters
    ----------
    type_name : str
        The name of the exception's type at the remote side.
    message : str
        Its message.
    args : tuple
        Its arguments, as far as a message can express them.
    """

    def __init__(self, type_name: str, message: str, args: tuple[object, ...] = ()) -> None:
        super().__init__(type_name, message)
        self.type_name = type_name
        self.message = message
        self.remote_args = args

    def __str__(self) -> str:
        # A peer's words: whoever prints them has a terminal that they could give orders to.
        return escaped(f"{self.type_name}: {self.message}")
