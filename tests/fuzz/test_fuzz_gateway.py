"""A gateway as a process, and whatever a network may bring: an answer within seconds, never a 500, all of it on record.

What holds for all requests together is checked when the last one has been answered: nothing was logged as a failure,
memory is bounded, and every answer has its record, a refusal with the rule it broke.
"""

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import encode_header_value

from tests.e2e.harness import LEGACY, MODERN, Gateway, running, until
from tests.e2e.servers.raw_http import RawBackend
from tests.e2e.wire import ENVELOPE, modern_call, routing
from tests.integration.servers.start import http_server

ROUTES = """
limits: [{{name: everyone, per: principal, limit: 100000, window: 60s}}]
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
    tools:
      error: {{scopes: [more]}}
      steps: {{limits: [{{name: few, per: principal, limit: 5, window: 1h}}]}}
      "*": {{hidden: true}}
      verbatim: {{}}
      regional: {{}}
  - name: sdk
    backend: {{url: "{sdk}", era: modern}}
    scopes: [raw]
    tools: {{die: {{hidden: true}}, slow_ask: {{hidden: true}}, impatient: {{hidden: true}}}}
    timeout: 2s
  - name: away
    backend: {{url: "http://127.0.0.1:9/mcp"}}
    scopes: [raw]
toolsets:
  plain: {{routes: [raw], names: plain}}
"""
SECONDS = 10.0
bounded = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
GROWTH = 96 * 2**20
UNRULED = {"ok", "tool_error", "backend_error", "aborted"}
"""Outcomes of what nobody refused; the record of every other names a rule."""
PRIVATE = re.compile(rb"Traceback|site-packages|/gateway/|File \"")
"""What of the gateway's inside must not stand in an answer."""


@dataclass(repr=False)
class Fuzzed:
    gateway: Gateway
    backend: RawBackend
    session: str
    answered: dict[str, int] = field(default_factory=dict)
    """Request ids of answers of ``/mcp``, with their status."""

    def resident(self) -> int:
        assert self.gateway.process is not None
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def tokens(self) -> dict[str, str]:
        good = self.gateway.token("raw")
        return {
            "good": good,
            "other": self.gateway.token("raw", subject="bob"),
            "scopeless": self.gateway.token(""),
            "foreign": self.gateway.token("raw", aud="https://elsewhere.test"),
            "cut": good[:-3],
        }


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    backend = RawBackend()
    limits = {"GATEWAY_HEADER_TIMEOUT_SECONDS": "0.3", "GATEWAY_BODY_TIMEOUT_SECONDS": "0.3"}
    limits |= {"GATEWAY_MAX_BODY_BYTES": "20000", "GATEWAY_AUTH_FAILURES_PER_MINUTE": "0"}
    with (
        http_server("--modern", program="asking.py") as sdk,
        running(tmp_path_factory.mktemp("fuzz"), ROUTES.format(url=backend.url, sdk=sdk.url), **limits) as gateway,
    ):
        client = gateway.client("raw")
        client.initialize()
        until(lambda: "sdk__chat" in client.tools())
        one = Fuzzed(gateway, backend, str(client.session))
        before = one.resident()
        yield one
        assert one.resident() < before + GROWTH
        _judge(one)
    backend.stop()


def _judge(fuzzed: Fuzzed) -> None:
    """What must hold of all that was sent."""
    records: dict[str, list[dict[str, Any]]] = {}

    def lacking() -> list[Any]:
        """What still lacks: intents without an outcome, and answers without a record."""
        records.clear()
        for record in fuzzed.gateway.records():
            records.setdefault(record["request_id"], []).append(record)
        open_ones = [last[-1] for last in records.values() if last[-1]["outcome"] is None]
        return [*open_ones, *(fuzzed.answered.keys() - records.keys())]

    until(lambda: not lacking(), 60)
    for of_one in records.values():
        _judge_records(of_one, fuzzed.answered.get(of_one[0]["request_id"]))
    log = fuzzed.gateway.log
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    assert '"level": "error"' not in log.replace('"level":"error"', '"level": "error"')
    assert fuzzed.gateway.process is not None
    assert fuzzed.gateway.process.poll() is None


