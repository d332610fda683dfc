"""Spans as a collector receives them from the real exporter, and a gateway that has none to send."""

import asyncio
import gzip
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from gateway.telemetry.otlp import OtlpTracer
from gateway.telemetry.tracing import open_tracer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


class Collector:
    """Takes OTLP over HTTP; ``hold`` makes it answer nothing until it is set."""

    def __init__(self) -> None:
        self.received: list[ResourceSpans] = []
        self.headers: list[dict[str, str]] = []
        self.hold = threading.Event()
        self.hold.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.hold.wait(30.0)
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest()
                request.ParseFromString(body)
                collector.received.extend(request.resource_spans)
                collector.headers.append({"path": self.path, **dict(self.headers)})
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Span]:
        return [span for each in self.received for scope in each.scope_spans for span in scope.spans]

    def stop(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.stop()


def opened(monkeypatch: pytest.MonkeyPatch, endpoint: str, **environ: str) -> OtlpTracer:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **environ}.items():
        monkeypatch.setenv(name, value)
    tracer = open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, version="1.2.3")
    assert tracer is not None
    return tracer


def attributes(span: Span | Any) -> dict[str, Any]:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in span.attributes}


async def test_a_span_continues_the_clients_trace_and_arrives_on_close(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = opened(monkeypatch, collector.url)
    span = tracer.begin("tools/call deploy__rollback", FROM_CLIENT, {"mcp.method.name": "tools/call"})
    context = span.context()
    span.end("ok", {"mcp_gateway.route": "deploy"})
    await tracer.aclose(5.0)

    (sent,) = collector.spans()
    assert (sent.name, sent.kind) == ("tools/call deploy__rollback", Span.SPAN_KIND_SERVER)
    assert (sent.trace_id.hex(), sent.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(sent) == {"mcp.method.name": "tools/call", "mcp_gateway.route": "deploy"}
    assert sent.status.code == Status.STATUS_CODE_UNSET
    assert context == {"traceparent": f"00-{TRACE}-{sent.span_id.hex()}-01", "tracestate": "vendor=1"}
    assert collector.headers[0]["path"] == "/v1/traces"


async def test_the_backends_span_hangs_under_the_gateways_in_one_trace(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, backend = opened(monkeypatch, collector.url), opened(monkeypatch, collector.url)
    ours = gateway.begin("tools/call a__b", {}, {})
    theirs = backend.begin("tools/call b", ours.context(), {})
    theirs.end("ok", {})
    ours.end("ok", {})
    await asyncio.gather(gateway.aclose(5.0), backend.aclose(5.0))
    spans = {span.name: span for span in collector.spans()}
    assert spans["tools/call b"].parent_span_id == spans["tools/call a__b"].span_id
    assert spans["tools/call b"].trace_id == spans["tools/call a__b"].trace_id
    assert spans["tools/call a__b"].parent_span_id == b""


async def test_every_outcome_but_ok_is_an_error_of_that_type(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = opened(monkeypatch, collector.url)
    for outcome in ("rate_limited", "tool_error", "aborted"):
        tracer.begin(outcome, {}, {}).end(outcome, {})
    await tracer.aclose(5.0)
    assert len(collector.spans()) == 3
    for span in collector.spans():
        assert attributes(span)["error.type"] == span.name
        assert span.status.code == Status.STATUS_CODE_ERROR


async def test_what_the_client_does_not_sample_is_not_sent_but_goes_on(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = opened(monkeypatch, collector.url)
    span = tracer.begin("x", {"traceparent": f"00-{TRACE}-{PARENT}-00"}, {})
    assert span.context()["traceparent"].startswith(f"00-{TRACE}-")
    assert span.context()["traceparent"].endswith("-00")
    span.end("ok", {})
    await tracer.aclose(5.0)
    assert collector.spans() == []


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "mcp-gateway"),
        ({"OTEL_SERVICE_NAME": "edge"}, "edge"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=edge,team=x"}, "edge"),
    ],
)
async def test_the_service_is_named_and_the_operator_may_name_it(
    environ: dict[str, str], name: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = opened(monkeypatch, collector.url, **environ)
    tracer.begin("x", {}, {}).end("ok", {})
    await tracer.aclose(5.0)
    resource = attributes(collector.received[0].resource)
    assert (resource["service.name"], resource["service.version"]) == (name, "1.2.3")


async def test_the_standard_variables_are_obeyed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    headers, compression = "x-tenant=blue", "gzip"
    tracer = opened(
        monkeypatch,
        collector.url,
        OTEL_EXPORTER_OTLP_HEADERS=headers,
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
    )
    tracer.begin("x", {}, {}).end("ok", {})
    await tracer.aclose(5.0)
    assert collector.headers[0]["x-tenant"] == "blue"
    assert collector.headers[0]["Content-Encoding"] == "gzip"
    assert len(collector.spans()) == 1


async def test_closing_does_not_wait_longer_than_it_may(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = opened(monkeypatch, collector.url)
    collector.hold.clear()
    tracer.begin("x", {}, {}).end("ok", {})
    since = time.monotonic()
    await tracer.aclose(0.2)
    assert time.monotonic() - since < 3.0
    tracer.begin("after the end", {}, {}).end("ok", {})


async def test_a_collector_that_is_away_harms_nobody(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector.stop()
    tracer = opened(monkeypatch, collector.url)
    tracer.begin("x", {}, {}).end("ok", {})
    with caplog.at_level(logging.WARNING):
        await tracer.aclose(1.0)
    assert "Traceback" not in caplog.text


_anything = st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.text())


async def test_no_parent_and_no_attribute_makes_it_raise(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = opened(monkeypatch, collector.url, OTEL_TRACES_SAMPLER="always_off")

    @given(_anything, _anything, st.dictionaries(st.text(), _anything, max_size=5))
    def begins(traceparent: Any, tracestate: Any, given_attributes: dict[str, Any]) -> None:
        span = tracer.begin("x", {"traceparent": traceparent, "tracestate": tracestate}, given_attributes)
        assert "traceparent" in span.context()
        span.end("ok", given_attributes)

    begins()
    await tracer.aclose(5.0)


async def test_a_tracestate_of_megabytes_is_dropped_not_parsed(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = opened(monkeypatch, collector.url)
    span = tracer.begin("x", {**FROM_CLIENT, "tracestate": "a=1," * 1_000_000}, {"long": "x" * 100_000})
    assert set(span.context()) == {"traceparent"}
    span.end("ok", {})
    await tracer.aclose(5.0)
    assert len(attributes(collector.spans()[0])["long"]) == 256


PROBE = """
import json, logging, os, sys
logging.basicConfig()
sys.modules["opentelemetry.sdk.metrics"] = None  # redis imports it wherever it is installed
for name in sys.argv[1:]:
    sys.modules[name] = None
import gateway.app
from gateway.telemetry.tracing import open_tracer
tracer = open_tracer(os.environ, version="1")
heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests")
print(json.dumps([tracer is None, [name for name, module in sys.modules.items() if module and name.startswith(heavy)]]))
"""


def probe(environ: dict[str, str], *missing: str) -> tuple[bool, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *missing], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    none, modules = json.loads(done.stdout)
    return none, modules, done.stderr


def test_a_gateway_that_traces_nothing_imports_nothing_for_it() -> None:
    none, modules, said = probe({})
    assert none
    assert modules == []
    assert "traces" not in said


def test_a_gateway_without_the_extra_runs_and_says_so() -> None:
    none, _, said = probe({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "opentelemetry.sdk.trace")
    assert none
    assert "mcp-gateway[otel]" in said


def test_a_gateway_that_is_told_of_a_collector_has_a_tracer() -> None:
    none, modules, _ = probe({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert not none
    assert "opentelemetry.sdk.trace" in modules
