"""What a server did: counted while it works, told by ``server.stats()``.

Counting must not be felt: a call costs two readings of the clock and one addition. Figures that
can be had later (bytes, open connections) are collected when somebody asks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from fastcore._latencies import Latencies, bucket_start

if TYPE_CHECKING:
    from fastcore._channel import Channel

__all__ = ["OpStats", "ServerStats"]


class OpStats(Latencies):
    """How often an op was called, how often it failed, and how long it took.

    Examples
    --------
    >>> op = OpStats()
    >>> for _ in range(99):
    ...     op.record(1_000_000)
    >>> op.record(1_000_000_000)
    >>> op.count
    100
    >>> 0.0009 < op.quantile(0.5) < 0.0011
    True
    >>> 0.9 < op.quantile(0.999) < 1.1
    True
    """

    __slots__ = ("errors",)

    def __init__(self) -> None:
        self.errors = 0

    @property
    def count(self) -> int:
        """How many calls have ended."""
        return sum(self.counts().values())

    def quantile(self, part: float) -> float:
        """Tell the seconds in which this part of the calls was done; 0 before the first call.

        Parameters
        ----------
        part : float
            Between 0 and 1.

        Returns
        -------
        float
        """
        counts = self.counts()
        left = part * sum(counts.values())
        for bucket, count in counts.items():
            left -= count
            if left <= 0:
                return _middle(bucket) / 1e9
        return 0.0

    def add(self, told: Mapping[str, Any]) -> None:
        """Count the calls that another process has counted, and told with ``buckets``."""
        self.errors += told["errors"]
        for bucket, count in told["buckets"].items():
            self.record_many(int(bucket), count)

    def as_dict(self) -> dict[str, Any]:
        """Tell the figures, times in seconds."""
        return {
            "count": self.count,
            "errors": self.errors,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
        }

    def as_dict_with_buckets(self) -> dict[str, Any]:
        """Tell also how many calls took how long: by bucket, of those that have any.

        The keys are texts, as JSON has no others.
        """
        buckets = {str(bucket): count for bucket, count in self.counts().items()}
        return self.as_dict() | {"buckets": buckets}


def _middle(bucket: int) -> float:
    """Nanoseconds in the middle of a bucket."""
    return (bucket_start(bucket) + bucket_start(bucket + 1)) / 2


class ServerStats:
    """What a server did since it was made.

    Attributes
    ----------
    started : float
        When that was, by ``time.monotonic``.
    errors : collections.Counter
        How often something went wrong, by kind.
    ops : dict of str to OpStats
        By op; only ops that have a handler, so that strangers can't make it grow.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.errors: Counter[str] = Counter()
        self.ops: dict[str, OpStats] = {}
        self._ever = 0
        # Of the connections that have ended: messages in and out, bytes in and out.
        self._past: _Traffic = (0, 0, 0, 0)

    def opened(self) -> None:
        """Count a connection."""
        self._ever += 1

    def closed(self, channel: Channel) -> None:
        """Keep the figures of a connection that has ended."""
        self._past = _sum(self._past, _traffic(channel))

    def new_op(self, op: Any) -> OpStats:
        """Begin the figures of an op."""
        return self.ops.setdefault(op, OpStats())

    def failed(self, op: Any) -> None:
        """Count an error of a handler."""
        self.errors["handler"] += 1
        self.new_op(op).errors += 1

    def as_dict(self, channels: Collection[Channel], running: int) -> dict[str, Any]:
        """Tell all figures as plain values, that a message can carry.

        Parameters
        ----------
        channels : collection of Channel
            The connections that are open.
        running : int
            Handlers that wait for something.

        Returns
        -------
        dict
        """
        messages_in, messages_out, bytes_in, bytes_out = _sum(self._past, *map(_traffic, channels))
        return {
            "uptime": time.monotonic() - self.started,
            "connections": {"open": len(channels), "ever": self._ever},
            "messages": {"in": messages_in, "out": messages_out},
            "bytes": {"in": bytes_in, "out": bytes_out},
            "running": running,
            "buffers": sum(channel.held for channel in channels),
            "errors": dict(self.errors),
            "ops": {str(name): op.as_dict() for name, op in self.ops.items()},
        }


_Traffic = tuple[int, int, int, int]


def _traffic(channel: Channel) -> _Traffic:
    return channel.messages_in, channel.messages_out, channel.bytes_in, channel.bytes_out


def _sum(*figures: _Traffic) -> _Traffic:
    a, b, c, d = zip(*figures, strict=True)
    return sum(a), sum(b), sum(c), sum(d)
