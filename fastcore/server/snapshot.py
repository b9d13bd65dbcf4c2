"""All that can be told of a running server, as plain values; and of several together.

Nothing is collected until somebody asks: what runs is known by the connections, the warnings
are those that were logged, and the rest are the figures that are counted anyway.
"""

from __future__ import annotations

import heapq
import inspect
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any, Final, Literal, Protocol, TypeAlias

from fastcore._channel import Channel
from fastcore.logs import last_warnings
from fastcore.server.figures import OpStats
from fastcore.server.service import Handler, Service

__all__ = ["Health", "Snapshot", "describe_ops", "health_of_all", "merge", "take"]

Health: TypeAlias = Literal["ready", "draining", "overloaded"]
#: Plain values, that a message and JSON can carry.
Snapshot: TypeAlias = dict[str, Any]

#: Calls and warnings that are told, of as many as there may be.
_MAX_CALLS: Final = 50
_MAX_WARNINGS: Final = 50


class RunsHandlers(Protocol):
    """The server's end of a connection, as far as it is looked at."""

    def running(self) -> Sequence[tuple[Any, int]]:
        """Tell which ops run, and by ``perf_counter_ns`` since when."""
        ...


def take(
    service: Service, stats: dict[str, Any], connections: Mapping[Channel, RunsHandlers], health: Health
) -> Snapshot:
    """Tell all of one server.

    Parameters
    ----------
    service : Service
        Of the server.
    stats : dict
        What ``server.stats()`` tells.
    connections : mapping of Channel to RunsHandlers
        Those that are open.
    health : str
        How the server is.

    Returns
    -------
    dict
        ``stats``, and beside it ``health``, ``pid``, ``type``, ``calls`` (what runs: ``op``,
        ``peer``, ``seconds``; the longest first, at most 50), ``warnings`` (the last ones of
        the process: ``time``, ``level``, ``text``), and for each op ``buckets``: how many
        calls took how long.
    """
    now = perf_counter_ns()
    running = (
        ((now - begun) / 1e9, str(op), channel.peer)
        for channel, connection in connections.items()
        for op, begun in connection.running()
    )
    return stats | {
        "health": health,
        "type": type(service.host).__name__,
        "pid": os.getpid(),
        "ops": {str(name): op.as_dict_with_buckets() for name, op in service.figures.ops.items()},
        "calls": [
            {"op": op, "peer": peer, "seconds": seconds}
            for seconds, op, peer in heapq.nlargest(_MAX_CALLS, running)
        ],
        "warnings": last_warnings.as_list(),
    }


def merge(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Tell of several processes as of one server.

    Parameters
    ----------
    snapshots : sequence of dict
        What :func:`take` gave in each.

    Returns
    -------
    dict
        Of the same form; ``uptime`` is the longest.

    Examples
    --------
    >>> one = {'uptime': 3.0, 'health': 'ready', 'type': 'Server', 'pid': 1, 'running': 1, 'buffers': 0,
    ...        'connections': {'open': 2, 'ever': 5}, 'messages': {'in': 0, 'out': 0},
    ...        'bytes': {'in': 0, 'out': 0}, 'errors': {}, 'calls': [], 'warnings': [],
    ...        'ops': {'add': {'count': 2, 'errors': 1, 'buckets': {'9': 2}}}}
    >>> both = merge([one, one])
    >>> both['connections'], both['ops']['add']['count'], both['ops']['add']['errors']
    ({'open': 4, 'ever': 10}, 4, 2)
    """
    ops: dict[str, OpStats] = {}
    for snapshot in snapshots:
        for name, told in snapshot["ops"].items():
            ops.setdefault(name, OpStats()).add(told)
    return {
        "uptime": max((snapshot["uptime"] for snapshot in snapshots), default=0.0),
        "connections": {"open": 0, "ever": 0} | _sum(snapshot["connections"] for snapshot in snapshots),
        "messages": {"in": 0, "out": 0} | _sum(snapshot["messages"] for snapshot in snapshots),
        "bytes": {"in": 0, "out": 0} | _sum(snapshot["bytes"] for snapshot in snapshots),
        "running": sum(snapshot["running"] for snapshot in snapshots),
        "buffers": sum(snapshot["buffers"] for snapshot in snapshots),
        "errors": _sum(snapshot["errors"] for snapshot in snapshots),
        "ops": {name: op.as_dict_with_buckets() for name, op in ops.items()},
        "health": health_of_all([snapshot["health"] for snapshot in snapshots]),
        "type": next((snapshot["type"] for snapshot in snapshots), "Server"),
        "pid": os.getpid(),
        "calls": heapq.nlargest(
            _MAX_CALLS,
            (call for snapshot in snapshots for call in snapshot["calls"]),
            key=lambda call: call["seconds"],
        ),
        "warnings": sorted(
            (line for snapshot in snapshots for line in snapshot["warnings"]), key=lambda line: line["time"]
        )[-_MAX_WARNINGS:],
    }


def health_of_all(healths: Collection[Health]) -> Health:
    """Tell how several are together: ready while one of them is.

    Examples
    --------
    >>> health_of_all(['draining', 'ready']), health_of_all(['draining', 'overloaded']), health_of_all([])
    ('ready', 'overloaded', 'draining')
    """
    if "ready" in healths:
        return "ready"
    return "overloaded" if "overloaded" in healths else "draining"


def _sum(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for figures in counted:
        total.update(figures)
    return dict(total)


def describe_ops(handlers: Mapping[str, Handler]) -> list[dict[str, str]]:
    """Tell which ops there are, and how they are called.

    Parameters
    ----------
    handlers : mapping of str to callable
        By op.

    Returns
    -------
    list of dict
        By name: ``op``, ``signature`` without the stream, which callers don't give, and
        ``doc``, the first line of the docstring.

    Examples
    --------
    >>> def add(stream, x: int, y: int = 0) -> int:
    ...     '''Add two numbers.'''
    >>> describe_ops({'add': add})
    [{'op': 'add', 'signature': '(x: int, y: int = 0) -> int', 'doc': 'Add two numbers.'}]
    """
    told = []
    for op, handler in sorted(handlers.items(), key=lambda item: str(item[0])):
        doc = inspect.getdoc(handler) or ""
        told.append({"op": str(op), "signature": _signature(handler), "doc": doc.partition("\n")[0]})
    return told


def _signature(handler: Handler) -> str:
    try:
        # As it was written: `int`, and not `'int'`, where annotations are texts.
        signature = inspect.signature(handler, eval_str=True)
    except Exception:
        try:
            signature = inspect.signature(handler)
        except Exception:
            # Some that are written in C don't tell; Python 3.13 says so by an error of its tokenizer.
            return "(...)"
    parameters = [*signature.parameters.values()]
    if parameters and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        del parameters[0]
    return str(signature.replace(parameters=parameters))
