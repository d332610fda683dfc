"""Explanations say what the policy decides, and why a token is refused in words for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import catalog, explanation
from gateway.definitions.lock import Lock
from gateway.errors import Unauthenticated
from gateway.models import Kind, Listing, Principal
from gateway.policy.authorize import permits
from gateway.ports import LimitState, Take
from gateway.routes import Auth

from .fakes import LISTINGS, person, routes

NOW = 1_800_000_000.0
TEXT = """
limits: [{name: everyone, per: principal, limit: 600, window: 60s}]
routes:
  - name: deploy
    backend: {url: "http://deploy/mcp"}
    scopes: [deploy:read]
    tools:
      rollback: {scopes: [deploy:write, deploy:admin], limits: [{per: tool, limit: 1, window: 1s}]}
      "debug_*": {hidden: true}
  - name: logs
    backend: {url: "http://logs/mcp"}
    scopes: []
  - name: dark
    backend: {url: "http://dark/mcp"}
toolsets:
  oncall: {routes: [deploy, logs], tools: ["deploy__*"]}
  raw: {routes: [deploy], names: plain}
  looking: {routes: [deploy], tools: ["deploy__list_*", "deploy__debug_*"], names: plain}
"""
RULES = routes(TEXT)
LISTED = {listing.route: listing for listing in LISTINGS}
CATALOG = catalog.build(RULES, LISTED)
AUTH = Auth.model_validate(
    {
        "resource": "https://mcp.example.com/mcp",
        "issuers": [{"issuer": "https://idp.example.com"}],
        "scope_implies": {"admin": ["write"], "write": ["read"]},
    }
)


async def unseen(_takes: Sequence[Take]) -> None:
    return None


async def decide(name: str, *scopes: str, toolset: str | None = None, peek: Any = unseen) -> explanation.Decision:
    entry = explanation.tool(RULES, name, toolset)
    assert entry is not None
    return await explanation.decide(person("ada", *scopes), entry, toolset, peek)


async def test_an_allowed_tool_names_the_rule_that_allows_it() -> None:
    decision = await decide("deploy__status", "deploy:read")
    assert (decision.allowed, decision.reason) == (True, "")
    assert decision.entry.policy.rule == "routes.deploy.scopes"


async def test_a_denied_tool_names_everything_that_lacks() -> None:
    decision = await decide("deploy__rollback", "deploy:write")
    assert (decision.allowed, decision.reason, decision.missing) == (False, "insufficient_scope", {"deploy:admin"})
    assert decision.entry.policy.rule == "routes.deploy.tools.rollback.scopes"


@pytest.mark.parametrize(
    ("name", "reason", "rule"),
    [
        ("deploy__debug_dump", "hidden", "routes.deploy.tools.debug_*.hidden"),
        ("dark__matter", "no rule gives it scopes", "routes.dark"),
    ],
)
async def test_what_nobody_may_call_says_so(name: str, reason: str, rule: str) -> None:
    decision = await decide(name, "deploy:read")
    assert (decision.allowed, decision.reason, decision.entry.policy.rule) == (False, reason, rule)


async def test_limits_are_looked_at_under_the_counters_that_calls_use() -> None:
    seen: list[Take] = []

    async def peek(takes: Sequence[Take]) -> tuple[LimitState, ...]:
        seen.extend(takes)
        return tuple(LimitState(take.limit, 7, 1.5) for take in takes)

    decision = await decide("deploy__rollback", peek=peek)
    assert [take.limit.name for take in seen] == ["limits.everyone", "routes.deploy.tools.rollback.limits[0]"]
    assert len({take.key for take in seen}) == 2
    assert [state.remaining for state in decision.states or ()] == [7, 7]


@pytest.mark.parametrize("toolset", [None, "oncall", "raw"])
@given(scopes=st.frozensets(st.sampled_from(["deploy:read", "deploy:write", "deploy:admin", "x"])))
async def test_every_tool_is_decided_as_the_lists_decide(toolset: str | None, scopes: frozenset[str]) -> None:
    principal = Principal("https://i", "ada", None, scopes)
    entries = explanation.tools(RULES, CATALOG, LISTED, toolset)
    decisions = [await explanation.decide(principal, entry, toolset, unseen) for entry in entries]
    visible = {entry.name for entry in CATALOG.visible(toolset, principal)}
    assert {decision.entry.name for decision in decisions if decision.allowed} == visible
    assert all(decision.allowed == permits(principal, decision.entry) for decision in decisions)


def test_what_the_rules_hold_back_is_listed_after_what_is_exposed() -> None:
    names = [entry.name for entry in explanation.tools(RULES, CATALOG, LISTED, None)]
    exposed = [entry.name for entry in CATALOG.entries(None)]
    assert names == [*exposed, "deploy__debug_dump", "dark__matter"]


async def test_a_quarantined_tool_is_listed_and_denied_whatever_the_scopes() -> None:
    rules = routes(TEXT.replace("    tools:\n      rollback", "    pins: block\n    tools:\n      rollback", 1))
    built = catalog.build(rules, LISTED, Lock({}))
    entries = {entry.name: entry for entry in explanation.tools(rules, built, LISTED, None)}
    admin = person("ada", "deploy:read", "deploy:write", "deploy:admin")
    for name, reason in (("deploy__status", "quarantined: see mcp-gateway lock"), ("logs__search", "")):
        decision = await explanation.decide(admin, entries[name], None, unseen, built)
        assert (decision.allowed, decision.reason) == (not reason, reason)
    assert (await explanation.decide(person("eve"), entries["deploy__status"], None, unseen, built)).missing


async def test_a_tool_that_its_backend_does_not_offer_is_denied_unless_nobody_could_ask() -> None:
    entry = explanation.tool(RULES, "logs__not_there", None)
    assert entry is not None
    for listed, allowed in ((LISTED, False), ({}, True)):
        built = catalog.build(RULES, listed)
        decision = await explanation.decide(person("ada"), entry, None, unseen, built)
        assert (decision.allowed, "not offered" in decision.reason) == (allowed, not allowed)


def test_the_rules_alone_are_their_names_and_patterns_and_the_rest_of_each_route() -> None:
    found = {entry.name: entry.policy.rule for entry in explanation.rules(RULES, None)}
    assert found == {
        "deploy__rollback": "routes.deploy.tools.rollback.scopes",
        "deploy__debug_*": "routes.deploy.tools.debug_*.hidden",
        "deploy__*": "routes.deploy.scopes",
        "logs__*": "routes.logs.scopes",
        "dark__*": "routes.dark",
    }
    assert [entry.name for entry in explanation.rules(RULES, "raw")] == ["rollback", "debug_*", "*"]


def test_a_rule_for_a_tool_that_a_toolset_leaves_out_is_none_of_its_rules() -> None:
    assert [entry.name for entry in explanation.rules(RULES, "looking")] == ["debug_*", "*"]
    assert explanation.named(RULES, "rollback", "looking") == []


@pytest.mark.parametrize(
    ("name", "toolset", "backend_name"),
    [
        ("deploy__rollback", None, "rollback"),
        ("deploy__not_there", None, "not_there"),
        ("deploy__rollback", "oncall", "rollback"),
        ("logs__search", "oncall", None),
        ("rollback", "raw", "rollback"),
        ("deploy__", None, None),
        ("other__x", None, None),
    ],
)
def test_a_tool_is_found_by_its_public_name(name: str, toolset: str | None, backend_name: str | None) -> None:
    entry = explanation.tool(RULES, name, toolset)
    assert (entry.backend_name if entry else None) == backend_name


def test_scopes_that_others_include_are_told_apart() -> None:
    assert explanation.implied(AUTH, frozenset({"admin", "write", "read", "x"})) == {"write", "read"}
    assert explanation.implied(AUTH, frozenset({"read", "x"})) == frozenset()


ISS = {"iss": "https://idp.example.com"}


@pytest.mark.parametrize(
    ("reason", "claims", "header", "words"),
    [
        ("unknown_issuer", {"iss": "https://evil"}, {}, ["'https://evil'", "https://idp.example.com"]),
        ("wrong_audience", {**ISS, "aud": ["account"]}, {}, ["['account']", "https://mcp.example.com/mcp"]),
        ("algorithm", ISS, {"alg": "HS256"}, ["'HS256'", "RS256, ES256, EdDSA"]),
        ("unknown_key", ISS, {"alg": "RS256", "kid": "old"}, ["'old'", "RS256"]),
        ("expired", {**ISS, "exp": NOW - 60}, {}, ["exp 2027-01-15T07:59:00Z", "now 2027-01-15T08:00:00Z", "30s"]),
        ("not_yet_valid", {**ISS, "nbf": 10**40}, {}, ["nbf 1000"]),
        ("missing_claim", {**ISS, "email": "x"}, {}, ["iss, email"]),
        ("token_type", {**ISS, "nonce": "n"}, {"typ": "JWT"}, ["'JWT'", "nonce"]),
        ("malformed", {}, {}, []),
    ],
)
def test_the_operator_is_told_what_was_there_and_what_is_accepted(
    reason: str, claims: dict[str, Any], header: dict[str, Any], words: list[str]
) -> None:
    refusal = Unauthenticated("no", token_presented=True, reason=reason)
    told = explanation.why(refusal, claims, header, AUTH, NOW)
    assert all(word in told for word in words), told
    assert bool(told) == bool(words)


def test_what_a_token_says_cannot_steer_a_terminal() -> None:
    for reason, claims in (("unknown_issuer", {"iss": "\x1b[2J"}), ("missing_claim", {"\x1b]0;x\x07": 1})):
        refusal = Unauthenticated("no", token_presented=True, reason=reason)
        assert "\x1b" not in explanation.why(refusal, claims, {}, AUTH, NOW)


def test_a_text_that_is_no_token_has_neither_header_nor_claims() -> None:
    assert explanation.look_into(b"opaque") == ({}, {})


@given(scopes=st.frozensets(st.sampled_from(["deploy:read", "deploy:write", "deploy:admin", "x"])))
async def test_every_kind_is_decided_as_the_lists_decide(scopes: frozenset[str]) -> None:
    principal = Principal("https://i", "ada", None, scopes)
    offered = LISTED | {
        name: replace(
            one,
            prompts=({"name": "plan"},),
            resources=({"uri": f"{name}://state", "name": "state"},),
            templates=({"uriTemplate": f"{name}://{{a}}", "name": "any"},),
        )
        for name, one in LISTED.items()
    }
    built = catalog.build(RULES, offered)
    kinds: tuple[Kind, ...] = ("prompt", "resource", "template")
    for kind in kinds:
        entries = explanation.tools(RULES, built, offered, None, kind)
        decisions = [await explanation.decide(principal, entry, None, unseen, built) for entry in entries]
        allowed = {decision.entry.name for decision in decisions if decision.allowed}
        assert len(entries) == len(offered)
        assert allowed == {entry.name for entry in built.visible(None, principal, kind)}


# Prompts and resources by the rules alone

KINDS_TEXT = """
routes:
  - name: memos
    backend: {url: "http://memos/mcp"}
    scopes: [memos:read]
    prompts:
      plan: {scopes: [memos:plan]}
      "draft_*": {hidden: true}
    resources:
      "memo://secret/*": {scopes: [memos:secret]}
  - name: logs
    backend: {url: "http://logs/mcp"}
    scopes: []