def _judge_records(records: list[dict[str, Any]], status: int | None) -> None:
    """What one request left in the audit: one record, or an intent and an outcome where it was sent on."""
    last = records[-1]
    assert [record["event"] for record in records] in (["request"], ["intent", "outcome"]), records
    assert last["outcome"] not in (None, "internal_error"), last
    assert last["rule"] or last["outcome"] in UNRULED, last
    assert last["outcome"] == "aborted" or status in (None, last["http_status"]), last
    if last["event"] == "request":
        assert not last["dispatched"], last
    if (status or 200) >= 400 and not _asked_in_vain(last):
        assert last["event"] == "request", records
        assert last["outcome"] not in UNRULED, last


def _asked_in_vain(record: dict[str, Any]) -> bool:
    """-32021: a call that ran up to the question that its client cannot answer, the one 400 of what was sent on."""
    return record["http_status"] == 400 and record["outcome"] == "backend_error"


def exchange(fuzzed: Fuzzed, request: bytes) -> bytes:
    """The head and what came at once after it; empty where the gateway closed without a word."""
    received = b""
    with socket.create_connection(("127.0.0.1", fuzzed.gateway.port), SECONDS) as connection:
        connection.sendall(request)
        began = time.monotonic()
        while not _whole(received):
            assert time.monotonic() - began < SECONDS, received
            try:
                chunk = connection.recv(65536)
            except ConnectionResetError:
                break
            if not chunk:
                break
            received += chunk
            received = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    return received


def _whole(received: bytes) -> bool:
    """A stream is whole with its head: it may stay open for ever."""
    head, end, _body = received.partition(b"\r\n\r\n")
    return bool(end) and b"text/event-stream" in head.lower()


def judge(fuzzed: Fuzzed, received: bytes, path: str) -> None:
    if not received:
        return
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert status < 500 or status == 503, received
    assert not PRIVATE.search(received), received
    if path.startswith("/mcp") and status >= 400:
        error = json.loads(body)
        assert error["jsonrpc"] == "2.0", received
        assert {"code", "message"} <= error["error"].keys()
    found = re.search(rb"x-request-id: ([!-~]+)", head, re.IGNORECASE)
    if path.startswith("/mcp"):
        assert found is not None, received
        fuzzed.answered[found[1].decode()] = status


