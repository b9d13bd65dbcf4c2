"""Figures in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["describe_bytes", "describe_latency", "describe_seconds"]


def describe_seconds(seconds: float) -> str:
    """Write a time in the unit that fits.

    Examples
    --------
    >>> describe_seconds(0.0000021), describe_seconds(0.25), describe_seconds(12), describe_seconds(9000)
    ('2 µs', '250 ms', '12 s', '2 h 30 min')
    """
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"


def describe_latency(op: Mapping[str, Any]) -> tuple[str, str]:
    """Write p50 and p99 of an op, of which no call may have ended yet.

    Examples
    --------
    >>> describe_latency({'count': 2, 'p50': 0.25, 'p99': 12})
    ('250 ms', '12 s')
    >>> describe_latency({'count': 0, 'p50': 0.0, 'p99': 0.0})
    ('-', '-')
    """
    if not op["count"]:
        return "-", "-"
    return describe_seconds(op["p50"]), describe_seconds(op["p99"])


def describe_bytes(count: float) -> str:
    """Write a number of bytes in the unit that fits.

    Examples
    --------
    >>> describe_bytes(100), describe_bytes(3_500_000)
    ('100 B', '3.34 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:.3g} TiB"
