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
    kinds: str = "calls stream echo"
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
_TABLE = (
    Peer("fastcore", "fastcore", ("fastcore-rpc",), _ALL),
    Peer("fastcore_uvloop", "fastcore on uvloop", ("fastcore-rpc", "uvloop"), _ALL),
    Peer("echo_c", "floor: C, length then bytes", (), "echo sizes", program="cc"),
    Peer("echo_c_one_call", "floor: C, one call each way", (), "echo", program="cc"),
    Peer("blocking", "floor: blocking sockets + msgpack", ("msgpack",)),
    Peer("blocking_batched", "floor: blocking, batched", ("msgpack",), "stream"),
    Peer("uvloop_protocol", "uvloop, hand-written Protocol", ("uvloop", "msgpack"), _ALL),
    Peer("picows", "picows", ("picows", "msgpack")),
    Peer("asyncio_protocol", "asyncio, hand-written Protocol", ("msgpack",), _ALL),
    Peer("asyncio_streams", "asyncio streams, length-prefixed", ("msgpack",), _ALL),
    Peer("pyzmq", "pyzmq REQ/REP, blocking", ("pyzmq", "msgpack")),
    Peer("rpyc", "rpyc (no-delay set)", ("rpyc",)),
    Peer("tornado_classic", "plain Tornado read_until", ("tornado", "msgpack"), _ALL),
    Peer("pyzmq_asyncio", "pyzmq asyncio", ("pyzmq", "msgpack")),
    Peer("distributed", "distributed.core of today", ("distributed",)),
    Peer(
        "distributed_batched",
        "distributed: BatchedSend, to_serialize",
        ("distributed",),
        "stream echo",
    ),
    Peer("grpc_aio", "grpc.aio", ("grpcio", "msgpack")),
    Peer("zerorpc", "zerorpc", ("zerorpc",)),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in _TABLE}
