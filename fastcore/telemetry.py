"""OpenTelemetry: a span for each call at its caller, and one at its handler, in one trace.

Both are middleware. What ties them together, ``traceparent``, goes in the header of the request.

    pip install 'fastcore-rpc[opentelemetry]'
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace

from fastcore import __version__
from fastcore.middleware import CallDetails

__all__ = ["trace_calls", "trace_handlers"]


@contextmanager
def trace_calls(call: CallDetails) -> Iterator[None]:
    """Make a span of each call: middleware for ``rpc`` and ``ConnectionPool``.

    Examples
    --------
    >>> from fastcore import rpc
    >>> remote = rpc('127.0.0.1:8786', middleware=[trace_calls])
    """
    with _tracer().start_as_current_span(
        str(call.op), kind=trace.SpanKind.CLIENT, attributes=_attributes(call)
    ):
        propagate.inject(call.header)
        yield


@contextmanager
def trace_handlers(call: CallDetails) -> Iterator[None]:
    """Make a span of each handler, within that of its caller: middleware for ``Server``.

    Examples
    --------
    >>> from fastcore import Server
    >>> server = Server({}, middleware=[trace_handlers])
    """
    # Whatever else a stranger puts there.
    said = {key: value for key, value in call.header.items() if isinstance(value, str)}
    with _tracer().start_as_current_span(
        str(call.op),
        context=propagate.extract(said),
        kind=trace.SpanKind.SERVER,
        attributes=_attributes(call),
    ):
        yield


def _tracer() -> trace.Tracer:
    # Looked up anew: the program may set its provider after it has imported this.
    return trace.get_tracer("fastcore", __version__)


def _attributes(call: CallDetails) -> dict[str, Any]:
    return {"rpc.system": "fastcore", "rpc.method": str(call.op), "network.peer.address": call.peer}
