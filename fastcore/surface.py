"""All names of ``fastcore``, and where each of them lives."""

# Compiled modules import these where nobody sees it who reads imports, to freeze a program for instance.
import msgpack  # noqa: F401

import fastcore._blocks
import fastcore._buffer
import fastcore._iterating
import fastcore._outbox
import fastcore._parts
import fastcore._turns
import fastcore._values
import fastcore._watchdog
import fastcore.bad_values  # noqa: F401
from fastcore._framing import SENTINEL, FrameBuffer, MessageBuffer
from fastcore.background import ServerInThread
from fastcore.classic import (
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
from fastcore.client.calls import RemoteCall
from fastcore.client.pool import ConnectionPool, RPCCall
from fastcore.client.rpc import rpc, send_recv
from fastcore.client.synchronous import SyncClient
from fastcore.client.typed import RemoteStream, remote_method, typed
from fastcore.errors import (
    BadFrame,
    BadMessage,
    BadValue,
    BufferMisuse,
    ConnectionLost,
    FastcoreError,
    FrameTooLarge,
    LimitReached,
    RemoteError,
    RPCClosed,
    TooDeep,
    TooManyValues,
)
from fastcore.limits import MAX_BUFFER_SIZE, Limits, get_total_physical_memory
from fastcore.middleware import CallDetails
from fastcore.monitor.port import Monitor
from fastcore.remote_errors import register_error
from fastcore.server.server import Server
from fastcore.server.service import caller_of
from fastcore.transport.connecting import connect
from fastcore.transport.streams import configure, messages, read, write
from fastcore.values.registry import register_type

__all__ = [
    "MAX_BUFFER_SIZE",
    "SENTINEL",
    "BadFrame",
    "BadMessage",
    "BadValue",
    "BufferMisuse",
    "CallDetails",
    "ConnectionLost",
    "ConnectionPool",
    "FastcoreError",
    "FrameBuffer",
    "FrameTooLarge",
    "LimitReached",
    "Limits",
    "MessageBuffer",
    "Monitor",
    "RPCCall",
    "RPCClosed",
    "RemoteCall",
    "RemoteError",
    "RemoteStream",
    "Server",
    "ServerInThread",
    "SyncClient",
    "TooDeep",
    "TooManyValues",
    "caller_of",
    "clean_exception",
    "coerce_to_address",
    "coerce_to_rpc",
    "configure",
    "connect",
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
    "register_type",
    "remote_method",
    "rpc",
    "send_recv",
    "send_recv_sync",
    "sentinel",
    "typed",
    "write",
]
