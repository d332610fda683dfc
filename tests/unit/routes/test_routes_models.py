from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.models import Limit
from gateway.routes import ConfigError, Defaults, Route, Routes, parse
from gateway.routes.reference import json_schema

EVERYTHING = """
auth:
  resource: https://mcp.example.com/mcp
  issuers: [{issuer: https://idp.example.com}]
limits:
  - {name: everyone, per: principal, limit: 600, window: 60s, burst: 60}
  - {per: global, limit: 1000, window: 1s}
defaults: {timeout: 20s, max_concurrency: 8}
routes:
  - name: deploy
    backend: {url: "http://deploy:9000/mcp"}
    scopes: [deploy:read]
    timeout: 40s
    limits: [{per: [principal, tool], limit: 30, window: 60s}]
    redact: [arguments.password]
    tools:
      "roll*": {scopes: [wrong:one]}
      rollback:
        scopes: [deploy:write]
        limits: [{name: careful, per: principal, limit: 5, window: 60s}]
        timeout: 120s
      "debug_*": {hidden: true, scopes: [debug:use]}
      "*_public": {scopes: []}
  - name: logs
    backend: {command: [logs]}
    tools:
      search: {scopes: [logs:read]}
toolsets:
  oncall: {routes: [deploy, logs], tools: ["deploy__*", logs__search]}
  raw: {routes: [logs], names: plain}
"""


@pytest.fixture
def routes() -> Routes:
    return parse(EVERYTHING, source="routes.yaml", environ={})


@pytest.fixture
def deploy(routes: Routes) -> Route:
    return routes.routes[0]


def test_an_exact_name_decides_before_a_pattern_that_stands_first(deploy: Route) -> None:
    policy = deploy.policy_for("rollback")
    assert (policy.scopes, policy.rule) == (frozenset({"deploy:write"}), "routes.deploy.tools.rollback.scopes")


def test_the_first_pattern_that_matches_decides(deploy: Route) -> None:
    assert deploy.policy_for("rollout_public").rule == "routes.deploy.tools.roll*.scopes"


def test_patterns_mind_case(deploy: Route) -> None:
    assert deploy.policy_for("Rollout").rule == "routes.deploy.scopes"


def test_a_tool_that_no_rule_names_needs_the_scopes_of_its_route(deploy: Route) -> None:
    policy = deploy.policy_for("status")
    assert (policy.scopes, policy.rule) == (frozenset({"deploy:read"}), "routes.deploy.scopes")


def test_empty_scopes_are_public(deploy: Route) -> None:
    assert deploy.policy_for("x_public").scopes == frozenset()


def test_nobody_may_call_what_no_rule_mentions(routes: Routes) -> None:
    policy = routes.routes[1].policy_for("delete")
    assert (policy.scopes, policy.rule) == (None, "routes.logs")


def test_a_hidden_tool_says_which_rule_hides_it(deploy: Route) -> None:
    policy = deploy.policy_for("debug_dump")
    assert (policy.hidden, policy.rule) == (True, "routes.deploy.tools.debug_*.hidden")


def test_limits_of_file_route_and_tool_add_up_under_their_paths(deploy: Route) -> None:
    assert deploy.policy_for("rollback").limits == (
        Limit("limits.everyone", ("principal",), 600, 60.0, 60),
        Limit("limits[1]", ("global",), 1000, 1.0, 1000),
        Limit("routes.deploy.limits[0]", ("principal", "tool"), 30, 60.0, 30),
        Limit("routes.deploy.tools.rollback.limits.careful", ("principal",), 5, 60.0, 5),
    )


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", (32, False, False)),
        ("principal_concurrency: off", (None, False, False)),
        ("principal_concurrency: 5\ndescribe_limits: true", (5, True, False)),
    ],
)
def test_what_the_file_says_of_every_principal_and_description_holds_unless_a_route_says(
    text: str, policy: tuple[int | None, bool, bool]
) -> None:
    routes = parse(
        text + "\nroutes:\n  - {name: a, backend: {url: 'http://a/mcp'}}\n"
        "  - {name: b, backend: {url: 'http://b/mcp'}, describe_limits: false}\n",
        source="x",
        environ={},
    )
    here, there = (route.policy_for("t") for route in routes.routes)
    assert (here.principal_concurrency, here.described, there.described) == policy


def test_timeouts_come_from_the_tool_then_the_route_then_the_file(routes: Routes) -> None:
    deploy, logs = routes.routes
    assert [deploy.policy_for("rollback").timeout, deploy.policy_for("x").timeout, logs.policy_for("x").timeout] == [
        120.0,
        40.0,
        20.0,
    ]


def test_effective_values_are_the_routes_own_over_the_files(deploy: Route) -> None:
    assert deploy.effective == Defaults.model_validate({"timeout": "40s", "max_concurrency": 8})


