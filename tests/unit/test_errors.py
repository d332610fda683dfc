"""Every way of saying no has its word, its status and its code; none of them claims more than it knows."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import errors
from gateway.errors import (
    AuditUnavailable,
    BackendBusy,
    BackendTimeout,
    BackendUnavailable,
    ClientSilent,
    ConfigError,
    Forbidden,
    InsufficientScope,
    InvalidArguments,
    InvalidRequest,
    IssuerUnavailable,
    Overloaded,
    Problem,
    Quarantined,
    RateLimited,
    Refusal,
    Unauthenticated,
    UnknownMethod,
    UnknownSession,
    UnknownTool,
)

VOCABULARY = {
    "unauthenticated",
    "insufficient_scope",
    "invalid_request",
    "unknown_method",
    "unknown_tool",
    "rate_limited",
    "invalid_arguments",
    "backend_unavailable",
    "backend_timeout",
    "backend_busy",
    "client_silent",
    "quarantined",
    "overloaded",
}


def kinds(of: type[Refusal] = Refusal) -> set[type[Refusal]]:
    return {kind for direct in of.__subclasses__() for kind in {direct, *kinds(direct)}}


@pytest.mark.parametrize(
    ("kind", "outcome", "status", "code", "as_tool_result"),
    [
        (Unauthenticated, "unauthenticated", 401, 401, False),
        (IssuerUnavailable, "unauthenticated", 503, 503, False),
        (InsufficientScope, "insufficient_scope", 403, 403, False),
        (Forbidden, "invalid_request", 403, 403, False),
        (InvalidRequest, "invalid_request", 400, -32600, False),
        (UnknownMethod, "unknown_method", 404, -32601, False),
        (UnknownTool, "unknown_tool", 200, -32602, False),
        (RateLimited, "rate_limited", 429, 429, True),
        (InvalidArguments, "invalid_arguments", 200, -32602, True),
        (BackendUnavailable, "backend_unavailable", 503, -32603, True),
        (BackendTimeout, "backend_timeout", 503, -32603, True),
        (BackendBusy, "backend_busy", 503, -32603, True),
        (ClientSilent, "client_silent", 503, -32603, True),
        (Quarantined, "quarantined", 503, -32603, True),
        (Overloaded, "overloaded", 503, 503, False),
        (AuditUnavailable, "overloaded", 503, 503, False),
    ],
)
def test_each_kind_has_its_outcome_status_and_code(
    kind: type[Refusal], outcome: str, status: int, code: int, as_tool_result: bool
) -> None:
    assert (kind.outcome, kind.status, kind.code, kind.as_tool_result) == (outcome, status, code, as_tool_result)


def test_every_kind_uses_the_vocabulary_of_outcomes() -> None:
    ours = {kind for kind in kinds() if kind.__module__ == errors.__name__}
    assert {kind.outcome for kind in ours} == VOCABULARY


def test_no_code_of_ours_is_in_the_range_that_json_rpc_reserves() -> None:
    known = {-32700, -32600, -32601, -32602, -32603}
    assert all(kind.code > 0 or kind.code in known for kind in kinds())


@pytest.mark.parametrize("kind", [BackendUnavailable, BackendTimeout, BackendBusy])
@pytest.mark.parametrize(
    ("dispatched", "retryable", "expected"),
    [(False, None, True), (True, None, False), (True, True, True), (False, False, False)],
)
def test_a_backends_failure_is_retryable_where_it_surely_did_nothing(
    kind: type[BackendUnavailable], dispatched: bool, retryable: bool | None, expected: bool
) -> None:
    refusal = kind("No.", dispatched=dispatched, retryable=retryable)
    assert (refusal.retryable, refusal.dispatched) == (expected, dispatched)


def test_a_silent_client_says_that_the_call_may_have_acted() -> None:
    refusal = ClientSilent("Nobody answered.")
    assert (refusal.dispatched, refusal.retryable) == (True, False)


def test_an_unknown_session_is_a_404_that_says_what_to_do() -> None:
    refusal = UnknownSession()
    assert (refusal.status, refusal.outcome) == (404, "invalid_request")
    assert "initialize" in refusal.message


def test_insufficient_scope_names_everything_sorted() -> None:
    refusal = InsufficientScope("No.", needed=frozenset("bca"), missing=frozenset("cb"), rule="routes.x.scopes")
    assert refusal.data == {"scopes_needed": ["a", "b", "c"], "scopes_missing": ["b", "c"]}
    assert refusal.rule == "routes.x.scopes"


@pytest.mark.parametrize(("reason", "rule"), [("", "auth"), ("expired", "auth.expired")])
def test_the_reason_of_a_refused_token_is_for_the_record(reason: str, rule: str) -> None:
    refusal = Unauthenticated("The token is not accepted.", token_presented=True, reason=reason)
    assert refusal.rule == rule
    assert reason == "" or reason not in refusal.message


def test_data_of_a_refusal_is_its_own() -> None:
    data: dict[str, Any] = {"a": 1}
    refusal = InvalidRequest("No.", data=data)
    data["b"] = 2
    assert refusal.data == {"a": 1}


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (-32700, "protocol.json"),
        (-32600, "protocol.message"),
        (-32602, "protocol.params"),
        (-32020, "protocol.headers"),
        (-32022, "protocol.version"),
        (1, "protocol"),
    ],
)
def test_what_is_no_request_has_the_rule_of_its_code_unless_another_is_given(code: int, rule: str) -> None:
    assert InvalidRequest("No.", code=code).rule == rule
    assert InvalidRequest("No.", code=code, rule="guard.host").rule == "guard.host"


def test_a_problem_is_one_line_with_its_place_and_the_next_step() -> None:
    problem = Problem("routes.yaml", 3, "routes[0].name", "is missing", "give it one")
    assert str(problem) == "routes.yaml:3: routes[0].name: is missing (hint: give it one)"
    assert str(Problem("environment", None, "GATEWAY_PORT", "is no port")) == "environment: GATEWAY_PORT: is no port"
    assert str(Problem("routes.yaml", None, "", "cannot be read")) == "routes.yaml: cannot be read"


def test_a_configuration_error_reports_everything_at_once() -> None:
    one, two = Problem("a", 1, "x", "one"), Problem("a", 2, "y", "two")
    error = ConfigError([one, two])
    assert error.problems == (one, two)
    assert str(error) == "a:1: x: one\na:2: y: two"