# Requests

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
methods = st.sampled_from(
    [
        *("tools/call", "tools/call", "tools/call", "tools/list", "prompts/get", "resources/read", "resources/list"),
        *("completion/complete", "server/discover", "subscriptions/listen", "ping", "initialize", "logging/setLevel"),
        *("resources/subscribe", "notifications/cancelled", "tasks/get", "x"),
    ]
)
names = st.sampled_from(
    [
        *("raw__verbatim", "raw__verbatim", "raw__steps", "raw__error", "raw__regional", "raw__hang", "verbatim"),
        *("sdk__chat", "sdk__ask_modern", "sdk__greet", "sdk__stats", "away__x", ""),
    ]
)
uris = st.sampled_from(["memo://one", "memo://x/part", "memo://x/other", ""]) | texts
references = st.fixed_dictionaries(
    {"type": st.sampled_from(["ref/prompt", "ref/resource"])}, optional={"name": names, "uri": uris}
)
meta = st.fixed_dictionaries(
    {name: st.just(value) for name, value in ENVELOPE.items()},
    optional={"progressToken": values, "io.modelcontextprotocol/logLevel": st.just("info") | values, "x/y": values},
)
params = st.fixed_dictionaries(
    {},
    optional={
        "name": names | values,
        "uri": uris | values,
        "arguments": st.fixed_dictionaries({}, optional={"region": texts, "level": values}) | values,
        "cursor": values,
        "requestState": values,
        "inputResponses": values,
        "ref": values,
        "notifications": st.just({"toolsListChanged": True}) | values,
        "protocolVersion": st.just(LEGACY) | values,
        "capabilities": st.just({}) | values,
        "_meta": meta | values,
    },
)
messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": methods},
    optional={"id": st.integers(0, 9) | values, "params": params | values, "result": values},
)
bodies = (messages | st.lists(messages, max_size=3) | values).map(json.dumps) | st.sampled_from(
    ["", "{", "[" * 3000, '{"a":1,"a":2}', '{"jsonrpc":"2.0","id":1e999}', "nul", '"\\ud800"', " " * 21000]
)
fields = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
headers = st.fixed_dictionaries(
    {},
    optional={
        "Authorization": st.sampled_from(["good"] * 8 + ["other", "scopeless", "foreign", "cut"]) | fields,
        "Content-Type": st.just("application/json") | fields,
        "Accept": st.just("application/json, text/event-stream")
        | st.sampled_from(["application/json", "*/*"])
        | fields,
        "MCP-Protocol-Version": st.sampled_from([MODERN, LEGACY, "2025-03-26", "1999-01-01"]) | fields,
        "Mcp-Method": methods | fields,
        "Mcp-Name": names | fields,
        "Mcp-Session-Id": st.just("mine") | fields,
        "Mcp-Param-Region": fields,
        "Origin": st.sampled_from(["http://localhost", "https://evil.test", "null"]) | fields,
        "Host": st.sampled_from(["localhost", "127.0.0.1:80", "evil.test"]) | fields,
        "Last-Event-ID": fields,
        "traceparent": fields,
        "X-Request-Id": fields,
        "Expect": st.just("100-continue"),
    },
)
paths = st.sampled_from(
    ["/mcp"] * 6
    + [
        "/mcp/plain",
        "/mcp/none",
        "/mcp?x=1",
        "/connect/x?state=y",
        "/console/api/x",
        "/healthz",
        "/.well-known/x",
        "/metrics",
        "/",
    ]
)


def written(fuzzed: Fuzzed, method: str, path: str, given_headers: dict[str, str], body: bytes, length: int) -> bytes:
    tokens = fuzzed.tokens()
    sent = {
        "Host": "localhost",
        "Connection": "close",
        "Content-Length": str(max(0, len(body) + length)),
        **given_headers,
    }
    if sent.get("Authorization") in tokens:
        sent["Authorization"] = f"Bearer {tokens[sent['Authorization']]}"
    if sent.get("Mcp-Session-Id") == "mine":
        sent["Mcp-Session-Id"] = fuzzed.session
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


arguments = st.fixed_dictionaries({}, optional={"region": texts, "level": values, "text": values}) | values
well_formed = st.one_of(
    st.tuples(
        st.just("tools/call"),
        st.fixed_dictionaries(
            {"name": names, "arguments": arguments}, optional={"requestState": values, "inputResponses": values}
        ),
    ),
    st.tuples(st.just("prompts/get"), st.fixed_dictionaries({"name": names}, optional={"arguments": values})),
    st.tuples(st.just("resources/read"), st.fixed_dictionaries({"uri": uris})),
    st.tuples(st.just("completion/complete"), st.fixed_dictionaries({"ref": references | values, "argument": values})),
    st.tuples(
        st.just("subscriptions/listen"),
        st.fixed_dictionaries(
            {
                "notifications": st.fixed_dictionaries(
                    {}, optional={"resourceSubscriptions": st.lists(uris), "toolsListChanged": values}
                )
                | values
            }
        ),
    ),
    st.tuples(st.sampled_from(["tools/list", "prompts/list"]), st.fixed_dictionaries({}, optional={"cursor": values})),
    st.tuples(methods, params),
)


