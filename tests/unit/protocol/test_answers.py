"""From values to the bytes of an answer: a result loses nothing, a refusal is said as its reader needs it."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    INTERNAL_ERROR,
    BackendBusy,
    BackendTimeout,
    BackendUnavailable,
    ClientSilent,
    InsufficientScope,
    InvalidArguments,
    InvalidRequest,
    Overloaded,
    Quarantined,
    RateLimited,
    Refusal,
    Unauthenticated,
    UnknownMethod,
    UnknownTool,
)
from gateway.models import BackendReply, Era, Limit
from gateway.protocol import answers, revisions, strict_json

from ..fakes import SERVER_INFO, request, said

LIMIT = Limit("routes.deploy.limits[0]", ("principal",), 5, 60.0, 5)
MODERN_ONLY = ("resultType", "ttlMs", "cacheScope")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
names = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)
results = st.dictionaries(names.filter(lambda name: name not in (*MODERN_ONLY, "_meta")), values, max_size=6)
metas = st.dictionaries(names.filter(lambda name: "/" not in name), values, max_size=3)


def written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def as_received(value: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return strict_json.members(written(value))


def raw_of(body: bytes, *path: str) -> bytes:
    for name in path:
        body = bytes(strict_json.members(body)[name])
    return body


def relayed(parts: dict[str, Any], era: Era = "modern") -> bytes:
    return answers.result(7, era, parts, SERVER_INFO, relayed=True)


# Results


@given(results, metas)
def test_a_modern_result_is_what_the_backend_sent_but_for_result_type_and_server_info(
    result: dict[str, Any], meta: dict[str, Any]
) -> None:
    sent = {**result, "_meta": meta} if meta else result
    body = relayed(as_received(sent))
    got = json.loads(body)["result"]
    assert got.pop("resultType") == "complete"
    assert got["_meta"].pop(revisions.SERVER_INFO)["name"] == "mcp-gateway"
    if not meta:
        del got["_meta"]
    assert got == sent
    for name, value in sent.items():
        if name != "_meta":
            assert raw_of(body, "result", name) == written(value)


@given(results.filter(lambda result: "structuredContent" not in result), metas)
def test_a_legacy_result_is_exactly_what_the_backend_sent(result: dict[str, Any], meta: dict[str, Any]) -> None:
    sent = {**result, "_meta": meta} if meta else result
    assert json.loads(relayed(as_received(sent), "legacy"))["result"] == sent


@pytest.mark.parametrize(
    "text",
    [
        b"null",
        b"1.0",
        b"1.50e+10",
        b"-0",
        b"0.1000000000000000055511151231257827",
        b"123456789012345678901234567890123456789",
        b'"\\u00e9\\/\\ud83d\\ude00"',
        '"\u2028é😀\u200b"'.encode(),
        b'[ 1 ,\t{"b" : 1, "a" : 2} ]',
        b'{"type":"of-tomorrow","new":{"x":null}}',
        b"1e999",
    ],
)
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_every_value_is_copied_byte_for_byte(text: bytes, era: Era) -> None:
    name = "structuredContent" if era == "modern" else "unknown"
    parts = strict_json.members(b'{"%b":%b,"later":%b}' % (name.encode(), text, text))
    body = relayed(parts, era)
    assert raw_of(body, "result", name) == text
    assert raw_of(body, "result", "later") == text


def test_a_structured_content_of_null_is_not_dropped() -> None:
    assert b'"structuredContent":null' in relayed({"structuredContent": None})


def test_a_result_type_of_the_backend_stays_in_the_modern_era() -> None:
    body = relayed(as_received({"resultType": "input_required", "inputRequests": {}}))
    assert said(answers.Answer(200, body))["result"]["resultType"] == "input_required"


def test_the_legacy_era_is_spared_what_only_the_modern_one_knows() -> None:
    parts = {"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    assert json.loads(relayed(as_received(parts), "legacy"))["result"] == {"tools": []}


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("spelled", ["io.mcp-gateway/refusal", "io.mcp-gateway\\u002frefusal", "io.mcp-gateway/new"])
def test_a_backend_cannot_speak_as_the_gateway(era: Era, spelled: str) -> None:
    text = f'{{"content":[],"_meta":{{"{spelled}":{{"code":"ok"}},"{revisions.SERVER_INFO}":1,"a.example/k":2}}}}'
    meta = json.loads(relayed(strict_json.members(text.encode()), era))["result"]["_meta"]
    assert meta.pop("a.example/k") == 2
    assert set(meta) == ({revisions.SERVER_INFO} if era == "modern" else set())
    assert meta.get(revisions.SERVER_INFO) != 1


@pytest.mark.parametrize("meta", [None, 5, "x", [1], [["io.mcp-gateway/refusal", 1]]])
def test_a_meta_that_is_no_object_is_left_out(meta: Any) -> None:
    got = json.loads(relayed(as_received({"content": [], "_meta": meta}), "legacy"))["result"]
    assert got == {"content": []}


@pytest.mark.parametrize("number", [1, "1", 0, -5, "", "é", 2**53, 2**70])
def test_the_answer_has_the_id_of_the_request_with_its_type(number: Any) -> None:
    answer = answers.Answer(200, answers.result(number, "modern", {}, SERVER_INFO))
    assert said(answer)["id"] == number
    assert type(said(answer)["id"]) is type(number)


# What backends answer


def test_an_error_of_a_backend_is_passed_on_whole_under_the_clients_id() -> None:
    error = {"code": -32055, "message": "no", "data": {"a": None}, "later": 1}
    answer = answers.backend_answer(request(id="mine"), BackendReply(None, error, 0.1), SERVER_INFO)
    assert (answer.status, said(answer)) == (200, {"jsonrpc": "2.0", "id": "mine", "error": error})


def test_an_error_result_of_a_backend_is_a_result_at_200() -> None:
    reply = BackendReply({"content": [], "isError": True, "structuredContent": {"a": 1}}, None, 0.1)
    answer = answers.backend_answer(request(era="legacy", revision="2025-11-25"), reply, SERVER_INFO)
    assert answer.status == 200
    assert said(answer)["result"] == {"content": [], "isError": True, "structuredContent": {"a": 1}}


# Refusals: the table of how the gateway says no

INSUFFICIENT = InsufficientScope(
    "This call needs the scopes a, b; the token lacks b.", needed=frozenset("ab"), missing=frozenset("b"), rule="r"
)
RATE_LIMITED = RateLimited("Wait 1.234 seconds.", limit_name=LIMIT.name, retry_after=1.2335, rule=LIMIT.name)
OPEN = BackendUnavailable("The deploy backend is away.", dispatched=False, retry_after=2.0)
BROKEN = BackendUnavailable("The deploy backend broke off.", dispatched=True)
LATE = BackendTimeout("The deploy backend did not answer.", dispatched=True)
LATE_IDEMPOTENT = BackendTimeout("The deploy backend did not answer.", dispatched=True, retryable=True)
BUSY = BackendBusy("The deploy backend is full.", dispatched=False, retry_after=0.2)
ARGUMENTS = InvalidArguments("No.", violations=[{"path": "arguments.a", "problem": "p"}])

TOOL = "tool result"

# refusal, then for a modern tools/call, a modern other method, the same two in a legacy session: a status, and a code
# or that it is a tool result; then outcome, retryable, dispatched, seconds, Retry-After.
TABLE: list[tuple[Refusal, list[tuple[int, Any]], tuple[str, bool, bool, Any, Any]]] = [
    (
        Unauthenticated("Send a token.", token_presented=False),
        [(401, 401)] * 4,
        ("unauthenticated", False, False, None, None),
    ),
    (INSUFFICIENT, [(403, 403)] * 4, ("insufficient_scope", False, False, None, None)),
    (UnknownTool("There is none."), [(200, -32602)] * 4, ("unknown_tool", False, False, None, None)),
    (
        RATE_LIMITED,
        [(200, TOOL), (429, 429), (200, TOOL), (200, 429)],
        ("rate_limited", True, False, 1.234, "2"),
    ),
    (
        ARGUMENTS,
        [(200, TOOL), (200, -32602), (200, TOOL), (200, -32602)],
        ("invalid_arguments", False, False, None, None),
    ),
    (
        OPEN,
        [(200, TOOL), (200, INTERNAL_ERROR), (200, TOOL), (200, INTERNAL_ERROR)],
        ("backend_unavailable", True, False, 2, "2"),
    ),
    (
        BROKEN,
        [(200, TOOL), (200, INTERNAL_ERROR), (200, TOOL), (200, INTERNAL_ERROR)],
        ("backend_unavailable", False, True, None, None),
    ),
    (
        LATE,
        [(200, TOOL), (200, INTERNAL_ERROR), (200, TOOL), (200, INTERNAL_ERROR)],
        ("backend_timeout", False, True, None, None),
    ),
    (
        LATE_IDEMPOTENT,
        [(200, TOOL), (200, INTERNAL_ERROR), (200, TOOL), (200, INTERNAL_ERROR)],
        ("backend_timeout", True, True, None, None),
    ),
    (
        BUSY,
        [(200, TOOL), (200, INTERNAL_ERROR), (200, TOOL), (200, INTERNAL_ERROR)],
        ("backend_busy", True, False, 0.2, "1"),
    ),
    (
        ClientSilent("The client did not answer."),
        [(200, TOOL), (200, INTERNAL_ERROR), (200, TOOL), (200, INTERNAL_ERROR)],
        ("client_silent", False, True, None, None),
    ),
    (
        Quarantined("Its definition changed."),
        [(200, TOOL), (200, INTERNAL_ERROR), (200, TOOL), (200, INTERNAL_ERROR)],
        ("quarantined", False, False, None, None),
    ),
    (
        Overloaded("Draining; call again in 5 seconds.", retry_after=5),
        [(503, 503)] * 4,
        ("overloaded", True, False, 5, "5"),
    ),
]
READERS = [("modern", True), ("modern", False), ("legacy", True), ("legacy", False)]
ROWS = [
    pytest.param(refusal, *reader, *cell, facts, id=f"{type(refusal).__name__}-{reader[0]}-{reader[1]}-{facts[2]}")
    for refusal, cells, facts in TABLE
    for reader, cell in zip(READERS, cells, strict=True)
]


def refused(refusal: Refusal, era: Era = "modern", *, tool_call: bool = True, **more: Any) -> answers.Answer:
    options: dict[str, Any] = {"request_id": 1, "limits": (LIMIT,), "in_session": era == "legacy", **more}
    return answers.refused(refusal, era=era, tool_call=tool_call, server_info=SERVER_INFO, **options)


@pytest.mark.parametrize(("refusal", "era", "tool_call", "status", "code", "facts"), ROWS)
def test_each_refusal_is_said_as_the_table_says(
    refusal: Refusal, era: Era, tool_call: bool, status: int, code: Any, facts: tuple[str, bool, bool, Any, Any]
) -> None:
    answer = refused(refusal, era, tool_call=tool_call)
    message = said(answer)
    assert (answer.status, message["id"]) == (status, 1)
    if code == TOOL:
        result = message["result"]
        assert result["isError"] is True
        assert "structuredContent" not in result
        (block,) = result["content"]
        assert block["type"] == "text"
        fields = json.loads(block["text"])
        assert result["_meta"][revisions.REFUSAL] == fields
        assert result.get("resultType") == ("complete" if era == "modern" else None)
        assert (revisions.SERVER_INFO in result["_meta"]) is (era == "modern")
    else:
        assert message["error"]["code"] == code
        assert refusal.message in message["error"]["message"]
        fields = message["error"]["data"]
    outcome, retryable, dispatched, seconds, header = facts
    assert fields["code"] == outcome
    assert fields["error"] == refusal.message
    assert fields["hint"] == refusal.hint
    assert (fields["retryable"], fields["dispatched"]) == (retryable, dispatched)
    assert fields.get("retry_after_seconds") == seconds
    assert dict(answer.headers).get("retry-after") == header


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (RATE_LIMITED, 429, 429),
        (OPEN, 503, INTERNAL_ERROR),
        (BUSY, 503, INTERNAL_ERROR),
        (Quarantined("Its definition changed."), 503, INTERNAL_ERROR),
    ],
)
def test_with_refusals_over_http_what_was_not_dispatched_is_a_status(
    refusal: Refusal, status: int, code: int, era: Era
) -> None:
    answer = refused(refusal, era, over_http=True, in_session=False)
    assert answer.status == status
    error = said(answer)["error"]
    assert (error["code"], error["data"]["code"], error["data"]["dispatched"]) == (code, refusal.outcome, False)
    assert (dict(answer.headers).get("retry-after") is None) is (refusal.retry_after is None)


@pytest.mark.parametrize("refusal", [BROKEN, LATE, ClientSilent("Silence.")])
@pytest.mark.parametrize("tool_call", [True, False])
@pytest.mark.parametrize("over_http", [True, False])
def test_what_was_dispatched_is_never_an_error_status(refusal: Refusal, tool_call: bool, over_http: bool) -> None:
    answer = refused(refusal, tool_call=tool_call, over_http=over_http)
    assert answer.status == 200
    assert b'"dispatched":true' in answer.body.replace(b"\\", b"")


def test_invalid_arguments_stay_a_tool_result_with_refusals_over_http() -> None:
    result = said(refused(ARGUMENTS, over_http=True))["result"]
    assert json.loads(result["content"][0]["text"])["violations"] == [{"path": "arguments.a", "problem": "p"}]


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_all_scopes_stand_in_the_message_and_in_data(era: Era) -> None:
    error = said(refused(INSUFFICIENT, era))["error"]
    assert "a, b" in error["message"]
    assert error["data"]["scopes_needed"] == ["a", "b"]
    assert error["data"]["scopes_missing"] == ["b"]


@pytest.mark.parametrize(
    ("refusal", "modern", "legacy"),
    [
        (UnknownMethod("None."), (404, -32601), (200, -32601)),
        (InvalidRequest("No."), (400, -32600), (200, -32600)),
        (InvalidRequest("No.", code=-32020), (400, -32020), (200, -32020)),
        (InvalidRequest("No.", code=-32602, status=200), (200, -32602), (200, -32602)),
        (InvalidRequest("No.", status=404), (404, -32600), (404, -32600)),
        (InvalidRequest("No.", status=413), (413, -32600), (413, -32600)),
    ],
)
def test_in_a_session_only_the_statuses_that_are_demanded_are_used(
    refusal: Refusal, modern: tuple[int, int], legacy: tuple[int, int]
) -> None:
    for era, expected in (("modern", modern), ("legacy", legacy)):
        answer = refused(refusal, era, tool_call=False)
        assert (answer.status, said(answer)["error"]["code"]) == expected
        assert said(answer)["error"]["data"]["dispatched"] is False


def test_outside_a_session_a_legacy_request_gets_its_status() -> None:
    assert refused(InvalidRequest("No session."), "legacy", in_session=False).status == 400


def test_a_version_that_is_not_served_says_which_are() -> None:
    data = {"supported": ["2026-07-28"], "requested": "x"}
    error = said(refused(InvalidRequest("No.", code=-32022, data=data)))["error"]
    assert error["data"].items() >= data.items()


@pytest.mark.parametrize("refusal", [Unauthenticated("No.", token_presented=False), InvalidRequest("No."), OPEN])
def test_where_no_id_was_read_the_error_has_the_id_null(refusal: Refusal) -> None:
    message = said(refused(refusal, request_id=None))
    assert message["id"] is None
    assert "error" in message


# Seconds


@given(st.floats(0.0005, 1e6))
def test_the_seconds_are_exact_to_the_millisecond_and_never_too_short(seconds: float) -> None:
    refusal = RateLimited("Wait.", limit_name="l", retry_after=seconds, rule="l")
    exact = answers.facts(refusal)["retry_after_seconds"]
    assert seconds - 1e-6 <= exact <= seconds + 0.001001
    ((_, header),) = answers.retry_headers(refusal)
    assert int(header) == max(1, math.ceil(seconds))


def test_the_rate_limit_headers_are_of_the_limit_that_refused() -> None:
    other = Limit("everyone", ("principal",), 600, 60.0, 60)
    assert answers.retry_headers(RATE_LIMITED, (other, LIMIT)) == (
        ("retry-after", "2"),
        ("ratelimit-policy", '"routes.deploy.limits[0]";q=5;w=60'),
        ("ratelimit", '"routes.deploy.limits[0]";r=0;t=2'),
    )


def test_no_seconds_no_header() -> None:
    assert answers.retry_headers(Overloaded("Later.")) == ()


# Failures


@pytest.mark.parametrize(("dispatched", "status"), [(False, 500), (True, 200)])
def test_an_internal_error_has_the_requests_id_and_nothing_else(dispatched: bool, status: int) -> None:
    answer = answers.internal_error(3, "req-9", dispatched=dispatched)
    assert answer.status == status
    assert said(answer) == {
        "jsonrpc": "2.0",
        "id": 3,
        "error": {
            "code": INTERNAL_ERROR,
            "message": "Internal error; report request req-9.",
            "data": {"dispatched": dispatched},
        },
    }
