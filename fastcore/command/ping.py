"""``fastcore ping``: how long a round trip to a server takes."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence

from fastcore.addressing import Address, format_address
from fastcore.transport.connecting import connect
from fastcore.transport.streams import read, write

__all__ = ["show", "summary"]

#: Seconds between two updates of the progress line.
_REFRESH = 0.1


async def show(address: Address, count: int, timeout: float, token: str | None = None) -> None:
    """Make round trips, one after the other, and print what they took.

    Parameters
    ----------
    address : tuple of (str, int)
        The server; anything that answers ``identity``.
    count : int
        How many round trips.
    timeout : float
        Seconds, for each.
    token : str, optional
        What the server asks for.

    Raises
    ------
    ConnectionLost, TimeoutError
        If the server can't be reached, or stops answering.
    """
    live = sys.stderr.isatty()
    peer = format_address(address)
    took: list[float] = []
    shown = 0.0
    host, port = address
    stream = await connect(host, port, timeout, token=token)
    try:
        while len(took) < count:
            start = time.perf_counter()
            try:
                async with asyncio.timeout(timeout):
                    await write(stream, {"op": "identity"})
                    await read(stream)
            except TimeoutError:
                raise TimeoutError(f"{peer} gave no answer within {timeout:g} s") from None
            end = time.perf_counter()
            took.append(end - start)
            if live and end - shown > _REFRESH:
                shown = end
                sys.stderr.write(f"\r{len(took):,} of {count:,}, the last one {_milliseconds(took[-1])} ")
                sys.stderr.flush()
    finally:
        stream.close()
        if live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
    print(f"{peer}: {summary(took)}")


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
