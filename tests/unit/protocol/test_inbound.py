"""Which era a message is of, and that its parts agree."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION, InvalidRequest
from gateway.models import Principal
from gateway.protocol import inbound, jsonrpc, revisions
from gateway.protocol.session import Session, owner_of

MODERN = "2026-07-28"
ALICE = Principal("https://idp.example", "alice")


def _meta(version: Any = MODERN, **more: Any) -> dict[str, Any]:
    return {revisions.PROTOCOL_VERSION: version, revisions.CLIENT_CAPABILITIES: {}, **more}


def _headers(method: str = "tools/call", name: str | None = "t", version: str | None = MODERN) -> dict[str, str]:
    headers = {"mcp-method": method}
    if name is not None:
        headers["mcp-name"] = name
    if version is not None:
        headers["mcp-protocol-version"] = version
    return headers


def _request(method: str = "tools/call", **params: Any) -> jsonrpc.Request:
    return jsonrpc.Request(1, method, params)


@pytest.mark.parametrize(
    ("message", "headers", "era"),
    [
        (_request(_meta=_meta()), {}, "modern"),
        (_request(_meta=_meta("1999-01-01")), {"mcp-protocol-version": "2025-11-25"}, "modern"),
        (_request("initialize"), {"mcp-protocol-version": MODERN}, "legacy"),
        (_request("ping"), {"mcp-session-id": "x"}, "legacy"),
        (_request("ping"), {"mcp-protocol-version": "2025-06-18"}, "legacy"),
        (_request("ping"), {}, "legacy"),
        (jsonrpc.Notification("notifications/initialized", {}), {"mcp-protocol-version": MODERN}, "modern"),
        (jsonrpc.Response(1, {}), {"mcp-session-id": "x"}, "legacy"),
    ],
)
def test_the_body_decides_the_era_before_the_headers(message: Any, headers: dict[str, str], era: str) -> None:
    assert inbound.era_of(message, headers) == era


def test_a_modern_version_header_without_its_envelope_names_what_is_missing() -> None:
    with pytest.raises(InvalidRequest) as caught:
        inbound.era_of(_request("tools/list"), {"mcp-protocol-version": MODERN})
    assert caught.value.code == INVALID_PARAMS
    assert revisions.CLIENT_CAPABILITIES in caught.value.message


def test_a_version_that_nobody_speaks_is_answered_with_those_that_are_served() -> None:
    with pytest.raises(InvalidRequest) as caught:
        inbound.era_of(_request("tools/list"), {"mcp-protocol-version": "1999-01-01"})
    assert caught.value.code == UNSUPPORTED_VERSION
    assert caught.value.data == {"supported": [MODERN], "requested": "1999-01-01"}


def test_a_modern_request_is_read_with_its_capabilities() -> None:
    request = inbound.modern_request(_request(name="t", _meta=_meta(progressToken=5)), _headers())
    assert (request.era, request.revision, request.progress_token) == ("modern", MODERN, 5)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (_headers(version=None), HEADER_MISMATCH),
        (_headers(version="2025-11-25"), HEADER_MISMATCH),
        (_headers(method="tools/list"), HEADER_MISMATCH),
        (_headers(name="other"), HEADER_MISMATCH),
        (_headers(name=None), HEADER_MISMATCH),
        (_headers(name="=?base64?!!?="), HEADER_MISMATCH),
        (_headers(method="Tools/Call"), HEADER_MISMATCH),
    ],
)
def test_headers_that_do_not_mirror_the_body_are_refused(headers: dict[str, str], code: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        inbound.modern_request(_request(name="t", _meta=_meta()), headers)
    assert (caught.value.code, caught.value.status) == (code, 400)


def test_a_name_beyond_ascii_is_mirrored_in_base64() -> None:
    request = inbound.modern_request(_request(name="é", _meta=_meta()), _headers(name="=?base64?w6k=?="))
    assert request.params["name"] == "é"


@pytest.mark.parametrize(
    "meta",
    [
        {revisions.PROTOCOL_VERSION: MODERN},
        {revisions.PROTOCOL_VERSION: MODERN, revisions.CLIENT_CAPABILITIES: []},
        {revisions.PROTOCOL_VERSION: MODERN, revisions.CLIENT_CAPABILITIES: None},
    ],
)
def test_an_incomplete_envelope_is_invalid_params(meta: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        inbound.modern_request(_request(name="t", _meta=meta), _headers())
    assert (caught.value.code, caught.value.status) == (INVALID_PARAMS, 400)


@pytest.mark.parametrize("name", ["mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "mcp-param-x"])
def test_a_routing_header_that_comes_twice_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        inbound.refuse_repeated(frozenset({name}))
    assert caught.value.code == HEADER_MISMATCH


def test_other_headers_may_come_twice() -> None:
    inbound.refuse_repeated(frozenset({"accept", "via"}))


def test_a_legacy_request_has_what_its_session_knows() -> None:
    session = Session("2025-11-25", {"roots": {}}, {"name": "c"}, owner_of(ALICE), 1e12)
    request = inbound.legacy_request(_request("tools/list", _meta={"progressToken": "p"}), session)
    assert (request.revision, request.capabilities, request.progress_token) == ("2025-11-25", {"roots": {}}, "p")


@pytest.mark.parametrize("token", [True, 1.5, [], {}, None])
def test_a_progress_token_of_another_type_counts_as_none(token: Any) -> None:
    request = inbound.modern_request(_request(name="t", _meta=_meta(progressToken=token)), _headers())
    assert request.progress_token is None


def test_reserved_keys_of_meta_do_not_cross_and_others_cross_as_they_came() -> None:
    text = (
        b'{"progressToken":1,"io.modelcontextprotocol/clientInfo":{"name":"x"},"io.mcp-gateway/refusal":1,'
        b'"ProgressToken":2,"IO.ModelContextProtocol/protocolVersion":"x",'
        b'"com.example/key": {"n" : 1.0}}'
    )
    raw = {"_meta": msgspec.Raw(text)}
    crossing = inbound.crossing_meta(raw, msgspec.json.decode(text))
    assert {key: bytes(value) for key, value in crossing.items()} == {"com.example/key": b'{"n" : 1.0}'}


@pytest.mark.parametrize(
    ("meta", "headers", "expected"),
    [
        ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, {}, "a" * 32),
        ({}, {"traceparent": f"00-{'c' * 32}-{'d' * 16}-00"}, "c" * 32),
        ({"traceparent": "nonsense"}, {"traceparent": f"00-{'c' * 32}-{'d' * 16}-00"}, None),
        ({"traceparent": 5}, {}, None),
        ({}, {}, None),
    ],
)
def test_the_trace_id_comes_from_meta_before_the_header(
    meta: dict[str, Any], headers: dict[str, str], expected: str | None
) -> None:
    assert inbound.trace_id(_request(_meta=meta), headers) == expected


def _received(params: dict[str, Any], method: str = "tools/call") -> tuple[jsonrpc.Request, dict[str, msgspec.Raw]]:
    text = msgspec.json.encode(params)
    return jsonrpc.Request(7, method, params), msgspec.json.decode(text, type=dict[str, msgspec.Raw])


@given(
    name=st.sampled_from(["t", "u", None, 1]),
    meta=st.sampled_from([_meta(), _meta(progressToken=1), _meta("1999-01-01"), {}, None]),
    method=st.sampled_from(["tools/call", "prompts/get", "tools/list"]),
)
def test_a_request_is_known_again_where_it_would_be_read_as_before_and_nowhere_else(
    name: Any, meta: Any, method: str
) -> None:
    former, headers = inbound.Former(), _headers()
    first, raw = _received({"name": "t", "_meta": _meta(), "arguments": {"a": 1}})
    former.keep(inbound.modern_request(first, headers, raw), "trace")
    again, raw = _received({"name": name, "_meta": meta, "arguments": {"a": 2}}, method)
    known = former.again(again, raw)
    if (name, meta, method) == ("t", _meta(), "tools/call"):
        assert known == inbound.modern_request(again, headers, raw)
        assert former.trace_id == "trace"
    else:
        assert known is None


@pytest.mark.parametrize(("size", "known"), [(100, True), (10_000, False)])
def test_of_a_former_request_only_a_small_meta_is_kept(size: int, known: bool) -> None:
    former = inbound.Former()
    message, raw = _received({"name": "t", "_meta": _meta(**{"com.example/x": "x" * size}), "arguments": {"a": "x"}})
    former.keep(inbound.modern_request(message, _headers(), raw), None)
    again = former.again(message, raw)
    assert (again is not None) is known
    if again is not None:
        assert bytes(again.crossing["com.example/x"]) == b'"%b"' % (b"x" * size)
