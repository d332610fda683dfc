"""The path of one message: one order, one record for every way out, and no way out that is not one of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import (
    BackendBusy,
    BackendTimeout,
    BackendUnavailable,
    Forbidden,
    InvalidRequest,
    IssuerUnavailable,
    Overloaded,
    Quarantined,
    RateLimited,
    Refusal,
)
from gateway.pipeline import MAX_BATCH
from gateway.ports import Span
from gateway.protocol import revisions

from .fakes import (
    AUTH,
    HIDDEN_HOST,
    LEGACY,
    MODERN,
    ROUTES,
    Core,
    FakeBackend,
    FakeChannel,
    failing,
    inbound,
    legacy,
    modern,
    outcome_of,
    refusal_of,
    refusing,
    said,
)

ROLLBACK = {"name": "deploy__rollback", "arguments": {"service": "api"}}
SEARCH = {"name": "logs__search", "arguments": {}}
SECRET = "s3cr3t-c4n4ry"
ERAS = ["modern", "legacy"]
BATCHES = "2025-03-26"


def nothing() -> None:
    """There is no stream to come back to."""


async def post(core: Core, era: str, method: str = "tools/call", **options: Any) -> Any:
    options.setdefault("params", ROLLBACK)
    return await (core.modern if era == "modern" else core.legacy)(method, **options)


# Executed means recorded


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", ROLLBACK),
        ("prompts/get", {"name": "deploy__plan"}),
        ("resources/read", {"uri": "deploy://state"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "deploy__plan"}}),
    ],
)
async def test_the_intent_is_recorded_before_the_backend_is_reached_and_the_outcome_after(
    era: str, method: str, params: dict[str, Any]
) -> None:
    core = Core()
    channel = FakeChannel()
    assert (await post(core, era, method, params=params, channel=channel)).status == 200
    assert core.audit.order == ["intent", "backend", "end"]
    (intent,) = core.audit.intents
    assert (intent.dispatched, intent.method, intent.route) == (False, method, "deploy")
    event = core.audit.only
    assert (event.request_id, event.intended) == (intent.request_id, True)
    assert outcome_of(core) == ("ok", 200, True)
    assert channel.left == 1


@pytest.mark.parametrize("era", ERAS)
async def test_what_cannot_be_recorded_is_not_executed(era: str) -> None:
    core = Core()
    core.audit.broken = True
    channel = FakeChannel()
    answer = await post(core, era, channel=channel)
    assert answer.status == 503
    assert dict(answer.headers)["retry-after"] == "1"
    assert said(answer)["error"]["data"]["dispatched"] is False
    assert core.requests == []
    assert channel.left == 0
    assert outcome_of(core) == ("overloaded", 503, False)


async def test_an_executed_call_is_recorded_whole() -> None:
    core = Core(
        text=AUTH
        + ROUTES.replace("    scopes: [deploy:read]", "    scopes: [deploy:read]\n    redact: [arguments.service]")
    )
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    await core.modern("tools/call", params=ROLLBACK, meta={"traceparent": parent}, token="ada")
    event = core.audit.only
    assert (event.client_address, event.era, event.revision) == ("192.0.2.7", "modern", MODERN)
    assert (event.method, event.tool, event.route, event.backend_tool) == (
        "tools/call",
        "deploy__rollback",
        "deploy",
        "rollback",
    )
    assert event.principal == core.who["ada"]
    assert event.scopes_needed == {"deploy:write", "deploy:admin"}
    assert event.rule == "routes.deploy.tools.rollback.scopes"
    assert event.arguments == {"service": "api"}
    assert event.redact == ("arguments.service",)
    assert event.trace_id == "a" * 32
    assert event.backend_ms == 250.0
    assert event.duration_ms is not None
    assert event.duration_ms > 0
    assert core.meter.requests == [("tools/call", "deploy", "deploy__rollback", "ok", "modern")]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_hangs_up_in_mid_call_leaves_an_aborted_record(era: str) -> None:
    core = Core()
    backend = core.backends["deploy"]
    backend.hold = asyncio.Event()
    task = asyncio.ensure_future(post(core, era))
    await backend.until_reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.cancelled
    assert core.audit.order == ["intent", "backend", "end"]
    assert outcome_of(core) == ("aborted", None, True)
    assert core.meter.requests[0][3] == "aborted"


async def test_a_client_that_hangs_up_while_the_intent_is_written_executes_nothing() -> None:
    core = Core()
    core.audit.gate = asyncio.Event()
    task = asyncio.ensure_future(post(core, "modern"))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert core.requests == []
    assert outcome_of(core) == ("aborted", None, False)


# What a call holds


PLACES = AUTH + "limits: [{name: places, per: principal, concurrency: 1}]" + ROUTES


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_holds_its_places_from_the_decision_until_it_has_ended(era: str) -> None:
    core = Core(text=PLACES)
    backend = core.backends["deploy"]
    backend.hold = asyncio.Event()
    task = asyncio.ensure_future(post(core, era))
    await backend.until_reached()
    assert core.limits.running == 1
    backend.hold.set()
    await task
    assert core.limits.running == 0


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        (ROLLBACK, {"content": [], "isError": True}),
        (ROLLBACK, BackendUnavailable("No.", dispatched=False)),
        (ROLLBACK, RuntimeError("a bug")),
        ({"name": "deploy__rollback", "arguments": {}}, {}),
    ],
)
async def test_a_call_gives_its_places_back_however_it_ends(params: Mapping[str, Any], answer: Any) -> None:
    core = Core(text=PLACES)
    core.backends["deploy"].answers = [answer]
    await post(core, "modern", params=params)
    assert (len(core.limits.taken), core.limits.running) == (1, 0)


@pytest.mark.parametrize("gate", [False, True])
async def test_a_client_that_hangs_up_gives_its_places_back(*, gate: bool) -> None:
    core = Core(text=PLACES)
    if gate:
        core.audit.gate = asyncio.Event()
    core.backends["deploy"].hold = asyncio.Event()
    task = asyncio.ensure_future(post(core, "modern"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert core.limits.running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert core.limits.running == 0


async def test_each_call_of_a_batch_gives_its_places_back_before_the_next() -> None:
    core = Core(text=PLACES)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ROLLBACK}
    headers = {"mcp-session-id": core.session(revision=BATCHES)}
    await core.pipeline.post(inbound([call, {**call, "id": 2}], headers=headers), FakeChannel())
    assert (len(core.limits.taken), core.limits.running) == (2, 0)


async def test_a_limit_that_only_watches_is_noted_beside_the_rule() -> None:
    trial = "limits: [{name: trial, per: principal, limit: 1, window: 1s, enforce: false}]"
    core = Core(text=AUTH + trial + ROUTES)
    await post(core, "modern")
    assert core.audit.only.outcome == "ok"
    assert core.audit.only.rule == "routes.deploy.tools.rollback.scopes (not enforced: limits.trial)"
    assert core.audit.intents[0].rule == core.audit.only.rule


# An address that fails too often


async def refused_by_flood(core: Core, token: str | None) -> None:
    answer = await post(core, "modern", token=token)
    assert answer.status == 429
    assert int(dict(answer.headers)["retry-after"]) >= 1
    error = said(answer)["error"]
    assert (error["code"], error["data"]["retryable"], error["data"]["dispatched"]) == (429, True, False)
    assert "Too many requests from this address" in error["message"]


async def test_an_address_that_failed_too_often_is_refused_unjudged_and_heard_with_a_known_token() -> None:
    core = Core(failures_per_minute=60)
    for _ in range(10):
        assert (await post(core, "modern", token="forged")).status == 401
    await refused_by_flood(core, "forged")
    await refused_by_flood(core, "ada")  # good, but new: it would have to be judged
    core.remembered = [(b"Bearer ada",)]
    assert (await post(core, "modern", token="ada")).status == 200
    core.clock.now += 1
    core.remembered = []
    assert (await post(core, "modern", token="ada")).status == 200


async def test_good_tokens_are_no_failures() -> None:
    core = Core(failures_per_minute=6)
    for _ in range(20):
        assert (await post(core, "modern")).status == 200


async def test_a_flood_without_tokens_does_not_stop_a_new_token() -> None:
    core = Core(failures_per_minute=6)
    assert (await post(core, "modern", token=None)).status == 401
    await refused_by_flood(core, None)
    assert (await post(core, "modern", token="ada")).status == 200


async def test_of_a_flood_one_refusal_a_second_is_recorded_and_every_one_is_counted() -> None:
    core = Core(failures_per_minute=6)
    await post(core, "modern", token="forged")
    for _ in range(5):
        await post(core, "modern", token="forged")
    core.clock.now += 1
    await post(core, "modern", token="forged")
    rules = [event.rule for event in core.audit.ends if event.outcome == "rate_limited"]
    assert rules == ["GATEWAY_AUTH_FAILURES_PER_MINUTE", "GATEWAY_AUTH_FAILURES_PER_MINUTE (4 before this one)"]
    assert [outcome for _, _, _, outcome, _ in core.meter.requests].count("rate_limited") == 6


# Refusals: how each is said, by era and method, and its one record

RATE = RateLimited("Wait 1.5 seconds.", limit_name="limits.everyone", retry_after=1.5, rule="limits.everyone")
TOOL = "tool result"
PIPELINE_TABLE: list[tuple[Refusal, tuple[int, Any], tuple[int, Any], str | None]] = [
    (RATE, (200, TOOL), (200, TOOL), "2"),
    (
        BackendUnavailable("The deploy backend is away.", dispatched=False, retry_after=3.0),
        (200, TOOL),
        (200, TOOL),
        "3",
    ),
    (BackendBusy("The deploy backend is full.", dispatched=False), (200, TOOL), (200, TOOL), None),
    (Quarantined("Its definition changed.", rule="tools.lock"), (200, TOOL), (200, TOOL), None),
    (Overloaded("Draining.", retry_after=5), (503, 503), (503, 503), "5"),
]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("refusal", "modern_said", "legacy_said", "retry_after"), PIPELINE_TABLE)
async def test_a_refusal_of_a_check_is_said_and_recorded_once_and_nothing_is_executed(
    refusal: Refusal,
    modern_said: tuple[int, Any],
    legacy_said: tuple[int, Any],
    retry_after: str | None,
    era: str,
) -> None:
    core = Core(checks=(refusing(refusal),))
    answer = await post(core, era)
    status, code = modern_said if era == "modern" else legacy_said
    assert answer.status == status
    assert (TOOL if "result" in said(answer) else said(answer)["error"]["code"]) == code
    assert b"structuredContent" not in answer.body
    fields = refusal_of(answer)
    assert (fields["code"], fields["dispatched"]) == (refusal.outcome, False)
    assert dict(answer.headers).get("retry-after") == retry_after
    assert core.requests == []
    assert core.audit.intents == []
    assert outcome_of(core) == (refusal.outcome, status, False)
    assert core.audit.only.rule == (refusal.rule or "routes.deploy.tools.rollback.scopes")
    assert core.meter.requests == [("tools/call", "deploy", "deploy__rollback", refusal.outcome, era)]


@pytest.mark.parametrize(("era", "method", "status"), [("modern", "prompts/get", 429), ("legacy", "prompts/get", 200)])
async def test_a_limit_on_another_method_is_a_429_but_in_a_session(era: str, method: str, status: int) -> None:
    core = Core(checks=(refusing(RATE),))
    answer = await post(core, era, method, params={"name": "deploy__plan"})
    assert (answer.status, said(answer)["error"]["code"]) == (status, 429)
    assert "1.5 seconds" in said(answer)["error"]["message"]
    assert said(answer)["error"]["data"]["retry_after_seconds"] == 1.5
    assert dict(answer.headers)["retry-after"] == "2"


LIMITED = AUTH + "limits: [{name: everyone, per: principal, limit: 5, window: 60s}]\n" + ROUTES


@pytest.mark.parametrize("era", ERAS)
async def test_a_limit_says_the_exact_seconds_and_its_headers(era: str) -> None:
    core = Core(text=LIMITED)
    core.limits.wait = 12.3451
    answer = await post(core, era)
    fields = refusal_of(answer)
    assert fields["retry_after_seconds"] == 12.346
    assert "12.346" in fields["error"]
    assert dict(answer.headers) == {
        "retry-after": "13",
        "ratelimit-policy": '"limits.everyone";q=5;w=60',
        "ratelimit": '"limits.everyone";r=0;t=13',
    }
    assert core.audit.only.rule == "limits.everyone"


@pytest.mark.parametrize("era", ERAS)
async def test_arguments_that_do_not_fit_are_told_to_the_agent_without_their_values(era: str) -> None:
    core = Core()
    params = {"name": "deploy__rollback", "arguments": {"service": 5, "steps": SECRET}}
    answer = await post(core, era, params=params)
    fields = refusal_of(answer)
    assert (answer.status, fields["code"], fields["retryable"]) == (200, "invalid_arguments", False)
    assert {item["path"] for item in fields["violations"]} == {"arguments.service", "arguments.steps"}
    assert SECRET.encode() not in answer.body
    assert core.requests == []


async def test_the_checks_come_in_their_order_and_the_first_no_ends_it() -> None:
    core = Core(text=LIMITED)
    core.limits.wait = 5.0
    bad = {"name": "deploy__rollback", "arguments": {}}
    assert (await post(core, "modern", params=bad, token="bob")).status == 403
    assert core.limits.taken == []
    assert refusal_of(await post(core, "modern", params=bad))["code"] == "rate_limited"
    core.limits.wait = None
    assert refusal_of(await post(core, "modern", params=bad))["code"] == "invalid_arguments"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("failure", "outcome", "dispatched", "retryable"),
    [
        (BackendUnavailable("Away.", dispatched=False), "backend_unavailable", False, True),
        (BackendUnavailable("Broke off.", dispatched=True), "backend_unavailable", True, False),
        (BackendTimeout("Too late.", dispatched=True), "backend_timeout", True, False),
        (BackendBusy("Full.", dispatched=False), "backend_busy", False, True),
    ],
)
async def test_a_failing_backend_is_said_with_what_is_known_of_the_call(
    failure: Refusal, outcome: str, dispatched: bool, retryable: bool, era: str
) -> None:
    core = Core()
    core.backends["deploy"] = FakeBackend(failure)
    core.reload()
    answer = await post(core, era)
    fields = refusal_of(answer)
    assert answer.status == 200
    assert (fields["code"], fields["dispatched"], fields["retryable"]) == (outcome, dispatched, retryable)
    assert outcome_of(core) == (outcome, 200, dispatched)
    prompt = await post(core, era, "prompts/get", params={"name": "deploy__plan"})
    assert (prompt.status, said(prompt)["error"]["code"]) == (200, -32603)


@pytest.mark.parametrize("era", ERAS)
async def test_with_refusals_over_http_a_limit_is_a_429_and_an_open_breaker_a_503(era: str) -> None:
    core = Core(text="refusals: http\n" + LIMITED)
    core.limits.wait = 5.0
    limited = await post(core, era)
    core.limits.wait = None
    core.backends["deploy"] = FakeBackend(BackendUnavailable("Away.", dispatched=False, retry_after=3))
    core.reload()
    away = await post(core, era)
    core.backends["deploy"].answers = [BackendTimeout("Too late.", dispatched=True)]
    late = await post(core, era)
    assert (away.status, late.status) == (503, 200)
    assert limited.status == 429
    for answer, code in ((limited, 429), (away, -32603)):
        assert said(answer)["error"]["code"] == code
        assert "retry-after" in dict(answer.headers)


# Authentication


@pytest.mark.parametrize(("token", "error"), [(None, False), ("unknown", True)])
async def test_without_a_good_token_it_is_a_401_with_a_challenge_and_a_json_rpc_body(
    token: str | None, error: bool
) -> None:
    core = Core()
    answer = await core.modern("tools/call", params=ROLLBACK, token=token)
    header = dict(answer.headers)["www-authenticate"]
    assert answer.status == 401
    assert header.startswith("Bearer ")
    assert 'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"' in header
    assert 'scope="deploy:read"' in header
    assert ("error=" in header) is error
    message = said(answer)
    assert (message["id"], message["error"]["code"]) == (None, 401)
    assert outcome_of(core) == ("unauthenticated", 401, False)
    assert core.audit.only.principal is None


async def test_the_body_is_not_read_before_the_token_was_accepted() -> None:
    core = Core()

    async def read() -> bytes:
        raise AssertionError

    arrived = modern("ping", token=None)
    unread = type(arrived)(
        arrived.request_id, arrived.client_address, None, arrived.headers, arrived.repeated, (), read
    )
    assert (await core.pipeline.post(unread, FakeChannel())).status == 401
    assert core.failures == []


@pytest.mark.parametrize(
    ("audience", "toolset", "status"),
    [
        (None, None, 200),
        (None, "oncall", 200),
        ({"oncall"}, "oncall", 200),
        ({"oncall"}, "plain", 401),
        ({"oncall"}, None, 401),
        (set(), None, 401),
    ],
)
async def test_a_token_for_a_toolset_is_good_there_only(
    audience: set[str] | None, toolset: str | None, status: int
) -> None:
    core = Core()
    core.who["ada"] = replace(core.who["ada"], toolsets=None if audience is None else frozenset(audience))
    assert (await core.modern("tools/list", toolset=toolset)).status == status


async def test_keys_that_were_never_had_are_a_503() -> None:
    core = Core()

    async def away(_: Any) -> Any:
        raise IssuerUnavailable("The keys are not available.", retry_after=7.0)

    core.present = replace(core.present, authenticate=away)
    answer = await core.modern("tools/list")
    assert (answer.status, dict(answer.headers)["retry-after"]) == (503, "7")
    assert outcome_of(core) == ("unauthenticated", 503, False)


# What is no message


@pytest.mark.parametrize(
    ("body", "status", "code", "number"),
    [
        (b"", 400, -32700, None),
        (b"{", 400, -32700, None),
        (b"\xff", 400, -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', 400, -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":1e999}}', 400, -32700, None),
        (b"[" * 100 + b"]" * 100, 400, -32600, None),
        (b"5", 400, -32600, None),
        (b"[]", 400, -32600, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, -32600, None),
        (b'{"id":3,"method":"ping"}', 400, -32600, 3),
        (b'{"jsonrpc":"2.0","id":3}', 400, -32600, 3),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600, None),
        (b'{"jsonrpc":"2.0","id":3,"method":"ping","params":[]}', 400, -32602, 3),
        (b'{"jsonrpc":"2.0","id":"a","method":"ping","Method":"x"}', 400, -32600, "a"),
        (b'{"jsonrpc":"2.0","id":3,"method":"tools/list"}', 400, -32600, 3),
    ],
)
async def test_what_is_no_request_is_a_400_with_the_id_that_could_be_read(
    body: bytes, status: int, code: int, number: Any
) -> None:
    core = Core()
    answer = await core.pipeline.post(inbound(body), FakeChannel())
    message = said(answer)
    assert (answer.status, message["error"]["code"], message["id"]) == (status, code, number)
    assert message["error"]["data"]["dispatched"] is False
    assert outcome_of(core) == ("invalid_request", status, False)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"mcp-method": "tools/list"}, -32020),
        ({"mcp-name": "other"}, -32020),
        ({"mcp-protocol-version": LEGACY}, -32020),
    ],
)
async def test_a_modern_request_whose_headers_say_something_else_is_refused(headers: dict[str, str], code: int) -> None:
    core = Core()
    answer = await core.modern("tools/call", params=ROLLBACK, headers=headers)
    assert (answer.status, said(answer)["error"]["code"]) == (400, code)
    assert core.requests == []


async def test_a_version_that_is_not_served_is_answered_with_those_that_are() -> None:
    core = Core()
    meta = {revisions.PROTOCOL_VERSION: "2030-01-01"}
    answer = await core.modern("tools/list", meta=meta, headers={"mcp-protocol-version": "2030-01-01"})
    error = said(answer)["error"]
    assert (answer.status, error["code"]) == (400, -32022)
    assert error["data"]["supported"] == [MODERN]
    assert error["data"]["requested"] == "2030-01-01"


async def test_a_routing_header_that_comes_twice_is_refused() -> None:
    core = Core()
    answer = await core.modern("tools/call", params=ROLLBACK, repeated=["mcp-name"])
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize("refusal", [Forbidden("No."), InvalidRequest("No.", status=405)])
async def test_what_a_guard_refused_is_recorded_and_said_like_the_rest(refusal: Refusal) -> None:
    core = Core()
    answer = await core.pipeline.refuse(modern("tools/list"), refusal)
    assert answer.status == refusal.status
    assert said(answer)["id"] is None
    assert outcome_of(core) == ("invalid_request", refusal.status, False)


def test_what_was_no_request_at_all_is_recorded_too() -> None:
    core = Core()
    core.pipeline.unreadable("192.0.2.9", 431, "header_too_large")
    event = core.audit.only
    assert (event.client_address, event.http_status, event.outcome, event.rule) == (
        "192.0.2.9",
        431,
        "invalid_request",
        "header_too_large",
    )
    assert core.meter.requests == [("other", "", "", "invalid_request", "")]


async def test_of_a_flood_of_what_is_no_request_one_a_second_is_recorded_and_every_one_is_said_and_counted() -> None:
    core = Core(failures_per_minute=6)
    refusal = InvalidRequest("No.", status=405, rule="guard.method")
    for _ in range(3):
        assert (await core.pipeline.refuse(modern("tools/list"), refusal)).status == 405
        core.pipeline.unreadable(modern("tools/list").client_address, 400, "no http")
    core.clock.now += 1
    core.pipeline.unreadable(modern("tools/list").client_address, 400, "no http")
    core.pipeline.unreadable("198.51.100.7", 400, "no http")
    recorded = [(event.http_status, event.rule) for event in core.audit.ends]
    assert recorded == [(405, "guard.method"), (400, "no http"), (400, "no http (4 before this one)"), (400, "no http")]
    assert len(core.meter.requests) == 8
    assert (await post(core, "modern", token="ada")).status == 200


async def test_what_a_flood_left_unrecorded_is_counted_beside_the_rule() -> None:
    core = Core(failures_per_minute=6)
    for _ in range(4):
        await core.pipeline.refuse(modern("tools/list"), InvalidRequest("No.", status=405, rule="guard.method"))
    core.clock.now += 1
    await core.pipeline.refuse(modern("tools/list"), InvalidRequest("No.", status=405, rule="guard.method"))
    assert [event.rule for event in core.audit.ends] == [
        "guard.method",
        "guard.method",
        "guard.method (2 before this one)",
    ]


async def test_a_flood_of_what_is_no_request_delays_nobody_after_its_end() -> None:
    core = Core(failures_per_minute=6)
    for _ in range(1_000):
        await core.pipeline.refuse(modern("tools/list"), InvalidRequest("No.", status=405))
    core.clock.now += 10
    assert (await post(core, "modern", token=None)).status == 401


async def test_what_is_refused_of_a_known_principal_is_always_recorded() -> None:
    core = Core(failures_per_minute=6)
    for _ in range(3):
        await core.pipeline.refuse(modern("tools/list"), Forbidden("No."), admitted=True)
    assert len(core.audit.ends) == 3


# Sessions


async def initialized(core: Core, **params: Any) -> tuple[Any, str]:
    body = {"protocolVersion": LEGACY, "capabilities": {"roots": {}}, "clientInfo": {"name": "c", "version": "1"}}
    answer = await core.pipeline.post(legacy("initialize", {**body, **params}, session=None), FakeChannel())
    return said(answer), dict(answer.headers).get("mcp-session-id", "")


async def test_initialize_opens_a_session_that_the_next_request_is_in() -> None:
    core = Core()
    message, session = await initialized(core)
    assert message["result"]["protocolVersion"] == LEGACY
    assert set(message["result"]["capabilities"]) == {"tools", "prompts", "resources", "completions", "logging"}
    assert (await core.legacy("tools/list", session=session)).status == 200
    assert [(event.method, event.era, event.revision, event.outcome) for event in core.audit.ends] == [
        ("initialize", "legacy", LEGACY, "ok"),
        ("tools/list", "legacy", LEGACY, "ok"),
    ]


async def test_an_initialize_that_lacks_its_members_is_refused_and_opens_nothing() -> None:
    message, session = await initialized(Core(), protocolVersion=5)
    assert message["error"]["code"] == -32602
    assert session == ""


@pytest.mark.parametrize(
    ("session", "status"),
    [(None, 400), ("", 404), ("forged", 404), ("other-principal", 404), ("expired", 404), ("ended", 404)],
)
@pytest.mark.parametrize("how", ["post", "stream", "end"])
async def test_only_a_live_session_of_the_same_principal_is_one(session: str | None, status: int, how: str) -> None:
    core = Core()
    ids = {"other-principal": core.session("bob"), "expired": core.session(), "ended": core.session()}
    core.sessions.over.add(ids["ended"])
    if session == "expired":
        core.clock.now += 100_000
    arrived = legacy("tools/list", session=ids.get(session or "", session))
    if how == "post":
        answer = await core.pipeline.post(arrived, FakeChannel())
    else:
        answer = await (core.pipeline.end(arrived) if how == "end" else core.pipeline.stream(arrived, nothing))
    assert answer.status == status
    assert "initialize" in said(answer)["error"]["message"]
    assert outcome_of(core) == ("invalid_request", status, False)
    assert core.hub.told == []


@pytest.mark.parametrize(("version", "status"), [(LEGACY, 200), (BATCHES, 200), ("1999-01-01", 400), (MODERN, 400)])
async def test_a_session_is_spoken_to_in_a_legacy_version(version: str, status: int) -> None:
    answer = await Core().legacy("tools/list", headers={"mcp-protocol-version": version})
    assert answer.status == status


async def test_a_session_ends_for_everybody_who_knows_it() -> None:
    core = Core()
    session = core.session()
    assert (await core.pipeline.end(legacy("x", session=session))).status == 204
    assert (core.hub.told, core.elsewhere.told) == ([("end", session, 0.0)], [("ended", session)])
    assert (await core.legacy("tools/list", session=session)).status == 404
    assert [event.method for event in core.audit.ends] == ["session/end", "tools/list"]


async def test_the_stream_of_a_session_is_opened_until_the_token_ends() -> None:
    core = Core()
    core.who["ada"] = replace(core.who["ada"], expires_at=core.clock.now + 30)
    session = core.session()
    answer = await core.pipeline.stream(legacy("x", session=session), nothing)
    assert answer.status == 200
    assert answer.opens is not None
    assert core.hub.told == [("follow", session, 30.0)]
    assert core.audit.only.method == "session/stream"
    assert core.hub.whose == [core.who["ada"]]


async def test_a_call_that_is_come_back_to_needs_no_stream_of_its_session() -> None:
    core = Core()
    core.hub.full = RateLimited("You may have 1 streams here.", limit_name="x", retry_after=5.0, rule="share.streams")
    resumed = contextlib.nullcontext("the rest")
    answer = await core.pipeline.stream(legacy("x", session=core.session()), lambda: resumed)
    assert answer.opens is resumed
    assert outcome_of(core) == ("ok", 200, False)


@pytest.mark.parametrize("how", ["listen", "stream"])
async def test_who_has_its_share_of_streams_is_refused_once_by_name_and_nothing_is_opened(how: str) -> None:
    core = Core()
    core.hub.full = RateLimited("You may have 1 streams here.", limit_name="x", retry_after=5.0, rule="share.streams")
    if how == "listen":
        answer = await core.modern("subscriptions/listen", params={"notifications": {}})
    else:
        answer = await core.pipeline.stream(legacy("x", session=core.session()), nothing)
    assert (answer.status, answer.opens, dict(answer.headers)["retry-after"]) == (429, None, "5")
    assert said(answer)["error"]["data"]["retry_after_seconds"] == 5
    event = core.audit.only
    assert (event.outcome, event.rule, event.principal) == ("rate_limited", "share.streams", core.who["ada"])


# Notifications and posted answers


async def test_what_a_session_posts_reaches_whom_it_concerns() -> None:
    core = Core()
    session = core.session()
    response = {"jsonrpc": "2.0", "id": "here.1", "result": {"a": 1}}
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
    other = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    for body in (response, cancelled, other):
        answer = await core.pipeline.post(inbound(body, headers={"mcp-session-id": session}), FakeChannel())
        assert (answer.status, answer.body) == (202, b"")
    assert core.conversations.delivered == [(session, response)]
    assert core.conversations.cancelled == [(session, 5)]
    assert [(event.outcome, event.http_status) for event in core.audit.ends] == [("ok", 202)] * 3


async def test_a_modern_notification_is_acknowledged_and_never_acted_on() -> None:
    core = Core()
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
    answer = await core.pipeline.post(inbound(body, headers={"mcp-protocol-version": MODERN}), FakeChannel())
    assert (answer.status, answer.body) == (202, b"")
    assert core.conversations.cancelled == []


async def test_a_response_is_not_posted_in_the_modern_era() -> None:
    core = Core()
    body = {"jsonrpc": "2.0", "id": 1, "result": {}}
    answer = await core.pipeline.post(inbound(body, headers={"mcp-protocol-version": MODERN}), FakeChannel())
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32600)
    assert core.conversations.delivered == []


@pytest.mark.parametrize("method", ["batch", "other", "tools/call", "x" * 500])
async def test_every_notification_is_recorded(method: str) -> None:
    core = Core()
    body = {"jsonrpc": "2.0", "method": method}
    await core.pipeline.post(inbound(body, headers={"mcp-session-id": core.session()}), FakeChannel())
    assert core.audit.only.method == method[:64]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("method", ["batch", "other", "x" * 500, "é\u2028"])
async def test_every_unknown_method_is_recorded_and_counted_as_other(era: str, method: str) -> None:
    core = Core()
    headers = {} if era == "legacy" else {"mcp-method": method}
    await post(core, era, method, params={}, headers=headers)
    assert core.audit.only.method == method[:64]
    assert core.meter.requests == [("other", "", "", "unknown_method", era)]


# Batches


async def batched(core: Core, *messages: Any, revision: str = BATCHES) -> Any:
    headers = {"mcp-session-id": core.session(revision=revision)}
    return await core.pipeline.post(inbound(list(messages), headers=headers), FakeChannel())


def asked(number: Any, method: str = "ping", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def test_a_batch_is_answered_as_one_and_recorded_one_by_one() -> None:
    core = Core()
    answer = await batched(
        core, asked(1), asked(2, "tools/call", **SEARCH), {"jsonrpc": "2.0", "method": "n"}, asked(3, "none")
    )
    assert answer.status == 200
    assert [message["id"] for message in said(answer)] == [1, 2, 3]
    assert [event.outcome for event in core.audit.ends] == ["ok", "ok", "ok", "unknown_method"]
    assert len({event.request_id for event in core.audit.ends}) == 4
    assert len(core.audit.intents) == 1


async def test_a_batch_that_a_client_leaves_says_so_beside_the_part_that_ran() -> None:
    core = Core()
    backend = core.backends["logs"]
    backend.hold = asyncio.Event()
    task = asyncio.ensure_future(batched(core, asked(1), asked(2, "tools/call", **SEARCH), asked(3)))
    await backend.until_reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ends = [(event.method, event.outcome, event.dispatched) for event in core.audit.ends]
    assert ends == [("ping", "ok", False), ("tools/call", "aborted", True), ("batch", "aborted", False)]


async def test_what_was_refused_unread_has_no_method() -> None:
    core = Core()
    await core.pipeline.post(inbound(b"{"), FakeChannel())
    assert core.audit.only.method is None


async def test_one_bad_message_of_a_batch_harms_no_other() -> None:
    core = Core()
    answer = await batched(core, 5, asked(2), asked(3, "initialize"))
    assert [(message["id"], "error" in message) for message in said(answer)] == [(None, True), (2, False), (3, True)]


async def test_a_batch_of_notifications_is_accepted_without_a_body() -> None:
    answer = await batched(Core(), {"jsonrpc": "2.0", "method": "a"}, {"jsonrpc": "2.0", "method": "b"})
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize(("count", "revision"), [(0, BATCHES), (MAX_BATCH + 1, BATCHES), (1, LEGACY)])
async def test_a_batch_that_is_empty_too_long_or_of_another_revision_is_refused_whole(
    count: int, revision: str
) -> None:
    core = Core()
    answer = await batched(core, *(asked(number) for number in range(count)), revision=revision)
    assert (answer.status, said(answer)["id"]) == (400, None)
    assert len(core.audit.ends) == 1


# What nobody expected


@pytest.mark.parametrize("era", ERAS)
async def test_a_failure_before_dispatch_is_a_500_with_the_requests_id_and_nothing_else(era: str) -> None:
    core = Core(checks=(failing(ValueError(SECRET)),))
    answer = await post(core, era)
    assert answer.status == 500
    error = said(answer)["error"]
    assert error == {
        "code": -32603,
        "message": "Internal error; report request req-1.",
        "data": {"dispatched": False},
    }
    assert outcome_of(core) == ("internal_error", 500, False)
    assert [(number, str(failure)) for number, failure in core.failures] == [("req-1", SECRET)]
    assert core.requests == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_failure_after_dispatch_is_a_200_that_says_so(era: str) -> None:
    core = Core()
    core.backends["deploy"] = FakeBackend(RuntimeError(SECRET))
    core.reload()
    answer = await post(core, era)
    assert answer.status == 200
    assert said(answer)["error"]["data"] == {"dispatched": True}
    assert SECRET.encode() not in answer.body
    assert outcome_of(core) == ("internal_error", 200, True)


async def test_a_reload_does_not_change_the_rules_under_a_call() -> None:
    core = Core()
    backend = core.backends["deploy"]
    backend.hold = asyncio.Event()
    task = asyncio.ensure_future(post(core, "modern"))
    await backend.until_reached()
    core.listings = {}
    core.reload()
    backend.hold.set()
    assert "result" in said(await task)
    assert said(await post(core, "modern"))["error"]["code"] == -32602


# Traces


class Traced(Span):
    def __init__(self) -> None:
        self.begun: list[tuple[str, Mapping[str, Any]]] = []
        self.ended: list[str] = []

    def begin(self, name: str, parent: Mapping[str, Any], attributes: Mapping[str, Any]) -> Span:
        self.begun.append((name, attributes))
        return self

    def context(self) -> Mapping[str, str]:
        return {"traceparent": "ours"}

    def end(self, outcome: str, attributes: Mapping[str, Any]) -> None:
        self.ended.append(outcome)


async def test_a_call_is_one_span_whose_context_goes_on_to_the_backend() -> None:
    tracer = Traced()
    core = Core(tracer=tracer)
    await core.modern("tools/call", params=ROLLBACK, meta={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    await core.modern("tools/call", params={"name": "none"})
    assert [name for name, _ in tracer.begun] == ["tools/call deploy__rollback", "tools/call none"]
    assert tracer.ended == ["ok", "unknown_tool"]
    assert core.requests[0].meta["traceparent"] == "ours"


# Anything at all

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
methods = st.sampled_from(
    [
        "ping",
        "initialize",
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "server/discover",
        "subscriptions/listen",
        "logging/setLevel",
        "notifications/cancelled",
        "batch",
        "session/end",
    ]
)
targets = st.sampled_from(
    ["deploy__rollback", "deploy__plan", "logs__search", "deploy://state", "deploy://service/x", "x://1", ""]
)
references = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["ref/prompt", "ref/resource"]), "name": targets, "uri": targets | values}
)
meta_values: dict[str, st.SearchStrategy[Any]] = {
    revisions.PROTOCOL_VERSION: st.just(MODERN) | values,
    revisions.CLIENT_CAPABILITIES: st.just({}) | values,
    revisions.CLIENT_INFO: values,
    "io.modelcontextprotocol/logLevel": st.just("error") | values,
    "progressToken": values,
    "traceparent": values,
}
modern_meta = st.fixed_dictionaries(
    {revisions.PROTOCOL_VERSION: st.just(MODERN), revisions.CLIENT_CAPABILITIES: st.just({})},
    optional={name: value for name, value in meta_values.items() if "Token" in name or "Level" in name},
)
params = st.fixed_dictionaries(
    {},
    optional={
        "name": targets | values,
        "uri": targets | values,
        "arguments": st.fixed_dictionaries({}, optional={"service": texts, "steps": values}) | values,
        "argument": values,
        "ref": references | values,
        "cursor": values,
        "level": values,
        "notifications": values,
        "requestState": values,
        "protocolVersion": st.just(LEGACY) | values,
        "capabilities": values,
        "requestId": values,
        "_meta": modern_meta | st.fixed_dictionaries({}, optional=meta_values) | values,
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0"),
        "id": st.integers() | texts | values,
        "method": methods | values,
        "params": params | values,
        "result": values,
        "error": values,
    },
)
requests = st.builds(
    lambda number, method, of: {"jsonrpc": "2.0", "id": number, "method": method, "params": of},
    st.integers() | texts,
    methods | texts,
    params,
)
bodies = st.binary(max_size=40) | (
    messages | requests | values | st.lists(requests | messages | values, max_size=4)
).map(lambda value: json.dumps(value).encode())
sent_headers = st.fixed_dictionaries(
    {},
    optional={
        "mcp-protocol-version": st.sampled_from([MODERN, LEGACY, BATCHES, "x"]) | texts,
        "mcp-method": methods | texts,
        "mcp-name": targets | texts,
        "mcp-session-id": st.sampled_from(["live", "batches", "bob", "forged"]) | texts,
        "traceparent": texts,
        "mcp-param-region": texts,
    },
)
tokens = st.sampled_from(["ada", "ada", "eve", "nobody", None])


def expected_records(value: Any, headers: Mapping[str, str], token: str | None) -> int:
    """One for every message; a batch that is served is its messages, one that is refused is one."""
    served = (
        headers.get("mcp-session-id") == "batches"
        and token == "ada"
        and headers.get("mcp-protocol-version", LEGACY) in revisions.LEGACY
        and isinstance(value, list)
        and 1 <= len(value) <= MAX_BATCH
    )
    return len(value) if served else 1


async def check_anything(body: bytes, headers: dict[str, str], token: str | None) -> None:
    core = Core()
    session = headers.get("mcp-session-id")
    ids = {"live": core.session(), "batches": core.session(revision=BATCHES), "bob": core.session("bob")}
    value = None
    with contextlib.suppress(ValueError):
        value = json.loads(body)
    records = expected_records(value, headers, token)
    if session is not None:
        headers = {**headers, "mcp-session-id": ids.get(session, session)}
    answer = await core.pipeline.post(inbound(body, headers=headers, token=token), FakeChannel())
    assert core.failures == []
    assert answer.status in (200, 202, 400, 401, 403, 404, 429, 503)
    assert len(core.audit.ends) == records
    assert len(core.audit.order) == len(core.audit.ends) + 2 * len(core.requests)
    assert all(event.outcome != "aborted" for event in core.audit.ends)
    assert sum(event.dispatched for event in core.audit.ends) == len(core.requests) == len(core.audit.intents)
    assert len(core.meter.requests) == records
    assert HIDDEN_HOST.encode() not in answer.body
    if answer.status >= 400:
        assert set(said(answer)) == {"jsonrpc", "id", "error"}
        assert core.requests == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies, sent_headers, tokens)
async def test_whatever_arrives_is_answered_and_recorded_once(
    body: bytes, headers: dict[str, str], token: str | None
) -> None:
    await check_anything(body, headers, token)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(methods, params, st.integers() | texts, st.sampled_from([None, "live"]), tokens)
async def test_whatever_a_well_formed_request_holds_it_is_answered_and_recorded_once(
    method: str, of: dict[str, Any], number: Any, session: str | None, token: str | None
) -> None:
    if session is None:
        of = {**of, "_meta": {revisions.PROTOCOL_VERSION: MODERN, revisions.CLIENT_CAPABILITIES: {}}}
        headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
        target = of.get("uri" if method == "resources/read" else "name")
        if isinstance(target, str) and target.isascii() and target.isprintable():
            headers["mcp-name"] = target
    else:
        of = {name: value for name, value in of.items() if name != "_meta"}
        headers = {"mcp-session-id": session}
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": of}
    await check_anything(json.dumps(body).encode(), headers, token)
