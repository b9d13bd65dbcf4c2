"""``fastcore ping``: how long a round trip to a server takes."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from tornado.iostream import IOStream

from fastcore.addressing import format_address
from fastcore.command.connected import connected
from fastcore.command.usage import CommandError, add_server, positive
from fastcore.transport.streams import read, write
from fastcore.transport.tornado import channel_of

__all__ = ["add_to", "run", "summary"]

#: Seconds between two updates of the progress line.
_REFRESH_INTERVAL = 0.1


def add_to(commands: Any) -> None:
    """Add the command to the others."""
    command = commands.add_parser("ping", help="time round trips to a server")
    add_server(command)
    command.add_argument("-n", "--count", type=positive, default=1000, help="how many (default: %(default)s)")
    command.set_defaults(run=lambda arguments: asyncio.run(run(arguments)))


async def run(arguments: argparse.Namespace) -> None:
    """Make round trips, one after the other, and print what they took.

    Raises
    ------
    ConnectionLost, CommandError
        If the server can't be reached, or stops answering.
    """
    async with connected(arguments) as stream:
        took = await _round_trips(stream, arguments.count, arguments.timeout)
    print(f"{format_address(arguments.address)}: {summary(took)}")


async def _round_trips(stream: IOStream, count: int, timeout: float) -> list[float]:
    live = sys.stderr.isatty()
    took: list[float] = []
    shown = 0.0
    try:
        while len(took) < count:
            start = time.perf_counter()
            try:
                async with asyncio.timeout(timeout):
                    await write(stream, {"op": "identity"})
                    await read(stream)
            except TimeoutError:
                peer = channel_of(stream).peer
                raise CommandError(f"{peer} gave no answer within {timeout:g} s") from None
            end = time.perf_counter()
            took.append(end - start)
            if live and end - shown > _REFRESH_INTERVAL:
                shown = end
                sys.stderr.write(f"\r{len(took):,} of {count:,}, the last one {_milliseconds(took[-1])} ")
                sys.stderr.flush()
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
    return took


def summary(took: Sequence[float]) -> str:
    """Describe how long round trips took.

    Parameters
    ----------
    took : sequence of float
        Seconds, at least one.

    Returns
    -------
    str

    Examples
    --------
    >>> summary([0.004, 0.001, 0.002])
    '3 round trips, min 1.000 ms, median 2.000 ms, p99 4.000 ms'
    """
    ranked = sorted(took)
    minimum, median, p99 = (
        _milliseconds(ranked[max(0, math.ceil(share * len(ranked)) - 1)]) for share in (0, 0.5, 0.99)
    )
    return f"{len(ranked):,} round trips, min {minimum}, median {median}, p99 {p99}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms"
