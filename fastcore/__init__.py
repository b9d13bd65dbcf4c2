"""fastcore: framed messages and remote calls over Tornado streams.

The interface of the classic ``distributed.core``, on today's Python:

- :func:`read`, :func:`write`, :func:`connect`: messages over a stream;
- :class:`Server`: handlers, called by name;
- :class:`rpc`, :func:`send_recv`: calling them.

``import fastcore as core`` is the drop-in for ``distributed.core``.
"""

from fastcore._framing import SENTINEL
from fastcore.errors import (
    BadFrame,
    BadMessage,
    BufferMisuse,
    ConnectionLost,
    FastcoreError,
    FrameTooLarge,
    RemoteError,
    RPCClosed,
)
from fastcore.limits import MAX_BUFFER_SIZE, get_total_physical_memory
from fastcore.remote_errors import register_error
from fastcore.rpc import rpc, send_recv
from fastcore.server import Server
from fastcore.streams import connect, read, write

__version__ = "0.1.0"

__all__ = [
    "MAX_BUFFER_SIZE",
    "SENTINEL",
    "BadFrame",
    "BadMessage",
    "BufferMisuse",
    "ConnectionLost",
    "FastcoreError",
    "FrameTooLarge",
    "RPCClosed",
    "RemoteError",
    "Server",
    "connect",
    "get_total_physical_memory",
    "read",
    "register_error",
    "rpc",
    "send_recv",
    "write",
]
