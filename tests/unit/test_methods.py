"""The methods of both eras: what is answered here, what there is none of, and what lists say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mcp_types as types
import pytest

from gateway.methods import METHODS
from gateway.protocol import revisions

from .fakes import AUTH, LISTINGS, ROUTES, Core, FakeChannel, listing, outcome_of, routes, said, tool

LISTS = [
    ("tools/list", "tools", ["deploy__status", "deploy__rollback", "logs__search"]),
    ("prompts/list", "prompts", ["deploy__plan", "logs__plan"]),
    ("resources/list", "resources", ["state", "today"]),
    ("resources/templates/list", "resourceTemplates", ["service"]),
]


async def result(core: Core, method: str, era: str = "modern", **options: Any) -> Any:
    answer = await (core.modern if era == "modern" else core.legacy)(method, **options)
    assert answer.status == 200
    return said(answer)["result"]


async def error(core: Core, method: str, era: str = "modern", **options: Any) -> tuple[int, int]:
    answer = await (core.modern if era == "modern" else core.legacy)(method, **options)
    return answer.status, said(answer)["error"]["code"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(("method", "member", "expected"), LISTS)
async def test_lists_come_from_the_snapshot_and_ask_no_backend(
    era: str, method: str, member: str, expected: list[str]
) -> None:
    core = Core()
    got = await result(core, method, era)
    assert [item["name"] for item in got[member]] == expected
    assert core.requests == []
    assert outcome_of(core) == ("ok", 200, False)


async def test_a_modern_list_is_complete_and_private() -> None:
    got = await result(Core(), "tools/list")
    types.ListToolsResult.model_validate(got)
    assert (got["resultType"], got["ttlMs"], got["cacheScope"]) == ("complete", 0, "private")
    assert got["_meta"][revisions.SERVER_INFO]["name"] == "mcp-gateway"


async def test_a_legacy_list_has_no_member_of_the_modern_era() -> None:
    assert set(await result(Core(), "tools/list", "legacy")) == {"tools"}


@pytest.mark.parametrize(("token", "count"), [("ada", 3), ("bob", 2), ("eve", 1)])
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_list_shows_its_caller_what_the_caller_may_call(era: str, token: str, count: int) -> None:
    assert len((await result(Core(), "tools/list", era, token=token))["tools"]) == count


@pytest.mark.parametrize("method", [row[0] for row in LISTS])
async def test_a_list_says_which_routes_are_stale(method: str) -> None:
    core = Core()
    core.backends["logs"].up = False
    assert (await result(core, method))["_meta"][revisions.STALE] == ["logs"]


async def test_a_backend_outside_a_toolset_does_not_make_it_stale() -> None:
    core = Core()
    core.backends["deploy"].up = False
    assert revisions.STALE not in (await result(core, "tools/list", toolset="plain"))["_meta"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("method", [row[0] for row in LISTS])
async def test_a_cursor_is_refused_because_none_was_given_out(era: str, method: str) -> None:
    assert await error(Core(), method, era, params={"cursor": ""}) == (200, -32602)


async def test_ping_is_answered_here_in_a_session_and_unknown_in_the_modern_era() -> None:
    core = Core()
    assert await result(core, "ping", "legacy") == {}
    assert await error(core, "ping") == (404, -32601)
    assert core.requests == []


async def test_discovery_promises_what_some_backend_of_the_toolset_has() -> None:
    core = Core([LISTINGS[0], listing("logs", tool("search"), capabilities={"tools": {}})])
    whole, plain = [await result(core, "server/discover", toolset=toolset) for toolset in (None, "plain")]
    types.DiscoverResult.model_validate(whole)
    assert set(whole["capabilities"]) == {"tools", "prompts", "resources", "completions", "logging"}
    assert set(plain["capabilities"]) == {"tools"}


BEHIND_A_FEATURE = [
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
]


@pytest.mark.parametrize(("era", "status"), [("modern", 404), ("legacy", 200)])
@pytest.mark.parametrize("method", BEHIND_A_FEATURE)
async def test_a_method_behind_a_feature_that_no_backend_has_is_unknown(method: str, era: str, status: int) -> None:
    core = Core([listing("logs", tool("search"), capabilities={"tools": {}})])
    params = {"name": "x", "uri": "x:1"}
    assert await error(core, method, era, params=params) == (status, -32601)
    assert outcome_of(core) == ("unknown_method", status, False)


@pytest.mark.parametrize(
    ("era", "status", "method"),
    [
        ("modern", 404, "tools/other"),
        ("modern", 404, "initialize"),
        ("modern", 404, "logging/setLevel"),
        ("modern", 404, "session/end"),
        ("modern", 404, "batch"),
        ("modern", 404, "é"),
        ("legacy", 200, "tools/other"),
        ("legacy", 200, "server/discover"),
        ("legacy", 200, "batch"),
        ("legacy", 200, "TOOLS/LIST"),
    ],
)
async def test_an_unknown_method_is_404_in_the_modern_era_and_200_in_a_session(
    era: str, status: int, method: str
) -> None:
    core = Core()
    assert await error(core, method, era) == (status, -32601)
    assert outcome_of(core) == ("unknown_method", status, False)


async def test_a_log_level_holds_for_the_session_that_set_it_and_no_other() -> None:
    core = Core()
    core.backends["logs"].notes = [("notifications/message", {"level": level}) for level in ("info", "error")]
    loud, quiet = core.session(), core.session()
    assert await result(core, "logging/setLevel", "legacy", session=quiet, params={"level": "error"}) == {}
    heard = []
    for session in (loud, quiet):
        channel = FakeChannel()
        params = {"name": "logs__search", "arguments": {}}
        await core.legacy("tools/call", session=session, params=params, channel=channel)
        heard.append([params["level"] for _, params in channel.notes])
    assert heard == [["info", "error"], ["error"]]
    assert [request.log_level for request in core.requests] == ["debug", "error"]


@pytest.mark.parametrize("params", [{}, {"level": "loud"}, {"level": None}, {"level": ["error"]}])
async def test_a_log_level_there_is_none_of_is_refused(params: dict[str, Any]) -> None:
    core = Core()
    assert await error(core, "logging/setLevel", "legacy", params=params) == (200, -32602)
    assert core.sessions.levels == {}


def test_both_eras_have_the_methods_of_their_specification_that_are_requests_of_a_client() -> None:
    shared = {"tools/list", "tools/call", "prompts/list", "prompts/get", "completion/complete"}
    shared |= {"resources/list", "resources/templates/list", "resources/read"}
    by_era = {era: {method for e, method in METHODS if e == era} for era in ("modern", "legacy")}
    assert by_era["modern"] >= shared | {"server/discover", "subscriptions/listen"}
    assert by_era["legacy"] >= shared | {"ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
    assert "initialize" not in by_era["modern"]
    assert "server/discover" not in by_era["legacy"]


async def test_a_modern_client_listens_on_the_answer_itself_until_its_token_ends() -> None:
    core = Core()
    core.who["ada"] = replace(core.who["ada"], expires_at=core.clock.now + 60)
    asked = {"toolsListChanged": True}
    answer = await core.modern("subscriptions/listen", params={"notifications": asked}, number="l")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.opens is not None
    assert core.hub.told == [("listen", ("l", asked), 60.0)]
    assert outcome_of(core) == ("ok", 200, False)


async def test_a_listen_without_a_filter_is_invalid_params() -> None:
    assert await error(Core(), "subscriptions/listen") == (200, -32602)


async def test_who_listens_hears_of_what_it_may_use_by_the_rules_as_they_are_then() -> None:
    core = Core()
    await core.modern("subscriptions/listen", params={"notifications": {}}, token="eve", toolset="oncall")
    ((route_of, sees),) = core.hub.watchers
    assert route_of is not None
    assert [sees(route) for route in ("deploy", "logs", "dark")] == [False, True, False]
    assert [route_of(uri) for uri in ("deploy://state", "logs://today", "x://1")] == [None, "logs", None]
    core.routes = routes(AUTH + ROUTES.partition("toolsets:")[0])
    core.reload()
    assert not sees("logs")
    assert route_of("logs://today") is None


async def test_a_subscription_is_decided_and_recorded_like_a_read() -> None:
    text = AUTH + ROUTES + "limits: [{name: everyone, per: principal, limit: 5, window: 1s}]\n"
    core = Core(text=text)
    uri = "deploy://state"
    assert await result(core, "resources/subscribe", "legacy", token="bob", params={"uri": uri}) == {}
    event = core.audit.only
    assert (event.tool, event.route, event.backend_tool, event.rule) == (uri, "deploy", uri, "routes.deploy.scopes")
    assert (event.scopes_needed, event.outcome, event.dispatched) == ({"deploy:read"}, "ok", False)
    assert [take.limit.name for (take,) in core.limits.taken] == ["limits.everyone"]
    assert core.limits.running == 0


async def test_a_subscription_over_a_limit_is_refused_and_watches_nothing() -> None:
    text = AUTH + ROUTES + "limits: [{name: everyone, per: principal, limit: 5, window: 1s}]\n"
    core = Core(text=text)
    core.limits.wait = 1.5
    status, code = await error(core, "resources/subscribe", "legacy", token="bob", params={"uri": "deploy://state"})
    assert (status, code) == (200, 429)
    assert core.hub.told == []
    assert core.audit.only.outcome == "rate_limited"


async def test_a_session_subscribes_to_what_its_client_may_read_and_leaves_it() -> None:
    core = Core()
    session = core.session("bob")
    for method in ("resources/subscribe", "resources/unsubscribe"):
        assert (
            await result(core, method, "legacy", session=session, token="bob", params={"uri": "deploy://state"}) == {}
        )
    assert [(what, value) for what, value, _ in core.hub.told] == [
        ("subscribe", (session, "deploy://state")),
        ("unsubscribe", (session, "deploy://state")),
    ]
    assert core.elsewhere.told == [
        ("subscribed", session, "deploy://state", "bob"),
        ("unsubscribed", session, "deploy://state"),
    ]
    assert core.requests == []


@pytest.mark.parametrize(
    ("uri", "status", "code"), [("deploy://state", 403, 403), ("x://1", 200, -32002), (5, 200, -32602)]
)
async def test_a_session_does_not_subscribe_to_what_its_client_may_not_read(uri: Any, status: int, code: int) -> None:
    core = Core()
    assert await error(core, "resources/subscribe", "legacy", token="eve", params={"uri": uri}) == (status, code)
    assert core.hub.told == []
    assert core.elsewhere.told == []


async def test_without_auth_everybody_may_what_is_public() -> None:
    core = Core(text=ROUTES)
    got = await result(core, "tools/list", token=None)
    assert [item["name"] for item in got["tools"]] == ["logs__search"]
    assert AUTH not in ROUTES