def test_a_policy_is_kept(deploy: Route) -> None:
    assert deploy.policy_for("rollback") is deploy.policy_for("rollback")


def test_a_copy_decides_by_its_own_rules(deploy: Route) -> None:
    deploy.policy_for("status")
    copy = deploy.model_copy(update={"scopes": ("other",)})
    assert copy.policy_for("status").scopes == frozenset({"other"})
    assert deploy.policy_for("status").scopes == frozenset({"deploy:read"})


def test_a_route_has_its_name_as_prefix_and_a_session_by_its_kind(routes: Routes) -> None:
    assert [(route.prefix, route.backend.session) for route in routes.routes] == [
        ("deploy__", "principal"),
        ("logs__", "shared"),
    ]


def test_a_toolset_takes_all_tools_of_its_routes_unless_it_says_which(routes: Routes) -> None:
    assert routes.toolsets["raw"].tools == ("*",)
    assert routes.toolsets["oncall"].tools == ("deploy__*", "logs__search")


def test_the_defaults_are_those_of_the_documentation() -> None:
    routes = parse("routes: [{name: a, backend: {url: 'http://a/mcp'}}]", source="x", environ={})
    assert routes.model_dump(exclude={"routes"}) == {
        "auth": None,
        "limits": (),
        "defaults": {
            "timeout": 30.0,
            "max_timeout": 300.0,
            "max_concurrency": 64,
            "max_response": 16 << 20,
            "list_timeout": 3.0,
            "pins": dict.fromkeys(("tools", "prompts", "resources", "templates"), "off"),
            "refresh": 60.0,
        },
        "toolsets": {},
        "refusals": "tool_result",
        "hide_unpermitted": False,
        "audit_arguments": "full",
        "audit_results": "size",
        "describe_limits": False,
        "tell_limits": False,
        "principal_concurrency": 32,
    }


def test_rules_cannot_be_changed(routes: Routes) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        routes.hide_unpermitted = True  # type: ignore[misc]


def _properties(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    models = [schema, *schema["$defs"].values()]
    return [(f"{model['title']}.{name}", one) for model in models for name, one in model["properties"].items()]


def test_every_key_of_the_schema_is_described_for_editors() -> None:
    assert [name for name, one in _properties(json_schema()) if not one.get("description")] == []


def test_the_schema_writes_durations_as_people_do_and_knows_no_null() -> None:
    schema = json_schema()
    assert schema["$defs"]["Defaults"]["properties"]["max_timeout"]["default"] == "5m"
    assert "'null'" not in str(schema)


@pytest.mark.parametrize(("auth", "opening"), [(True, {"said"}), (False, {"said", "unsaid"})])
def test_urls_are_opened_for_backends_where_all_is_one_persons_or_the_route_says_so(
    auth: bool, opening: set[str]
) -> None:
    text = EVERYTHING[: EVERYTHING.index("limits:")] if auth else ""
    text += """
routes:
  - {name: unsaid, backend: {url: "http://a/mcp"}}
  - {name: said, backend: {url: "http://b/mcp", url_elicitation: true}}
  - {name: denied, backend: {command: [c], url_elicitation: false}}
"""
    assert parse(text, source="routes.yaml", environ={}).opening_urls() == opening


INITIAL = """
auth:
  resource: https://mcp.example.com/mcp
  issuers: [{issuer: "https://idp.example.com"}]
  scope_implies: {admin: [deploy:read, deploy:write]}
  initial_scopes: %s
routes:
  - name: deploy
    backend: {url: "http://a/mcp"}
    scopes: [deploy:read]
    tools: {rollback: {scopes: [deploy:write]}}
  - name: logs
    backend: {url: "http://b/mcp"}
    scopes: [logs:read]
toolsets:
  logs: {routes: [logs]}
"""


@pytest.mark.parametrize(
    ("given", "whole", "of_toolset"),
    [
        ("[deploy:read]", {"deploy:read"}, set()),
        ("[admin, logs:read]", {"admin", "logs:read"}, {"logs:read"}),
        ("[]", set(), set()),
    ],
)
def test_clients_are_told_the_initial_scopes_that_open_something(
    given: str, whole: set[str], of_toolset: set[str]
) -> None:
    routes = parse(INITIAL % given, source="x", environ={})
    assert (routes.initial_scopes(), routes.initial_scopes("logs")) == (whole, of_toolset)


def test_without_initial_scopes_clients_are_told_all_of_them() -> None:
    routes = parse(INITIAL.replace("  initial_scopes: %s\n", ""), source="x", environ={})
    assert routes.initial_scopes() == {"deploy:read", "deploy:write", "logs:read"}
    assert routes.initial_scopes("logs") == {"logs:read"}


def test_an_initial_scope_that_opens_nothing_is_an_error_at_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(INITIAL % "[deploy:read, deploy:reed]", source="x", environ={})
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("auth.initial_scopes[1]", 6)
