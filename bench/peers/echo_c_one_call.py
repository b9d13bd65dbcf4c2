"""The floor in C with one system call each way for a length and the bytes behind it."""

from __future__ import annotations

from collections.abc import Callable

from bench.peers import echo_c


def serve(announce: Callable[[int], None]) -> None:
    echo_c.serve(announce, "-DONE_CALL")


def connect(port: int) -> echo_c.Connection:
    return echo_c.Connection(port, "-DONE_CALL")