toolsets:
  raw: {routes: [memos], names: plain}
  logs: {routes: [logs]}
"""
KIND_RULES = routes(KINDS_TEXT)
MEMOS = {
    "memos": Listing(
        route="memos",
        tools=(),
        prompts=({"name": "plan"},),
        resources=({"uri": "memo://today", "name": "today"},),
        templates=(
            {"uriTemplate": "memo://secret/{id}", "name": "secret"},
            {"uriTemplate": "page://{id}", "name": "p"},
        ),
        capabilities={},
        fetched_at=0.0,
        over_http=True,
    )
}


def test_prompts_and_resources_are_told_of_where_a_route_has_rules_for_them() -> None:
    found = [(one.kind, one.name, one.policy.rule) for one in explanation.rules(KIND_RULES, None)]
    assert found == [
        ("tool", "memos__*", "routes.memos.scopes"),
        ("tool", "logs__*", "routes.logs.scopes"),
        ("prompt", "memos__plan", "routes.memos.prompts.plan.scopes"),
        ("prompt", "memos__draft_*", "routes.memos.prompts.draft_*.hidden"),
        ("prompt", "memos__*", "routes.memos.scopes"),
        ("resource", "memo://secret/*", "routes.memos.resources.memo://secret/*.scopes"),
        ("resource", "*", "routes.memos.scopes"),
    ]
    assert [one.name for one in explanation.rules(KIND_RULES, "raw")] == [
        *("*", "plan", "draft_*", "*"),
        *("memo://secret/*", "*"),
    ]
    assert [(one.kind, one.name) for one in explanation.rules(KIND_RULES, "logs")] == [("tool", "logs__*")]


@pytest.mark.parametrize(
    ("name", "toolset", "meant"),
    [
        ("memos__plan", None, [("tool", "plan"), ("prompt", "plan")]),
        ("memos__other", None, [("tool", "other")]),
        ("memo://secret/1", None, [("resource", "memo://secret/1")]),
        ("memo://secret/1", "raw", [("resource", "memo://secret/1")]),
        ("memo://secret/1", "logs", []),
        ("memo://today", None, []),
        ("plan", "raw", [("tool", "plan"), ("prompt", "plan")]),
    ],
)
def test_a_name_means_a_tool_and_what_rules_name(name: str, toolset: str | None, meant: list[Any]) -> None:
    assert [(one.kind, one.backend_name) for one in explanation.named(KIND_RULES, name, toolset)] == meant


@pytest.mark.parametrize(
    ("uri", "counted_as", "rule", "missing"),
    [
        ("memo://secret/1", "memo://secret/{id}", "routes.memos.resources.memo://secret/*.scopes", {"memos:secret"}),
        ("page://1", "page://{id}", "routes.memos.scopes", set()),
    ],
)
async def test_a_uri_of_a_template_is_judged_as_reading_it_would_be(
    uri: str, counted_as: str, rule: str, missing: set[str]
) -> None:
    built = catalog.build(KIND_RULES, MEMOS)
    (entry,) = explanation.named(KIND_RULES, uri, None, built)
    assert (entry.kind, entry.name, entry.backend_name) == ("resource", counted_as, uri)
    decision = await explanation.decide(person("ada", "memos:read"), entry, None, unseen, built)
    assert (decision.entry.policy.rule, decision.missing) == (rule, missing)
    assert decision.allowed == (not missing)


async def test_a_uri_that_nobody_has_or_whose_owner_is_quarantined_is_denied() -> None:
    built = catalog.build(KIND_RULES, MEMOS)
    ada = person("ada", "memos:read", "memos:secret")
    (entry,) = explanation.named(KIND_RULES, "memo://secret/a/b", None, built)
    assert "not offered" in (await explanation.decide(ada, entry, None, unseen, built)).reason
    pinned = routes(KINDS_TEXT.replace("scopes: [memos:read]", "scopes: [memos:read]\n    pins: block"))
    held = catalog.build(pinned, MEMOS, Lock({}))
    for uri in ("memo://secret/1", "page://1", "memo://today"):
        (entry,) = explanation.named(pinned, uri, None, held)
        decision = await explanation.decide(ada, entry, None, unseen, held)
        assert (decision.allowed, decision.reason) == (False, "quarantined: see mcp-gateway lock")