@bounded
@given(well_formed, meta, st.integers() | texts, st.sampled_from(["good", "good", "other", "scopeless"]), fields)
def test_well_formed_requests_with_any_content_are_answered(
    fuzzed: Fuzzed, asked: tuple[str, dict[str, Any]], own: dict[str, Any], number: Any, token: str, region: str
) -> None:
    method, of = asked
    known = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    known |= {"Authorization": token, "MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    named = of.get("uri" if method == "resources/read" else "name")
    if isinstance(named, str):
        known["Mcp-Name"] = encode_header_value(named)
    if isinstance(of.get("arguments"), dict) and isinstance(of["arguments"].get("region"), str):
        known["Mcp-Param-Region"] = encode_header_value(of["arguments"]["region"])
    elif region:
        known["Mcp-Param-Region"] = region
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": {**of, "_meta": own}}
    request = written(fuzzed, "POST", "/mcp", known, json.dumps(message).encode(), 0)
    judge(fuzzed, exchange(fuzzed, request), "/mcp")


@bounded
@given(st.sampled_from(["POST"] * 6 + ["GET", "DELETE", "PUT", "OPTIONS", "HEAD"]), paths, headers, bodies)
def test_any_request_is_answered(fuzzed: Fuzzed, method: str, path: str, sent: dict[str, str], body: str) -> None:
    received = exchange(fuzzed, written(fuzzed, method, path, sent, body.encode(), 0))
    if method not in ("HEAD", "OPTIONS"):
        judge(fuzzed, received, path)


# Backends

blocks = st.lists(
    st.fixed_dictionaries({"type": st.just("text") | texts}, optional={"text": texts | values}), max_size=2
)
asking = st.dictionaries(
    texts,
    st.fixed_dictionaries({}, optional={"method": st.just("elicitation/create") | texts, "params": values}) | values,
    max_size=2,
)
results = st.fixed_dictionaries(
    {},
    optional={
        "content": blocks | values,
        "structuredContent": values,
        "isError": st.booleans() | values,
        "resultType": st.sampled_from(["complete", "input_required"]) | values,
        "inputRequests": asking | values,
        "requestState": texts | values,
        "_meta": values,
        "ttlMs": values,
    },
)
written_results = (results | values).map(json.dumps).map(str.encode) | st.sampled_from(
    [
        b'{"content":[],"a":1e999}',
        b'{"content":[],"a":"\\ud800"}',
        b'{"content":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b"{",
    ]
)


@bounded
@given(written_results, st.booleans())
def test_whatever_a_backend_answers_a_call_has_an_answer(fuzzed: Fuzzed, result: bytes, modern: bool) -> None:
    fuzzed.backend.state.answer = result
    known = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    known["Authorization"] = "good"
    if modern:
        body = modern_call("raw__verbatim", **{"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}})
        known |= {name.replace("_", "-"): value for name, value in routing("raw__verbatim").items()}
    else:
        call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "raw__verbatim", "arguments": {}}}
        body = json.dumps(call).encode()
        known["Mcp-Session-Id"] = "mine"
    received = exchange(fuzzed, written(fuzzed, "POST", "/mcp", known, body, 0))
    judge(fuzzed, received, "/mcp")
    head, _, answer = received.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"200", b"400"), received
    if b"application/json" in head:
        assert json.loads(answer)["id"] == 7


@bounded
@given(
    messages, headers, st.sampled_from([-5, -1, 1, 50]), st.lists(st.tuples(st.integers(0, 900), st.binary(max_size=3)))
)
def test_any_bytes_are_answered_or_the_connection_is_closed(
    fuzzed: Fuzzed, message: dict[str, Any], sent: dict[str, str], length: int, edits: list[tuple[int, bytes]]
) -> None:
    request = written(fuzzed, "POST", "/mcp", {"Authorization": "good", **sent}, json.dumps(message).encode(), length)
    for place, piece in edits:
        request = request[:place] + piece + request[place + 1 :]
    received = exchange(fuzzed, request)
    assert not received or int(received.split(b" ")[1]) < 500 or received.startswith(b"HTTP/1.1 503"), received
