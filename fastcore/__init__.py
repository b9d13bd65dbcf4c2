"""fastcore: framed messages and remote calls over Tornado streams.

The interface of the classic ``distributed.core``, on today's Python:

- :func:`read`, :func:`write`, :func:`connect`: messages over a stream;
- :class:`Server`: handlers, called by name;
- :class:`rpc`, :func:`send_recv`: calling them.

``import fastcore as core`` is the drop-in for ``distributed.core``.
"""

import sys

import fastcore as core
from fastcore._framing import SENTINEL
from fastcore.compat import (
    clean_exception,
    coerce_to_address,
    coerce_to_rpc,
    dumps,
    error_message,
    handle_signal,
    install_as_distributed_core,
    ip_port_from_args,
    loads,
    logger,
    pingpong,
    send_recv_sync,
    sentinel,
)
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
from fastcore.pool import ConnectionPool, RPCCall
from fastcore.remote_errors import register_error
from fastcore.rpc import rpc, send_recv
from fastcore.server import Server
from fastcore.streams import connect, messages, read, write

__version__ = "0.1.0"

# `fastcore.core` is the drop-in under its old name, for `from fastcore.core import rpc` too.
sys.modules["fastcore.core"] = core

__all__ = [
    "MAX_BUFFER_SIZE",
    "SENTINEL",
    "BadFrame",
    "BadMessage",
    "BufferMisuse",
    "ConnectionLost",
    "ConnectionPool",
    "FastcoreError",
    "FrameTooLarge",
    "RPCCall",
    "RPCClosed",
    "RemoteError",
    "Server",
    "clean_exception",
    "coerce_to_address",
    "coerce_to_rpc",
    "connect",
    "core",
    "dumps",
    "error_message",
    "get_total_physical_memory",
    "handle_signal",
    "install_as_distributed_core",
    "ip_port_from_args",
    "loads",
    "logger",
    "messages",
    "pingpong",
    "read",
    "register_error",
    "rpc",
    "send_recv",
    "send_recv_sync",
    "sentinel",
    "write",
]
