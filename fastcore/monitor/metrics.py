"""The figures as Prometheus reads them, by its own library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, Final, get_args

from prometheus_client import Metric
from prometheus_client import exposition as formats
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from fastcore._latencies import bucket_start
from fastcore.server.snapshot import Health, Snapshot

__all__ = ["exposition"]

#: The ends of Prometheus' buckets, as powers of two of nanoseconds: 16 µs to 69 s.
_ENDS: Final = [2**power for power in range(14, 37)]

#: What a metric says of one process: its label's value, and the metric's own.
_Samples = Callable[[Snapshot], Iterable[tuple[Any, ...]]]


def exposition(snapshots: Mapping[str, Snapshot], health: Health, accept: str) -> tuple[bytes, str]:
    """Write the figures down as Prometheus has it.

    Parameters
    ----------
    snapshots : mapping of str to dict
        Of each process, by its name; of the only one under ``''``.
    health : str
        How they are together.
    accept : str
        The forms that the asker reads, as HTTP says it: Prometheus' own, or OpenMetrics.

    Returns
    -------
    bytes, str
        The text, and its content type.
    """
    encode, content_type = formats.choose_encoder(accept)
    return encode(_Figures(snapshots, health)), content_type


class _Figures:
    """What the library asks for metrics, as it asks a registry.

    Each process has its own series, with its name as the label ``worker``: a process that was
    replaced begins at 0, and Prometheus knows what that means of a series, but not of a sum.
    """

    def __init__(self, snapshots: Mapping[str, Snapshot], health: Health) -> None:
        self._snapshots = snapshots
        self._health = health

    def collect(self) -> Iterable[Metric]:
        """Give the metrics, with the samples of each process."""
        yield self._health_states()
        has_names = self._snapshots.keys() != {""}
        for kind, name, text, label, samples in _METRICS:
            labels = ["worker"] * has_names + [label] * bool(label)
            metric = kind(name, text, labels=labels)
            for process, snapshot in self._snapshots.items():
                for value, *values in samples(snapshot):
                    metric.add_metric([process] * has_names + [value] * bool(label), *values)
            yield metric

    def _health_states(self) -> Metric:
        text = "1 for what the server is, 0 for what it isn't"
        states = GaugeMetricFamily("fastcore_health", text, labels=["state"])
        for state in get_args(Health):
            states.add_metric([state], float(state == self._health))
        return states


def _one(*path: str) -> _Samples:
    def samples(snapshot: Snapshot) -> Iterable[tuple[Any, ...]]:
        value: Any = snapshot
        for key in path:
            value = value[key]
        yield "", value

    return samples


def _silent(snapshot: Snapshot) -> Iterable[tuple[Any, ...]]:
    # Who is asked in its own process can't be silent.
    return [("", snapshot["silent"])] if "silent" in snapshot else []


def _each(group: str) -> _Samples:
    return lambda snapshot: snapshot[group].items()


def _failed(snapshot: Snapshot) -> Iterable[tuple[Any, ...]]:
    return ((op, figures["errors"]) for op, figures in snapshot["ops"].items())


def _took(snapshot: Snapshot) -> Iterable[tuple[Any, ...]]:
    return ((op, *_histogram(figures["buckets"])) for op, figures in snapshot["ops"].items())


def _histogram(buckets: Mapping[str, int]) -> tuple[list[tuple[str, float]], float]:
    """Give buckets as Prometheus has them, cumulative, and the sum of seconds: to within 7 %."""
    counts: dict[float, int] = dict.fromkeys([*_ENDS, math.inf], 0)
    total = 0.0
    for text, count in buckets.items():
        start, end = bucket_start(int(text)), bucket_start(int(text) + 1)
        total += count * (start + end) / 2e9
        counts[next((limit for limit in _ENDS if end <= limit), math.inf)] += count
    ends = [*(str(end / 1e9) for end in _ENDS), "+Inf"]
    return [*zip(ends, map(float, accumulate(counts.values())), strict=True)], total


_GAUGE, _COUNTER, _HISTOGRAM = GaugeMetricFamily, CounterMetricFamily, HistogramMetricFamily
#: Kind, name, what it is, the label beside ``worker``, and what it says of a process.
_METRICS: Final[list[tuple[Any, str, str, str, _Samples]]] = [
    (_GAUGE, "fastcore_uptime_seconds", "Since the server was made", "", _one("uptime")),
    (_GAUGE, "fastcore_connections", "Connections that are open", "", _one("connections", "open")),
    (_GAUGE, "fastcore_running_handlers", "Handlers that wait for something", "", _one("running")),
    (_GAUGE, "fastcore_buffer_bytes", "Memory that holds messages", "", _one("buffers")),
    (_GAUGE, "fastcore_silent_seconds", "For which a worker has given no answer", "", _silent),
    (_COUNTER, "fastcore_connections_opened", "Connections, ever", "", _one("connections", "ever")),
    (_COUNTER, "fastcore_messages", "Messages", "direction", _each("messages")),
    (_COUNTER, "fastcore_bytes", "Bytes of messages", "direction", _each("bytes")),
    (_COUNTER, "fastcore_errors", "What went wrong", "kind", _each("errors")),
    (_COUNTER, "fastcore_call_errors", "Calls that raised", "op", _failed),
    (_HISTOGRAM, "fastcore_call_duration_seconds", "From a handler's call to its result", "op", _took),
]
