"""When a tracer is opened at all; what it sends is in tests/integration/test_tracing.py."""

import logging
import sys

import pytest

from gateway.ports import NO_TRACING
from gateway.telemetry.tracing import ENDPOINTS, open_tracer

HERE = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "  "},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": HERE, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_a_collector_or_switched_off_there_is_no_tracer_and_no_word(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert open_tracer(environ, version="1") is None
    assert caplog.text == ""


@pytest.mark.parametrize("variable", ENDPOINTS)
@pytest.mark.parametrize(
    ("endpoint", "protocol", "word"),
    [(HERE, "grpc", "http/protobuf"), (HERE, "http/json", "http/protobuf"), ("collector:4317", "", "http://")],
)
def test_what_cannot_be_sent_to_is_said_and_prevents_nothing_else(
    variable: str, endpoint: str, protocol: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {variable: endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    with caplog.at_level(logging.WARNING):
        assert open_tracer(environ, version="1") is None
    assert "no traces are sent" in caplog.text
    assert word in caplog.text
    assert endpoint not in caplog.text


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
)
def test_without_the_extra_it_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "gateway.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with caplog.at_level(logging.WARNING):
        assert open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE}, version="1") is None
    assert "mcp-gateway[otel]" in caplog.text


def test_where_nothing_is_traced_spans_are_taken_and_say_nothing() -> None:
    span = NO_TRACING.begin("tools/call x", {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}, {})
    assert span.context() == {}
    span.end("ok", {})
