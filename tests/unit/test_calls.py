"""Requests for an entry: who owns it, what reaches the backend, and what a backend asks in between."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.definitions.lock import Lock, pin
from gateway.errors import BackendUnavailable
from gateway.models import BackendReply
from gateway.protocol import clients, revisions
from gateway.rounds import MAX_QUESTIONS, MAX_ROUNDS

from .fakes import (
    AUTH,
    HIDDEN_HOST,
    LEGACY,
    LISTINGS,
    ROUTES,
    Core,
    FakeChannel,
    call,
    inbound,
    listing,
    modern,
    outcome_of,
    refusal_of,
    said,
    tool,
)

ROLLBACK = {"name": "deploy__rollback", "arguments": {"service": "api"}}
SEARCH = {"name": "logs__search", "arguments": {}}
ASKING = {
    "resultType": "input_required",
    "inputRequests": {"q": {"method": "elicitation/create", "params": {"message": "Sure?", "requestedSchema": {}}}},
    "requestState": "state-of-the-backend",
}
DONE = {"content": [{"type": "text", "text": "done"}]}
CAN = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
YES = {"action": "accept", "content": {}}
ERAS = ["modern", "legacy"]


def core_with(route: str, *answers: Any) -> Core:
    core = Core()
    core.backends[route].answers = list(answers)
    return core


async def post(core: Core, era: str, method: str, params: dict[str, Any], **options: Any) -> Any:
    return await (core.modern if era == "modern" else core.legacy)(method, params=params, **options)


async def called(core: Core, params: dict[str, Any] = ROLLBACK, era: str = "modern", **options: Any) -> Any:
    return said(await post(core, era, "tools/call", params, **options))


# What limits left

LIMITED = AUTH + "limits: [{name: everyone, per: principal, limit: 600, window: 60s}]\n" + ROUTES
TOLD = "tell_limits: true\n" + LIMITED
VENDOR = "io.mcp-gateway/limits"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
async def test_a_result_says_what_the_tightest_limit_left_where_that_is_wanted(era: str, method: str) -> None:
    core = Core(text=TOLD)
    core.backends["deploy"].answers = [{**DONE, "_meta": {"own": 1, VENDOR: "a lie"}}]
    params = ROLLBACK if method == "tools/call" else {"name": "deploy__plan"}
    answer = await post(core, era, method, params)
    meta = said(answer)["result"]["_meta"]
    assert (meta["own"], meta[VENDOR]["limit"], meta[VENDOR]["remaining"]) == (1, "limits.everyone", 1)
    assert answer.headers == (
        ("ratelimit-policy", '"limits.everyone";q=600;w=60'),
        ("ratelimit", '"limits.everyone";r=1;t=30'),
    )


@pytest.mark.parametrize("text", [LIMITED, "tell_limits: true\n" + AUTH + ROUTES])
async def test_a_result_says_nothing_of_limits_unless_wanted_and_there_are_some(text: str) -> None:
    core = Core(text=text)
    core.backends["deploy"].answers = [{**DONE, "_meta": {VENDOR: "a lie"}}]
    answer = await post(core, "modern", "tools/call", ROLLBACK)
    assert VENDOR not in said(answer)["result"]["_meta"]
    assert answer.headers == ()


# Names


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_is_called_at_its_backend_under_its_own_name(era: str) -> None:
    core = core_with("deploy", DONE)
    message = await called(core, era=era)
    assert message["result"]["content"] == DONE["content"]
    (request,) = core.backends["deploy"].requests
    assert (request.method, request.name, request.params["name"]) == ("tools/call", "rollback", "rollback")
    assert core.backends["logs"].requests == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_prompt_is_got_under_its_own_name(era: str) -> None:
    core = core_with("logs", {"messages": []})
    await post(core, era, "prompts/get", {"name": "logs__plan", "arguments": {"a": "b"}})
    (request,) = core.backends["logs"].requests
    assert (request.method, request.name, request.params["name"]) == ("prompts/get", "plan", "plan")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", ["deploy__nothing", "rollback", "deploy__debug_dump", "dark__matter", "\u0000", "é"])
async def test_an_unknown_tool_is_invalid_params_at_200_and_says_where_to_look(era: str, name: str) -> None:
    core = Core()
    headers = {"mcp-name": name} if name.isascii() else {"mcp-name": "=?base64?w6k=?="}
    answer = await post(core, era, "tools/call", {"name": name}, headers=headers)
    error = said(answer)["error"]
    assert (answer.status, error["code"]) == (200, -32602)
    assert "tools/list" in error["message"]
    assert outcome_of(core) == ("unknown_tool", 200, False)
    assert core.requests == []


@pytest.mark.parametrize("toolset", ["oncall", "plain"])
@pytest.mark.parametrize("name", ["deploy__rollback", "rollback"])
async def test_a_tool_outside_a_toolset_cannot_be_called_through_it(toolset: str, name: str) -> None:
    core = Core()
    message = await called(core, {"name": name, "arguments": {"service": "api"}}, toolset=toolset)
    assert message["error"]["code"] == -32602
    assert core.requests == []


async def test_a_tool_of_a_toolset_with_plain_names_is_called_by_them() -> None:
    core = core_with("logs", DONE)
    await called(core, {"name": "search"}, toolset="plain")
    assert core.backends["logs"].requests[0].params["name"] == "search"
    assert core.audit.only.toolset == "plain"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {}),
        ("tools/call", {"name": ""}),
        ("tools/call", {"name": "logs__search", "arguments": []}),
        ("tools/call", {"name": "logs__search", "arguments": None}),
        ("tools/call", {"name": "logs__search", "arguments": "{}"}),
        ("prompts/get", {}),
        ("prompts/get", {"name": "logs__plan", "arguments": 5}),
        ("resources/read", {}),
        ("resources/read", {"uri": ""}),
        ("completion/complete", {}),
        ("completion/complete", {"ref": "x"}),
        ("completion/complete", {"ref": {"type": "ref/other"}}),
        ("completion/complete", {"ref": {"type": "ref/prompt"}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": 5}}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": 5}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "logs__plan"}, "argument": []}),
    ],
)
async def test_params_of_another_shape_are_invalid_params_and_go_nowhere(
    era: str, method: str, params: dict[str, Any]
) -> None:
    core = Core()
    headers = {"mcp-name": ""} if params.get("name") == "" or params.get("uri") == "" else None
    answer = await post(core, era, method, params, headers=headers)
    assert (answer.status, said(answer)["error"]["code"]) == (200, -32602)
    assert core.requests == []


async def test_what_may_not_be_used_is_a_403_that_names_every_scope() -> None:
    core = Core()
    answer = await core.modern("tools/call", params=ROLLBACK, token="bob")
    assert answer.status == 403
    header = dict(answer.headers)["www-authenticate"]
    assert 'error="insufficient_scope"' in header
    assert 'scope="deploy:admin deploy:write"' in header
    assert "deploy:admin, deploy:write" in said(answer)["error"]["message"]
    event = core.audit.only
    assert (event.outcome, event.rule) == ("insufficient_scope", "routes.deploy.tools.rollback.scopes")


HIDE = AUTH + "hide_unpermitted: true\n" + ROUTES


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", ROLLBACK),
        ("prompts/get", {"name": "deploy__plan"}),
        ("resources/read", {"uri": "deploy://state"}),
        ("resources/read", {"uri": "deploy://service/api"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "deploy__plan"}}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "deploy://state"}}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "deploy://service/{name}"}}),
    ],
)
async def test_with_hide_unpermitted_what_may_not_be_used_is_like_what_is_not_there(
    era: str, method: str, params: dict[str, Any]
) -> None:
    core = Core(text=HIDE)
    answer = await post(core, era, method, params, token="eve")
    assert answer.status == 200
    assert said(answer)["error"]["code"] in (-32602, -32002)
    other = json.loads(json.dumps(params).replace("deploy", "absent"))
    absent = await post(core, era, method, other, token="eve")
    assert answer.body.replace(b"deploy", b"absent") == absent.body
    assert [event.outcome for event in core.audit.ends] == ["unknown_tool"] * 2
    hidden, unknown = core.audit.ends
    assert (hidden.route, hidden.rule.startswith("routes.deploy.")) == ("deploy", True)
    assert (unknown.route, unknown.rule) == (None, "catalog")


# What reaches the backend


async def test_arguments_reach_the_backend_byte_for_byte() -> None:
    core = Core()
    text = b'{ "service" : "\\u00e9\\/", "n":1.50e+1 ,"big":123456789012345678901234567890, "z":null, "later":[ ] }'
    ready = modern("tools/call", {"name": "deploy__rollback"})
    body = (await ready.read()).replace(b'"name":', b'"arguments":' + text + b',"later":[1.0],"name":')
    await core.pipeline.post(inbound(body, headers=ready.headers), FakeChannel())
    (request,) = core.requests
    assert bytes(request.params["arguments"]) == text
    assert bytes(request.params["later"]) == b"[1.0]"
    assert set(request.params) == {"name", "arguments", "later"}


@pytest.mark.parametrize("era", ERAS)
async def test_of_meta_what_is_reserved_stays_here_and_the_rest_crosses(era: str) -> None:
    core = Core()
    meta = {
        "progressToken": 5,
        "a.example/k": {"n": 1},
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "io.mcp-gateway/refusal": 1,
        "io.modelcontextprotocol/related": 1,
    }
    options: dict[str, Any] = {"meta": meta} if era == "modern" else {}
    params = SEARCH if era == "modern" else {**SEARCH, "_meta": meta}
    await post(core, era, "tools/call", params, **options)
    (request,) = core.requests
    assert set(request.meta) == {"a.example/k", "traceparent"}
    assert request.wants_progress is True
    assert "_meta" not in request.params


async def test_the_token_of_the_client_never_reaches_a_backend() -> None:
    core = Core()
    core.who["secret-token"] = core.who["ada"]
    await called(core, token="secret-token")
    assert "secret-token" not in repr(core.requests)
    assert "secret-token" not in repr(core.audit.ends)


async def test_the_limits_of_time_are_those_of_the_tool() -> None:
    text = AUTH + ROUTES.replace("rollback: {", "rollback: {timeout: 7s, max_timeout: 9s, ")
    core = Core(text=text)
    await called(core)
    assert (core.requests[0].timeout, core.requests[0].max_timeout) == (7.0, 9.0)


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("2025-11-25", {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}),
        ("2025-06-18", {"elicitation": {}, "sampling": {}, "roots": {}}),
        ("2025-03-26", {"sampling": {}, "roots": {}}),
    ],
)
async def test_a_legacy_clients_capabilities_are_carried_as_its_revision_knows_them(
    revision: str, expected: Any
) -> None:
    core = Core()
    await called(core, era="legacy", revision=revision, capabilities=CAN)
    assert core.requests[0].capabilities == expected
    assert core.requests[0].client_info == {"name": "c", "version": "1"}


async def test_a_legacy_client_without_a_stream_is_announced_as_one_that_cannot_be_asked() -> None:
    core = Core()
    await called(core, era="legacy", capabilities=CAN, channel=FakeChannel(can_ask=False))
    assert core.requests[0].capabilities == {}


async def test_a_modern_clients_capabilities_are_carried_whole() -> None:
    core = Core()
    await called(core, capabilities={**CAN, "later": {"x": 1}})
    assert core.requests[0].capabilities == {**CAN, "later": {"x": 1}}


@pytest.mark.parametrize("era", ERAS)
async def test_with_several_people_a_backend_is_told_of_urls_only_where_its_route_says_so(era: str) -> None:
    core = Core()
    for params in (SEARCH, ROLLBACK):
        await called(core, params, era=era, capabilities=CAN)
    assert core.backends["logs"].requests[0].capabilities["elicitation"] == {"form": {}}
    assert core.backends["deploy"].requests[0].capabilities["elicitation"] == {"form": {}, "url": {}}


async def test_without_auth_all_is_one_persons_and_backends_are_told_of_urls() -> None:
    core = Core(text=ROUTES)
    await called(core, SEARCH, capabilities=CAN)
    assert core.backends["logs"].requests[0].capabilities["elicitation"] == {"form": {}, "url": {}}


async def test_a_log_level_there_is_none_of_is_refused_before_anything_is_sent() -> None:
    core = Core()
    message = await called(core, meta={clients.LOG_LEVEL: "loud"})
    assert message["error"]["code"] == -32602
    assert core.requests == []
    assert core.audit.intents == []


@pytest.mark.parametrize(
    ("level", "heard"), [(None, []), ("warning", ["warning", "error"]), ("debug", ["debug", "warning", "error"])]
)
async def test_a_modern_request_hears_the_messages_it_asked_for(level: str | None, heard: list[str]) -> None:
    core = Core()
    core.backends["logs"].notes = [("notifications/message", {"level": one}) for one in ("debug", "warning", "error")]
    channel = FakeChannel()
    await called(core, SEARCH, meta={clients.LOG_LEVEL: level} if level else {}, channel=channel)
    assert [params["level"] for _, params in channel.notes] == heard


@pytest.mark.parametrize("token", ["mine", 7, 0, None])
async def test_progress_comes_under_the_clients_own_token_or_not_at_all(token: Any) -> None:
    core = Core()
    core.backends["logs"].notes = [("notifications/progress", {"progressToken": "ours", "progress": 1})]
    channel = FakeChannel()
    await called(core, SEARCH, meta={} if token is None else {"progressToken": token}, channel=channel)
    expected = [] if token is None else [("notifications/progress", {"progressToken": token, "progress": 1})]
    assert channel.notes == expected


# Mirrored arguments

MIRRORED = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "n": {"type": "integer"}},
}


def mirroring() -> Core:
    return Core([listing("logs", tool("search", MIRRORED))])


async def test_a_mirrored_argument_is_checked_and_built_anew_for_the_backend() -> None:
    core = mirroring()
    params = {"name": "logs__search", "arguments": {"region": "eu"}}
    await called(core, params, headers={"mcp-param-region": "eu"})
    assert core.requests[0].headers == {"Mcp-Param-Region": "eu"}


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"region": "s3cr3t"}, {}),
        ({"region": "s3cr3t"}, {"mcp-param-region": "oth3r"}),
        ({}, {"mcp-param-region": "oth3r"}),
        ({"region": None}, {"mcp-param-region": "oth3r"}),
        ({"region": "s3cr3t"}, {"mcp-param-region": "=?base64?!oth3r?="}),
    ],
)
async def test_a_header_that_does_not_mirror_its_argument_is_a_400_without_either_value(
    arguments: dict[str, Any], headers: dict[str, str]
) -> None:
    core = mirroring()
    answer = await core.modern("tools/call", params={"name": "logs__search", "arguments": arguments}, headers=headers)
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32020)
    assert b"s3cr3t" not in answer.body
    assert b"oth3r" not in answer.body
    assert core.requests == []


async def test_a_legacy_client_mirrors_nothing_and_the_backend_gets_its_headers() -> None:
    core = mirroring()
    await called(core, {"name": "logs__search", "arguments": {"region": "eu"}}, era="legacy")
    assert core.requests[0].headers == {"Mcp-Param-Region": "eu"}


# Resources


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("uri", ["deploy://state", "deploy://service/api"])
async def test_a_resource_is_read_at_its_owner_by_uri_or_template(era: str, uri: str) -> None:
    core = core_with("deploy", {"contents": []})
    await post(core, era, "resources/read", {"uri": uri})
    (request,) = core.backends["deploy"].requests
    assert request.name == uri
    assert msgspec.json.decode(msgspec.json.encode(request.params["uri"])) == uri
    assert request.idempotent is True


@pytest.mark.parametrize(("era", "code"), [("modern", -32602), ("legacy", -32002)])
async def test_a_uri_that_nobody_owns_is_unknown_in_the_words_of_the_era(era: str, code: int) -> None:
    core = Core()
    answer = await post(core, era, "resources/read", {"uri": "x://1"})
    error = said(answer)["error"]
    assert (answer.status, error["code"], error["data"]["uri"]) == (200, code, "x://1")
    assert core.requests == []


async def test_a_uri_that_a_backend_named_in_a_result_is_read_there_by_who_was_told() -> None:
    link = {"content": [{"type": "resource_link", "uri": "x://seen", "name": "n"}]}
    core = core_with("logs", link, {"contents": []})
    await called(core, SEARCH, token="bob")
    stranger = await core.modern("resources/read", params={"uri": "x://seen"}, token="eve")
    assert said(stranger)["error"]["code"] == -32602
    told = await core.modern("resources/read", params={"uri": "x://seen"}, token="bob")
    assert "result" in said(told)
    assert [request.method for request in core.requests] == ["tools/call", "resources/read"]


@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("tools/call", SEARCH, {"content": [{"type": "resource", "resource": {"uri": "x://seen", "text": ""}}]}),
        (
            "prompts/get",
            {"name": "logs__plan"},
            {"messages": [{"role": "user", "content": {"type": "resource_link", "uri": "x://seen", "name": "n"}}]},
        ),
    ],
)
async def test_the_other_processes_are_told_of_what_no_list_has(method: str, params: Any, result: Any) -> None:
    core = core_with("logs", result)
    await core.modern(method, params=params, token="bob")
    await core.modern(method, params=params, token="bob")
    assert core.elsewhere.told == [("named", "bob", "logs", "x://seen")]


async def test_a_resource_that_is_listed_needs_no_word_to_the_others() -> None:
    link = {"type": "resource_link", "uri": "deploy://state", "name": "n"}
    core = core_with("deploy", {"content": [link, {**link, "uri": "deploy://service/api"}]})
    await called(core, ROLLBACK)
    assert core.elsewhere.told == []


async def test_a_seen_uri_is_counted_under_one_name_whatever_it_is() -> None:
    link = {"content": [{"type": "resource_link", "uri": "x://seen", "name": "n"}]}
    core = core_with("logs", link, {"contents": []})
    await called(core, SEARCH)
    await core.modern("resources/read", params={"uri": "x://seen"})
    assert [tool_name for _, _, tool_name, _, _ in core.meter.requests] == ["logs__search", "(unlisted resource)"]
    assert core.audit.ends[-1].backend_tool == "x://seen"


async def test_a_seen_uri_is_read_through_a_toolset_only_if_its_route_is_in_it() -> None:
    link = {"content": [{"type": "resource_link", "uri": "x://seen", "name": "n"}]}
    core = core_with("deploy", link, {"contents": []})
    await called(core)
    inside = await core.modern("resources/read", params={"uri": "x://seen"}, toolset="oncall")
    outside = await core.modern("resources/read", params={"uri": "x://seen"}, toolset="plain")
    assert "result" in said(inside)
    assert said(outside)["error"]["code"] == -32602


SECRET = AUTH + ROUTES.replace(
    "    tools:\n",
    '    resources: {"deploy://secret/*": {scopes: [deploy:write]}, "deploy://no": {hidden: true}}\n    tools:\n',
)


@pytest.mark.parametrize(
    ("uri", "status"), [("deploy://secret/a", 403), ("deploy://no", 200), ("deploy://other/x", 200)]
)
async def test_rules_hold_for_the_uri_that_is_read_and_not_for_the_template(uri: str, status: int) -> None:
    offered = listing("deploy", tool("status"), templates=({"uriTemplate": "deploy://{+rest}", "name": "all"},))
    core = Core([offered], text=SECRET)
    answer = await core.modern("resources/read", params={"uri": uri}, token="bob")
    assert answer.status == status
    assert (len(core.requests) == 1) is (uri == "deploy://other/x")


# Completion


@pytest.mark.parametrize("era", ERAS)
async def test_a_completion_of_a_prompt_goes_to_its_owner_under_its_own_name(era: str) -> None:
    core = core_with("logs", {"completion": {"values": []}})
    params = {
        "ref": {"type": "ref/prompt", "name": "logs__plan", "title": "t"},
        "argument": {"name": "a", "value": "v"},
        "context": {"arguments": {"b": "c"}},
    }
    await post(core, era, "completion/complete", params)
    (request,) = core.backends["logs"].requests
    assert request.params["ref"] == {"type": "ref/prompt", "name": "plan", "title": "t"}
    assert json.loads(msgspec.json.encode(request.params["context"])) == params["context"]
    assert request.name is None


@pytest.mark.parametrize("uri", ["deploy://service/{name}", "deploy://state", "deploy://service/api"])
async def test_a_completion_of_a_resource_goes_to_its_owner_unchanged(uri: str) -> None:
    core = core_with("deploy", {"completion": {"values": []}})
    ref = {"type": "ref/resource", "uri": uri}
    await core.modern("completion/complete", params={"ref": ref, "argument": {"name": "name", "value": ""}})
    (request,) = core.backends["deploy"].requests
    assert json.loads(msgspec.json.encode(request.params["ref"])) == ref


async def test_a_completion_needs_the_scopes_of_what_it_completes() -> None:
    core = Core()
    ref = {"type": "ref/prompt", "name": "deploy__plan"}
    assert (await core.modern("completion/complete", params={"ref": ref}, token="eve")).status == 403
    assert core.requests == []


# Answers


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"content": []}, "ok"),
        ({"content": [], "isError": False}, "ok"),
        ({"content": [], "isError": True}, "tool_error"),
        ({"content": [], "isError": msgspec.Raw(b"true")}, "tool_error"),
        (BackendReply(None, {"code": -32000, "message": "no"}, 0.1), "backend_error"),
        (ASKING, "ok"),
    ],
)
async def test_the_outcome_tells_errors_of_tools_and_backends_from_success(answer: Any, outcome: str) -> None:
    core = core_with("deploy", answer)
    await called(core, capabilities=CAN)
    assert outcome_of(core) == (outcome, 200, True)


async def test_an_error_of_a_backend_reaches_the_client_whole() -> None:
    error = {"code": -32099, "message": "no", "data": {"a": None}}
    core = core_with("deploy", BackendReply(None, error, 0.1))
    assert (await called(core))["error"] == error


async def test_what_a_modern_client_reads_has_caching_hints_and_those_of_the_backend_stay() -> None:
    core = core_with("deploy", {"contents": []}, {"contents": [], "ttlMs": 5, "cacheScope": "public"})
    first, second = [said(await core.modern("resources/read", params={"uri": "deploy://state"})) for _ in range(2)]
    assert (first["result"]["ttlMs"], first["result"]["cacheScope"]) == (0, "private")
    assert (second["result"]["ttlMs"], second["result"]["cacheScope"]) == (5, "public")


# What a backend asks of a modern client


def sealed_of(message: Any) -> str:
    assert message["result"]["resultType"] == "input_required"
    state: str = message["result"]["requestState"]
    return state


async def asked_first(core: Core, **options: Any) -> str:
    return sealed_of(await called(core, capabilities=CAN, **options))


async def test_the_state_of_a_backend_crosses_sealed_and_comes_back_to_it() -> None:
    core = core_with("deploy", ASKING, DONE)
    message = await called(core, capabilities=CAN)
    question = {**ASKING["inputRequests"]["q"]["params"], "_meta": {revisions.ROUTE: "deploy"}}
    assert message["result"]["inputRequests"] == {"q": {"method": "elicitation/create", "params": question}}
    state = sealed_of(message)
    assert "state-of-the-backend" not in state
    retry = {**ROLLBACK, "requestState": state, "inputResponses": {"q": YES}}
    assert (await called(core, retry, number=2))["result"]["content"] == DONE["content"]
    second = core.backends["deploy"].requests[1]
    assert (second.state, second.answers) == ("state-of-the-backend", {"q": YES})
    assert set(second.params) == {"name", "arguments"}


async def test_a_question_without_a_state_is_passed_on_without_one() -> None:
    core = core_with("deploy", {key: value for key, value in ASKING.items() if key != "requestState"})
    assert "requestState" not in (await called(core, capabilities=CAN))["result"]


@pytest.mark.parametrize(
    ("change", "token"),
    [
        ({}, "bob-as-ada"),
        ({"arguments": {"service": "other"}}, "ada"),
        ({"name": "deploy__status"}, "ada"),
        ({"name": "logs__search"}, "ada"),
        ({"requestState": "state-of-the-backend"}, "ada"),
        ({"requestState": ""}, "ada"),
        ({"requestState": 5}, "ada"),
        ({"requestState": {"a": 1}}, "ada"),
    ],
)
async def test_a_state_of_another_principal_tool_or_argument_is_refused_and_nothing_is_sent(
    change: dict[str, Any], token: str
) -> None:
    core = core_with("deploy", ASKING)
    core.who["bob-as-ada"] = type(core.who["ada"])("https://idp.example.com", "bob", scopes=core.who["ada"].scopes)
    retry = {**ROLLBACK, "requestState": await asked_first(core), "inputResponses": {"q": YES}, **change}
    answer = await core.modern("tools/call", params=retry, token=token)
    assert (answer.status, said(answer)["error"]["code"]) == (200, -32602)
    assert len(core.requests) == 1
    assert len(core.audit.intents) == 1


async def test_a_tampered_or_expired_state_is_refused_and_nothing_is_sent() -> None:
    core = core_with("deploy", ASKING)
    state = await asked_first(core)
    for forged in (state[:-2] + "AA", state[1:], state + "="):
        assert (await called(core, {**ROLLBACK, "requestState": forged}))["error"]["code"] == -32602
    core.clock.now += 3600
    assert (await called(core, {**ROLLBACK, "requestState": state}))["error"]["code"] == -32602
    assert len(core.requests) == 1


@pytest.mark.parametrize("answers", [5, "q", [], [1], True])
async def test_answers_that_are_no_object_are_refused_and_nothing_is_sent(answers: Any) -> None:
    core = core_with("deploy", ASKING, DONE)
    retry = {**ROLLBACK, "requestState": await asked_first(core), "inputResponses": answers}
    assert (await called(core, retry))["error"]["code"] == -32602
    assert len(core.requests) == 1


async def parked_elsewhere(core: Core, *, keeps_state: bool) -> Any:
    """The retry of a call that another process has asked for."""
    core.backends["deploy"].keeps_state = keeps_state
    arguments = ROLLBACK["arguments"]
    entry = core.present.catalog.find(None, "deploy__rollback")
    asked = call(arguments, entry=entry, principal=core.who["ada"])
    retry = {**ROLLBACK, "requestState": core.states.seal(asked, "s", "there"), "inputResponses": {"q": YES}}
    return await called(core, retry, capabilities=CAN)


async def test_a_parked_call_goes_on_at_the_process_that_holds_it() -> None:
    core = Core()
    core.elsewhere.reply = DONE
    message = await parked_elsewhere(core, keeps_state=True)
    assert message["result"]["content"] == DONE["content"]
    ((holder, route, request),) = core.elsewhere.resumed
    assert (holder, route, request.state, request.answers) == ("there", "deploy", "s", {"q": YES})
    assert core.requests == []
    assert outcome_of(core) == ("ok", 200, True)


async def test_a_call_that_is_parked_again_elsewhere_goes_on_there() -> None:
    core = Core()
    core.elsewhere.reply = ASKING
    sealed = sealed_of(await parked_elsewhere(core, keeps_state=True))
    core.elsewhere.reply = DONE
    await called(core, {**ROLLBACK, "requestState": sealed, "inputResponses": {"q": YES}}, capabilities=CAN)
    assert [(holder, request.state) for holder, _, request in core.elsewhere.resumed] == [
        ("there", "s"),
        ("there", "state-of-the-backend"),
    ]


async def test_any_process_goes_on_with_a_backend_that_keeps_nothing() -> None:
    core = core_with("deploy", DONE)
    await parked_elsewhere(core, keeps_state=False)
    assert core.elsewhere.resumed == []
    assert core.requests[0].state == "s"


async def test_a_holder_that_is_gone_is_said_and_nothing_runs_a_second_time() -> None:
    core = Core()
    core.elsewhere.reply = BackendUnavailable("The call is lost.", dispatched=True, retryable=False)
    message = await parked_elsewhere(core, keeps_state=True)
    assert message["result"]["isError"] is True
    assert core.requests == []
    assert outcome_of(core) == ("backend_unavailable", 200, True)


# What a backend asks of a legacy client


def asking(*methods: str, **more: Any) -> dict[str, Any]:
    requests = {f"q{index}": {"method": method, "params": {}} for index, method in enumerate(methods)}
    return {"resultType": "input_required", "inputRequests": requests, **more}


async def test_a_legacy_client_is_asked_and_its_answer_brought_with_the_state() -> None:
    core = core_with("deploy", ASKING, DONE)
    channel = FakeChannel(elicitation_create=YES)
    message = await called(core, era="legacy", capabilities=CAN, channel=channel)
    assert message["result"] == DONE
    question = {"message": "Sure?", "requestedSchema": {}, "_meta": {revisions.ROUTE: "deploy"}}
    assert channel.asked == [("elicitation/create", question)]
    first, second = core.requests
    assert (first.answers, first.state) == (None, None)
    assert (second.answers, second.state) == ({"q": YES}, "state-of-the-backend")
    assert second.params == first.params
    assert outcome_of(core) == ("ok", 200, True)
    assert len(core.audit.intents) == 1


async def test_results_of_bytes_are_read_for_their_questions() -> None:
    raw = {key: msgspec.Raw(msgspec.json.encode(value)) for key, value in ASKING.items()}
    core = core_with("deploy", raw, DONE)
    channel = FakeChannel(elicitation_create=YES)
    await called(core, era="legacy", capabilities=CAN, channel=channel)
    assert core.requests[1].state == "state-of-the-backend"


async def test_all_questions_of_a_round_are_asked() -> None:
    core = core_with("deploy", asking("elicitation/create", "sampling/createMessage", "roots/list"), DONE)
    channel = FakeChannel(elicitation_create=YES, sampling_createMessage={"s": 1}, roots_list={"roots": []})
    await called(core, era="legacy", capabilities=CAN, channel=channel)
    assert core.requests[1].answers == {"q0": YES, "q1": {"s": 1}, "q2": {"roots": []}}


async def test_a_backend_that_asks_for_ever_is_stopped() -> None:
    core = core_with("deploy", ASKING)
    channel = FakeChannel(elicitation_create=YES)
    answer = await core.legacy("tools/call", params=ROLLBACK, capabilities=CAN, channel=channel)
    assert len(core.requests) == MAX_ROUNDS
    refusal = refusal_of(answer)
    assert (refusal["code"], refusal["dispatched"], refusal["retryable"]) == ("backend_unavailable", True, False)


AGAIN = {"resultType": "input_required", "requestState": "later"}


async def test_a_backend_that_wants_to_be_called_again_is_after_ever_longer_pauses() -> None:
    core = core_with("deploy", *[AGAIN] * 8, ASKING, AGAIN, DONE)
    channel = FakeChannel(elicitation_create=YES)
    message = await called(core, era="legacy", capabilities=CAN, channel=channel)
    assert message["result"] == DONE
    assert core.pauses == [0.25, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert [request.state for request in core.requests[:2]] == [None, "later"]


async def test_it_is_not_called_again_after_the_end_of_the_call() -> None:
    core = Core(text=(AUTH + ROUTES).replace("rollback: {", "rollback: {timeout: 1s, max_timeout: 3s, "))
    core.backends["deploy"].answers = [AGAIN]
    result = (await called(core, era="legacy", capabilities=CAN))["result"]
    assert result["isError"] is True
    assert sum(core.pauses) <= 3.0
    assert outcome_of(core) == ("backend_timeout", 200, True)


async def test_a_modern_client_waits_itself() -> None:
    core = core_with("deploy", AGAIN)
    assert "requestState" in (await called(core, capabilities=CAN))["result"]
    assert core.pauses == []


async def test_a_client_that_refuses_is_said_to_the_agent() -> None:
    core = core_with("deploy", ASKING)
    answer = await core.legacy("tools/call", params=ROLLBACK, capabilities=CAN, channel=FakeChannel())
    refusal = refusal_of(answer)
    assert answer.status == 200
    assert (refusal["code"], refusal["dispatched"], refusal["retryable"]) == ("client_silent", True, False)
    assert "client" in refusal["error"]
    assert outcome_of(core) == ("client_silent", 200, True)


@pytest.mark.parametrize(
    "requests",
    [
        {"q": {"method": "tools/call", "params": {}}},
        {"q": {"params": {}}},
        {"q": {"method": [], "params": {}}},
        {"q": 5},
        {"q": {"method": "roots/list", "params": []}},
        {f"q{number}": {"method": "roots/list"} for number in range(MAX_QUESTIONS + 1)},
    ],
)
async def test_a_backend_may_not_ask_what_no_client_answers_nor_too_much(requests: Any) -> None:
    core = core_with("deploy", {"resultType": "input_required", "inputRequests": requests})
    channel = FakeChannel(roots_list={"roots": []})
    answer = await core.legacy("tools/call", params=ROLLBACK, capabilities=CAN, channel=channel)
    assert refusal_of(answer)["code"] == "backend_unavailable"
    assert channel.asked == []


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
methods = st.sampled_from(["elicitation/create", "sampling/createMessage", "roots/list", "tools/call"]) | values
asked = st.dictionaries(texts, st.fixed_dictionaries({}, optional={"method": methods, "params": values}) | values)
links = st.lists(st.fixed_dictionaries({}, optional={"type": st.just("resource"), "uri": texts, "resource": values}))
results = st.fixed_dictionaries(
    {},
    optional={
        "resultType": st.sampled_from(["input_required", "complete"]) | values,
        "inputRequests": asked | values,
        "requestState": values,
        "content": links | values,
        "isError": values,
        "_meta": values,
        "structuredContent": values,
    },
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(results, st.sampled_from(ERAS), st.booleans(), st.booleans())
async def test_whatever_a_backend_answers_is_answered_and_recorded_once(
    result: dict[str, Any], era: str, raw: bool, willing: bool
) -> None:
    parts = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in result.items()} if raw else result
    core = core_with("deploy", parts, DONE)
    replies = {"elicitation_create": YES, "sampling_createMessage": {}, "roots_list": {}} if willing else {}
    answer = await post(core, era, "tools/call", ROLLBACK, capabilities=CAN, channel=FakeChannel(**replies))
    assert core.failures == []
    assert answer.status == 200
    assert "result" in said(answer)
    assert len(core.audit.ends) == len(core.audit.intents) == 1


async def test_a_legacy_client_is_not_asked_for_what_it_did_not_declare() -> None:
    core = core_with("deploy", asking("sampling/createMessage"), DONE)
    channel = FakeChannel(sampling_createMessage={"s": 1})
    await core.legacy("tools/call", params=ROLLBACK, capabilities={"elicitation": {}}, channel=channel)
    assert channel.asked == []
    assert outcome_of(core)[0] in ("client_silent", "backend_unavailable")


async def test_a_missing_capability_is_read_by_a_legacy_agent_and_told_to_a_modern_client() -> None:
    error = {"code": -32021, "message": "needs sampling", "data": {"requiredCapabilities": {"sampling": {}}}}
    core = core_with("deploy", BackendReply(None, error, 0.1))
    legacy = (await called(core, era="legacy"))["result"]
    assert legacy["isError"] is True
    assert "needs sampling" in legacy["content"][0]["text"]
    modern_answer = await core.modern("tools/call", params=ROLLBACK)
    assert (modern_answer.status, said(modern_answer)["error"]) == (400, error)
    answer = await core.legacy("prompts/get", params={"name": "deploy__plan"})
    assert said(answer)["error"]["code"] == -32021


UNDECLARED = {"code": -32021, "message": "asks for roots", "data": {"requiredCapabilities": {"roots": {}}}}
FAILED = {"content": [{"type": "text", "text": "no roots, no result"}], "isError": True}


@pytest.mark.parametrize("made_of_it", [(FAILED, None), (None, {"code": -32603, "message": "no roots"})])
async def test_a_call_that_failed_for_a_refused_question_tells_a_modern_client_what_it_lacks(made_of_it: Any) -> None:
    core = core_with("deploy", BackendReply(*made_of_it, 0.1, UNDECLARED))
    answer = await core.modern("tools/call", params=ROLLBACK)
    assert (answer.status, said(answer)["error"]) == (400, UNDECLARED)
    assert outcome_of(core) == ("backend_error", 400, True)


async def test_a_legacy_agent_reads_what_the_backend_made_of_its_refused_question() -> None:
    core = core_with("deploy", BackendReply(FAILED, None, 0.1, UNDECLARED))
    assert (await called(core, era="legacy"))["result"] == FAILED


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_succeeds_without_its_question_has_succeeded(era: str) -> None:
    core = core_with("deploy", BackendReply(DONE, None, 0.1, UNDECLARED))
    assert (await called(core, era=era))["result"]["content"] == DONE["content"]


@pytest.mark.parametrize(("revision", "resumable"), [(LEGACY, True), ("2025-06-18", False), ("2025-03-26", False)])
async def test_only_a_legacy_request_begins_in_its_session(revision: str, resumable: bool) -> None:
    core = Core()
    session, channel = core.session(revision=revision), FakeChannel()
    await called(core, SEARCH, era="legacy", session=session, channel=channel, number="r")
    await called(core, SEARCH, channel=channel)
    assert channel.begun == [(session, "r", resumable)]


@pytest.mark.parametrize("era", ERAS)
async def test_nothing_that_is_said_names_where_a_backend_is(era: str) -> None:
    core = Core(LISTINGS)
    for method, params in [("tools/list", {}), ("tools/call", ROLLBACK), ("tools/call", {"name": "nothing"})]:
        answer = await post(core, era, method, params)
        assert HIDDEN_HOST.encode() not in answer.body


TASKS = "io.modelcontextprotocol/tasks"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("as_bytes", [True, False])
async def test_a_task_that_no_client_was_declared_to_take_is_not_passed_on(era: str, as_bytes: bool) -> None:
    kind = msgspec.Raw(b'"task"') if as_bytes else "task"
    core = core_with("deploy", {"resultType": kind, "taskId": "1", "status": "working"})
    answer = await called(core, era=era, capabilities={"extensions": {TASKS: {}}})
    assert "does not carry" in answer["result"]["content"][0]["text"]
    assert "taskId" not in answer["result"]
    assert outcome_of(core) == ("backend_unavailable", 200, True)


async def test_a_legacy_client_that_asks_for_a_task_gets_a_call() -> None:
    core = core_with("deploy", DONE)
    assert (await called(core, {**ROLLBACK, "task": {"ttl": 60000}}, era="legacy"))["result"] == DONE
    assert "task" not in core.requests[0].params


@pytest.mark.parametrize("era", ERAS)
async def test_no_extension_and_no_task_is_advertised_whatever_backends_have(era: str) -> None:
    core = Core([listing("deploy", capabilities={"tools": {}, "tasks": {"list": {}}, "extensions": {TASKS: {}}})])
    method = "server/discover" if era == "modern" else "initialize"
    params = {} if era == "modern" else {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {}}
    capabilities = said(await post(core, era, method, params))["result"]["capabilities"]
    assert set(capabilities) == {"tools"}


# Quarantined tools


def quarantining(text: str = ROUTES, head: str = "") -> Core:
    """A core in which the rollback tool of the deploy route is not the pinned one."""
    core = Core(text=AUTH + head + "defaults: {pins: block}\n" + text)
    pins = {
        route: {"tool": {one["name"]: pin(one) for one in offered.tools if one["name"] != "rollback"}}
        for route, offered in core.listings.items()
    }
    core.lock = Lock(pins)
    core.reload()
    return core


@pytest.mark.parametrize("era", ERAS)
async def test_a_quarantined_tool_is_refused_on_record_and_reaches_nobody(era: str) -> None:
    core = quarantining()
    told = refusal_of(await post(core, era, "tools/call", ROLLBACK))
    assert (told["code"], told["retryable"], told["dispatched"]) == ("quarantined", False, False)
    assert told["hint"]
    assert core.requests == []
    assert core.limits.taken == []
    event = core.audit.only
    assert (event.outcome, event.dispatched, event.rule) == ("quarantined", False, "tools.lock:deploy/rollback")
    assert (event.tool, event.route, event.backend_tool) == ("deploy__rollback", "deploy", "rollback")
    assert core.meter.requests[-1][1:4] == ("deploy", "deploy__rollback", "quarantined")


async def test_a_quarantine_is_503_where_refusals_are_said_over_http() -> None:
    answer = await post(quarantining(head="refusals: http\n"), "modern", "tools/call", ROLLBACK)
    assert answer.status == 503
    assert refusal_of(answer)["dispatched"] is False


@pytest.mark.parametrize("head", ["", "hide_unpermitted: true\n"])
@pytest.mark.parametrize("era", ERAS)
async def test_who_may_not_call_a_tool_is_told_the_same_whether_it_is_quarantined_or_not(era: str, head: str) -> None:
    core, other = quarantining(head=head), Core(text=AUTH + head + ROUTES)
    answers = [await post(one, era, "tools/call", ROLLBACK, token="eve") for one in (core, other)]
    assert answers[0].status == answers[1].status
    assert answers[0].body == answers[1].body
    assert core.audit.only.outcome == other.audit.only.outcome
    assert core.audit.only.rule == other.audit.only.rule


async def test_the_siblings_of_a_quarantined_tool_are_called_as_ever() -> None:
    core = quarantining()
    assert (await called(core, {"name": "deploy__status"}))["result"].get("isError") is not True
    assert len(core.requests) == 1


# Quarantined prompts, resources and templates

WITHHELD = [
    ("prompts/get", {"name": "deploy__plan"}, "tools.lock:deploy/prompts/plan"),
    ("resources/read", {"uri": "deploy://state"}, "tools.lock:deploy/resources/deploy://state"),
    ("resources/read", {"uri": "deploy://service/api"}, "tools.lock:deploy/templates/deploy://service/{name}"),
    (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "deploy__plan"}, "argument": {"name": "a", "value": "b"}},
        "tools.lock:deploy/prompts/plan",
    ),
    (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "deploy://service/{name}"},
            "argument": {"name": "name", "value": "b"},
        },
        "tools.lock:deploy/templates/deploy://service/{name}",
    ),
]


@pytest.mark.parametrize(("method", "params", "rule"), WITHHELD)
@pytest.mark.parametrize("era", ERAS)
async def test_what_is_not_as_pinned_is_neither_got_nor_read_nor_completed(
    era: str, method: str, params: dict[str, Any], rule: str
) -> None:
    core = quarantining()
    answer = await post(core, era, method, params)
    assert said(answer)["error"]["data"]["code"] == "quarantined"
    assert core.requests == []
    event = core.audit.only
    assert (event.outcome, event.dispatched, event.rule, event.route) == ("quarantined", False, rule, "deploy")


@pytest.mark.parametrize(("method", "params", "rule"), WITHHELD)
async def test_who_may_not_use_it_is_told_the_same_whether_it_is_quarantined_or_not(
    method: str, params: dict[str, Any], rule: str
) -> None:
    head = "hide_unpermitted: true\n"
    cores = quarantining(head=head), Core(text=AUTH + head + ROUTES)
    answers = [await post(one, "modern", method, params, token="eve") for one in cores]
    assert answers[0].status == answers[1].status
    assert answers[0].body == answers[1].body
