"""Client, gateway and backend in one trace, whatever era the client speaks."""

from collections.abc import Callable

import pytest

from ..integration.test_tracing import PARENT, TRACE, Collector, collector
from .harness import Gateway
from .servers.raw_http import RawBackend

Start = Callable[..., Gateway]

__all__ = ["collector"]

ROUTES = """
routes:
  - {{name: raw, backend: {{url: "{url}"}}, scopes: []}}
"""
CONTEXT = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_call_is_one_trace_from_the_client_to_the_backend(
    gateway: Start, raw: RawBackend, collector: Collector, era: str
) -> None:
    served = gateway(ROUTES.format(url=raw.url), OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    client = served.client()
    if era == "modern":
        assert client.call("raw__verbatim", meta={"traceparent": CONTEXT}).status_code == 200
    else:
        client.initialize()
        reply = client.legacy("tools/call", {"name": "raw__verbatim", "arguments": {}}, Traceparent=CONTEXT)
        assert reply.status_code == 200
    (seen,) = raw.state.calls("verbatim")
    version, trace, span_id, _flags = seen.message["params"]["_meta"]["traceparent"].split("-")
    assert served.stop() == 0
    span = next(one for one in collector.spans() if one.name == "tools/call raw__verbatim")
    assert (version, trace) == ("00", TRACE)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.span_id.hex()) == (TRACE, PARENT, span_id)
    assert {record["trace_id"] for record in served.records() if record["tool"]} == {TRACE}
