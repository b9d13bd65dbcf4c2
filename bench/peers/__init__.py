"""The peers: one small module each, and the table that names them.

A peer's server answers ``add`` and ``echo`` and counts ``update`` messages. Its module has

``serve(announce)``
    listen on a free port of 127.0.0.1, call ``announce(port)``, serve for ever;
``connect(port)``
    one connection, with ``add(x, y)``, ``echo(data)`` and ``stream(count)``, which writes *count*
    updates one by one and returns how many of them the server has read;
``run(main)``
    for a peer with an event loop: how to run its coroutines. ``serve``, ``connect`` and the
    methods of a connection are coroutines then. A peer without ``run`` blocks, and instead of
    ``add`` its connections have the two halves of it, ``ask(x, y)`` and ``answer()``, for many
    calls in flight from one thread.

A connection of those that take part in ``shared`` may have many calls of ``add`` at a time. Some have
``parts(count)`` and ``parts_async(count)``, which return how many values they were given by a handler
that yields them, as a generator or as an async generator; and ``messages(count)``, the same as
``stream(count)`` with whatever the library has to iterate over messages.

Those of ``blocks`` have ``add(x, y)`` all the same, which waits.

Peers do what their documentation recommends for speed, and nothing that a user would not do.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass
from types import ModuleType

HOST = "127.0.0.1"
_CALLS = "calls stream echo"


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Parameters
    ----------
    name : str
        The module in this package.
    title : str
        The row's name in reports.
    packages : tuple of str
        The distributions it needs; those that are missing make the runner skip it.
    kinds : str
        The kinds of workload that it takes part in.
    program : str
        A program that must be on PATH.
    """

    name: str
    title: str
    packages: tuple[str, ...] = ()
    kinds: str = _CALLS
    program: str = ""

    def missing(self) -> str:
        """Say what this peer lacks on this machine: empty when it can run."""
        lacking = [package for package in self.packages if not version_of(package)]
        if self.program and not shutil.which(self.program):
            lacking.append(f"the program {self.program!r}")
        return ", ".join(lacking)

    def module(self) -> ModuleType:
        """Import the peer."""
        return importlib.import_module(f"{__name__}.{self.name}")


def version_of(package: str) -> str:
    """Look up an installed distribution's version: empty when it isn't installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


_ALL = "calls stream echo idle busy sizes"
_OURS = f"{_ALL} shared parts parts_async messages"
_TABLE = (
    Peer("fastcore", "fastcore", ("fastcore-rpc",), _OURS),
    Peer("fastcore_uvloop", "fastcore on uvloop", ("fastcore-rpc", "uvloop"), _OURS),
    Peer("echo_c", "floor: C, length then bytes", (), "echo sizes", program="cc"),
    Peer("echo_c_one_call", "floor: C, one call each way", (), "echo", program="cc"),
    Peer("fastcore_sync", "fastcore.SyncClient", ("fastcore-rpc",), "blocks"),
    Peer("blocking_by_hand", "floor: blocking sockets + msgpack, to fastcore", ("fastcore-rpc",), "blocks"),
    Peer("blocking", "floor: blocking sockets + msgpack", ("msgpack",), f"{_CALLS} blocks"),
    Peer("blocking_batched", "floor: blocking, batched", ("msgpack",), "stream messages"),
    Peer("blocking_ids", "floor: blocking, ids, 64 calls at once", ("msgpack",), "shared"),
    Peer("uvloop_protocol", "uvloop, hand-written Protocol", ("uvloop", "msgpack"), _ALL),
    Peer("uvloop_ids", "uvloop, hand-written Protocol with ids", ("uvloop", "msgpack"), "shared"),
    Peer("picows", "picows", ("picows", "msgpack")),
    Peer("asyncio_protocol", "asyncio, hand-written Protocol", ("msgpack",), _ALL),
    Peer("asyncio_ids", "asyncio, hand-written Protocol with ids", ("msgpack",), "shared"),
    Peer("asyncio_streams", "asyncio streams, length-prefixed", ("msgpack",), _ALL),
    Peer("pyzmq", "pyzmq REQ/REP, blocking", ("pyzmq", "msgpack")),
    Peer("rpyc", "rpyc (no-delay set)", ("rpyc",), f"{_CALLS} shared"),
    Peer("tornado_classic", "plain Tornado read_until", ("tornado", "msgpack"), _ALL),
    Peer("pyzmq_asyncio", "pyzmq asyncio", ("pyzmq", "msgpack")),
    Peer("distributed", "distributed.core of today", ("distributed",), f"{_CALLS} shared"),
    Peer(
        "distributed_batched",
        "distributed: BatchedSend, to_serialize",
        ("distributed",),
        "stream echo",
    ),
    Peer("grpc_aio", "grpc.aio", ("grpcio", "msgpack"), f"{_CALLS} shared parts_async"),
    Peer("zerorpc", "zerorpc", ("zerorpc",), f"{_CALLS} shared parts"),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in _TABLE}
