"""What is measured, what each figure is called, and what fastcore must reach."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Workload:
    """One column of the table.

    Parameters
    ----------
    name : str
        How the command line and the results call it.
    title : str
        How reports call it.
    kind : str
        What the client does: ``calls``, ``busy`` (the same, as a growth row), ``stream``,
        ``echo``, ``sizes`` (the same, as a growth row), ``shared``, ``parts``, ``parts_async``,
        ``messages``, ``blocks`` or ``idle``.
    amount : int
        Calls in flight, bytes of one echo, or idle connections.
    figure : str
        The figure of the client's report that is the headline.
    lower : bool
        Whether less is better.
    one_core : bool
        Whether both processes share one core: what a call costs is then not hidden by overlap.
    """

    name: str
    title: str
    kind: str
    amount: int
    figure: str
    lower: bool = False
    one_core: bool = False


_TABLE = (
    Workload("W1", "sequential calls, one core: CPU µs per call", "calls", 1, "cpu_us", True, True),
    Workload("W2", "64 calls in flight: calls/s", "calls", 64, "rate"),
    Workload("W3", "stream of small messages: messages/s", "stream", 1, "rate"),
    Workload("W4", "64 MiB echo: MB/s, both ways counted", "echo", 64 * MIB, "mb_s"),
    Workload("W5", "64 KiB echo, one core: round trips/s", "echo", 64 * KIB, "rate", one_core=True),
    Workload("W6", "64 calls in flight on shared connections: calls/s", "shared", 64, "rate"),
    Workload("W7", "parts of a generator's answer: values/s", "parts", 1, "rate"),
    Workload("W8", "parts of an async generator's answer: values/s", "parts_async", 1, "rate"),
    Workload("W9", "iterating over a stream of small messages: messages/s", "messages", 1, "rate"),
    Workload("W10", "calls that block, one core: CPU µs per call", "blocks", 1, "cpu_us", True, True),
)

MAIN: dict[str, Workload] = {workload.name: workload for workload in _TABLE}


def sized(size: int) -> Workload:
    """One echo size of the growth rows; *size* in bytes."""
    name = f"{size // GIB}GiB" if size >= GIB else f"{size // MIB}MiB"
    name = f"{size // KIB}KiB" if size < MIB else name
    return Workload(f"echo-{name}", f"{name} echo: MB/s, both ways", "sizes", size, "mb_s")


def busy(connections: int) -> Workload:
    """One count of busy connections of the growth rows."""
    title = f"{connections} busy connections, one core: CPU µs per call"
    return Workload(f"busy-{connections}", title, "busy", connections, "cpu_us", True, True)


def idle(connections: int) -> Workload:
    """Connections that have made one call each and are quiet, with W1 beside them."""
    title = f"{connections} idle connections: server's bytes for each"
    return Workload(f"idle-{connections}", title, "idle", connections, "idle_bytes", True, True)


SIZES = (64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB)
GROWTH: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        *(busy(connections) for connections in (1, 10, 100, 1000)),
        *(sized(size) for size in SIZES),
        idle(10_000),
    )
}
HUGE = sized(3 * GIB)
WORKLOADS = MAIN | GROWTH | {HUGE.name: HUGE}


@dataclass(frozen=True)
class Goal:
    """fastcore's headline figure divided by another one, and the ratio to reach.

    Parameters
    ----------
    workload : str
        Which one.
    beside : str
        The peer by whose figure it is divided; empty for fastcore itself.
    must, aim : float
        The ratios.
    who : str
        Which fastcore the goal is for, where it isn't for both.
    than : str
        The workload whose figure it is divided by, where that is another one.
    """

    workload: str
    beside: str
    must: float
    aim: float
    who: str = ""
    than: str = ""


GOALS = (
    Goal("W1", "asyncio_protocol", 1.0, 0.75),
    Goal("W2", "asyncio_protocol", 1.0, 1.2, who="fastcore"),
    Goal("W2", "uvloop_protocol", 1.0, 1.2, who="fastcore_uvloop"),
    Goal("W3", "blocking_batched", 0.4, 0.6),
    Goal("W4", "echo_c", 0.65, 0.85),
    Goal("W5", "echo_c", 0.6, 0.8),
    Goal("W6", "asyncio_ids", 1.0, 1.3, who="fastcore"),
    Goal("W6", "uvloop_ids", 1.0, 1.3, who="fastcore_uvloop"),
    Goal("W7", "", 0.8, 1.0, than="W3"),
    Goal("W8", "", 0.8, 1.0, than="W3"),
    Goal("W9", "blocking_batched", 0.55, 0.6),
    Goal("W10", "blocking_by_hand", 1.3, 1.15, who="fastcore_sync"),
    Goal("W10", "blocking", 1.3, 1.2, who="fastcore_sync"),
)


@dataclass(frozen=True)
class Limit:
    """A figure that fastcore is to keep below, whoever else runs.

    Parameters
    ----------
    workload, figure : str
        Which one.
    title : str
        What it is.
    most : float
        The limit.
    unit : float
        What the figure is divided by.
    over : str
        A peer whose own figure is subtracted first.
    than : str
        A workload whose figure is the unit, for what is to grow with nothing.
    """

    workload: str
    figure: str
    title: str
    most: float
    unit: float = 1.0
    over: str = ""
    than: str = ""


LIMITS = (
    Limit("W1", "system_calls", "system calls per round trip", 8),
    Limit("W4", "client_peak", "client's peak memory over its start, in payloads", 2, 64 * MIB),
    Limit("W4", "server_peak", "server's peak memory over its start, in payloads", 2, 64 * MIB),
    Limit("busy-1000", "cpu_us", "CPU per call, times that with one connection", 1.2, than="busy-1"),
    Limit("echo-1GiB", "cpu_ns_per_kib", "CPU per byte, times that at 64 KiB", 1.2, than="echo-64KiB"),
    Limit("idle-10000", "idle_bytes", "bytes for each over plain Tornado's", 4096, over="tornado_classic"),
    Limit("idle-10000", "slowdown", "W1 beside them, times W1 alone", 1.2),
)
