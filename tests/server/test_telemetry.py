"""Spans of calls and of handlers, in memory."""

from collections.abc import Iterator

import pytest

from fastcore import rpc
from helpers.wire import frame, served, stranger_at

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastcore import telemetry


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", lambda: provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def by_kind(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.kind.name: span for span in exporter.get_finished_spans()}


def rows(stream, count):
    yield from range(count)


async def test_a_stream_of_answers_is_one_span_at_each_end(spans: InMemorySpanExporter):
    async with (
        served({"rows": rows}, middleware=[telemetry.trace_handlers]) as server,
        rpc(ip="127.0.0.1", port=server.port, middleware=[telemetry.trace_calls]) as remote,
    ):
        assert await remote.rows(count=100) == [*range(100)]
        found = by_kind(spans)
    assert len(spans.get_finished_spans()) == 2
    assert found["SERVER"].parent.span_id == found["CLIENT"].context.span_id
    assert found["CLIENT"].attributes["rpc.method"] == "rows"
    assert found["CLIENT"].attributes["network.peer.address"] == f"127.0.0.1:{server.port}"


async def test_the_error_of_a_handler_is_told_in_both(spans: InMemorySpanExporter):
    async with (
        served(middleware=[telemetry.trace_handlers]) as server,
        rpc(ip="127.0.0.1", port=server.port, middleware=[telemetry.trace_calls]) as remote,
    ):
        with pytest.raises(TypeError):
            await remote.add(x=1, y="two")
    for span in by_kind(spans).values():
        assert not span.status.is_ok
        assert [event.attributes["exception.type"] for event in span.events] == ["TypeError"]


@pytest.mark.parametrize("claimed", [5, None, [], {"a": 1}, "", "00-zz-zz-zz", "x" * 10_000, b"\xff"])
async def test_a_claim_that_makes_no_sense_is_ignored(claimed: object, spans: InMemorySpanExporter):
    async with served(middleware=[telemetry.trace_handlers]) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 1, "y": 2}, call=0, traceparent=claimed, tracestate=claimed))
        assert await stranger.hears() == 3
    assert by_kind(spans)["SERVER"].parent is None
