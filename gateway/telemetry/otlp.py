"""Spans of OpenTelemetry, sent in batches over OTLP by a thread. Imported only where a collector is configured.

The provider is our own, not the process's: libraries that trace by themselves stay silent.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_LONGEST_STATE = 512
"""Characters of a ``tracestate`` that are read (W3C Trace Context, 3.3.1.5)."""

_LONGEST_VALUE = 256
_W3C = TraceContextTextMapPropagator()


class OtlpTracer:
    """Implements ``ports.Tracer``; ``OTEL_*`` configures it. Spans beyond the queue of the batch are dropped."""

    def __init__(self, version: str) -> None:
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("mcp-gateway", version)

    def begin(self, name: str, parent: Mapping[str, Any], attributes: Mapping[str, Any]) -> OtlpSpan:
        """Start a span under the W3C context of ``parent``, or a trace of its own."""
        context = _W3C.extract(_carrier(parent), context=Context())
        span = self._tracer.start_span(name, context=context, kind=SpanKind.SERVER, attributes=_clean(attributes))
        return OtlpSpan(span)

    async def aclose(self, seconds: float) -> None:
        """Send what is left, but not longer than this; then it is dropped."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=send, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await sent.wait()
        except TimeoutError:
            # Ends the exporter's waits for another try.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


class OtlpSpan:
    """Implements ``ports.Span``."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def context(self) -> Mapping[str, str]:
        """``traceparent``, and ``tracestate`` where there is one."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, context=set_span_in_context(self._span, Context()))
        return carrier

    def end(self, outcome: str, attributes: Mapping[str, Any]) -> None:
        """The outcome is the ``error.type`` of whatever is not ``ok``."""
        self._span.set_attributes(_clean(attributes))
        if outcome != "ok":
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _resource(version: str) -> Resource:
    given = Resource.create({SERVICE_VERSION: version})
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return given if named else given.merge(Resource({SERVICE_NAME: "mcp-gateway"}))


def _carrier(parent: Mapping[str, Any]) -> dict[str, str]:
    """The two members as text; a client may have put anything there."""
    found = {name: parent.get(name) for name in ("traceparent", "tracestate")}
    return {name: value for name, value in found.items() if isinstance(value, str) and len(value) <= _LONGEST_STATE}


def _clean(attributes: Mapping[str, Any]) -> dict[str, str | bool | int | float]:
    """Only values that a span takes, none of them long."""
    return {
        name: value[:_LONGEST_VALUE] if isinstance(value, str) else value
        for name, value in attributes.items()
        if isinstance(value, str | bool | int | float)
    }
