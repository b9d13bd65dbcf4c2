"""The figures for Prometheus, as its own parsers read them."""

import sys

import pytest

from fastcore import rpc
from helpers.web import get
from helpers.wire import served

pytest.importorskip("prometheus_client")

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from fastcore import Monitor
from fastcore.monitor.metrics import exposition
from fastcore.server.figures import OpStats

HOSTILE = 'x"} 1\nfake_metric{op="\\'
FORMS = [
    pytest.param("", read_prometheus, "text/plain", id="prometheus"),
    pytest.param(
        "application/openmetrics-text; version=1.0.0",
        read_openmetrics,
        "application/openmetrics-text",
        id="openmetrics",
    ),
]


def samples(text, read):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in read(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(("accept", "read", "content_type"), FORMS)
async def test_the_figures_are_those_of_stats(accept, read, content_type):
    def fail(stream):
        raise KeyError("x")

    async with served({"fail": fail, HOSTILE: lambda stream: None}) as server, Monitor(server) as monitor:
        monitor.listen(0)
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            for _ in range(3):
                await remote.add(x=1, y=2)
            with pytest.raises(KeyError):
                await remote.fail()
            await getattr(remote, HOSTILE)()
            answer = await get(monitor.port, "/metrics", headers={"Accept": accept})
            stats = server.stats()
    assert answer.headers["Content-Type"].startswith(content_type)
    told = samples(answer.body.decode(), read)
    assert told["fastcore_health", ("state", "ready")] == 1
    assert told["fastcore_health", ("state", "draining")] == 0
    assert told["fastcore_connections",] == stats["connections"]["open"]
    assert told["fastcore_messages_total", ("direction", "in")] == stats["messages"]["in"] == 5
    assert told["fastcore_errors_total", ("kind", "handler")] == 1
    assert told["fastcore_call_errors_total", ("op", "fail")] == 1
    for op in ("add", "fail", HOSTILE):
        assert told["fastcore_call_duration_seconds_count", ("op", op)] == stats["ops"][op]["count"]
    assert not any(name.startswith("fake") for name, *_ in told)


def snapshot(*nanoseconds):
    op = OpStats()
    for time in nanoseconds:
        op.record(time)
    return {
        "uptime": 1.0,
        "connections": {"open": 1, "ever": 2},
        "messages": {"in": 0, "out": 0},
        "bytes": {"in": 0, "out": 0},
        "running": 0,
        "buffers": 0,
        "errors": {},
        "ops": {"op": op.as_dict_with_buckets()},
    }


@pytest.mark.parametrize(("accept", "read", "_"), FORMS)
def test_buckets_are_cumulative_and_hold_each_call_once(accept, read, _):
    times = [0, 5_000, 40_000, 1_000_000, 3_000_000_000, 500_000_000_000]
    text, _ = exposition({"": snapshot(*times)}, "ready", accept)
    told = samples(text.decode(), read)
    buckets = {
        float(dict(labels)["le"]): count
        for (name, *labels), count in told.items()
        if name == "fastcore_call_duration_seconds_bucket"
    }
    for end, count in buckets.items():
        assert count == sum(time / 1e9 < end for time in times)
    assert buckets[float("inf")] == told["fastcore_call_duration_seconds_count", ("op", "op")] == len(times)
    total = told["fastcore_call_duration_seconds_sum", ("op", "op")]
    assert total == pytest.approx(sum(times) / 1e9, rel=0.07)


@pytest.mark.parametrize(("accept", "read", "_"), FORMS)
def test_each_of_several_processes_has_its_own_series(accept, read, _):
    workers = {"0": snapshot(1) | {"silent": 0.0}, "1": snapshot(1, 2) | {"silent": 4.0}}
    text, _ = exposition(workers, "ready", accept)
    told = samples(text.decode(), read)
    assert told["fastcore_connections", ("worker", "0")] == 1
    assert told["fastcore_call_duration_seconds_count", ("op", "op"), ("worker", "1")] == 2
    assert told["fastcore_silent_seconds", ("worker", "1")] == 4
    assert ("fastcore_connections",) not in told


async def test_without_its_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastcore.monitor.metrics", None)
    async with served() as server, Monitor(server) as monitor:
        monitor.listen(0)
        answer = await get(monitor.port, "/metrics")
    assert answer.code == 501
    assert b"fastcore-rpc[prometheus]" in answer.body
