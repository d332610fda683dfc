from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.models import ClientRequest
from gateway.ports import NO_TRACING
from gateway.protocol.tracing import described, passed_on

OURS = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


class OneSpan:
    def __init__(self, context: Mapping[str, str]) -> None:
        self._context = context

    def context(self) -> Mapping[str, str]:
        return self._context

    def end(self, outcome: str, attributes: Mapping[str, Any]) -> None: ...


def a_request(method: str, params: dict[str, Any], meta: dict[str, Any] | None = None) -> ClientRequest:
    return ClientRequest(
        id=7,
        method=method,
        params=params,
        raw={},
        meta=meta or {},
        era="modern",
        revision="2026-07-28",
        capabilities={},
    )


def test_a_tool_call_is_named_by_its_public_tool_and_tells_no_argument() -> None:
    request = a_request("tools/call", {"name": "deploy__rollback", "arguments": {"password": "hunter2"}})
    name, _, attributes = described(request, {"mcp-session-id": "sealed", "authorization": "Bearer x"})
    assert name == "tools/call deploy__rollback"
    assert attributes == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2026-07-28",
        "jsonrpc.request.id": "7",
        "gen_ai.tool.name": "deploy__rollback",
        "gen_ai.operation.name": "execute_tool",
    }


def test_a_prompt_is_named_a_resource_is_not() -> None:
    assert described(a_request("prompts/get", {"name": "p"}), {})[0] == "prompts/get p"
    assert described(a_request("resources/read", {"uri": "file:///secret"}), {})[0] == "resources/read"
    assert "secret" not in str(described(a_request("resources/read", {"uri": "file:///secret"}), {})[2])


def test_what_a_client_makes_up_is_cut() -> None:
    name, _, attributes = described(a_request("tools/call", {"name": "x" * 10_000}), {})
    assert len(name) < 150
    assert all(len(value) <= 128 for value in attributes.values())
    assert described(a_request("tools/call", {"name": ["no text"]}), {})[0] == "tools/call"


def test_the_parent_in_meta_goes_before_the_one_in_headers() -> None:
    meta, headers = {"traceparent": "m"}, {"traceparent": "h"}
    assert described(a_request("ping", {}, meta), headers)[1] is meta
    assert described(a_request("ping", {}), headers)[1] is headers


def test_a_backend_gets_our_context_and_the_rest_as_the_client_sent_it() -> None:
    meta = {"traceparent": msgspec.Raw(b'"c"'), "tracestate": msgspec.Raw(b'"old=1"'), "baggage": msgspec.Raw(b'"k=v"')}
    assert passed_on(meta, OneSpan(OURS)) == {"baggage": msgspec.Raw(b'"k=v"'), **OURS}


def test_where_nothing_is_traced_the_clients_context_goes_on_as_it_came() -> None:
    meta = {"traceparent": msgspec.Raw(b'"c"')}
    assert passed_on(meta, NO_TRACING.begin("", {}, {})) is meta
