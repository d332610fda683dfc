from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends import questions
from gateway.backends.link import Offer
from gateway.backends.session_pool import without_tasks
from gateway.errors import BackendUnavailable
from gateway.models import BackendReply, BackendRequest, JsonObject, Principal

ALICE = Principal(issuer="i", subject="alice")


@pytest.mark.parametrize(
    ("declared", "announced"),
    [
        ({}, {}),
        ({"elicitation": {}}, {"elicitation": {"form": {}}}),
        ({"elicitation": {"url": {}}}, {"elicitation": {"url": {}}}),
        ({"elicitation": {"form": {"x": 1}, "url": {}}}, {"elicitation": {"form": {}, "url": {}}}),
        ({"elicitation": {"voice": {}}}, {}),
        ({"elicitation": True, "sampling": None}, {}),
        ({"sampling": {"tools": {}, "x": {}}}, {"sampling": {"tools": {}}}),
        ({"roots": {"listChanged": True}, "tasks": {}, "extensions": {"a": {}}}, {"roots": {}}),
    ],
)
def test_a_backend_is_told_of_what_the_client_can_be_asked_and_of_nothing_else(
    declared: JsonObject, announced: JsonObject
) -> None:
    assert questions.profile_of(declared) == announced


@given(st.permutations(["elicitation", "sampling", "roots"]))
def test_the_order_of_capabilities_makes_no_other_profile(order: list[str]) -> None:
    texts = {
        questions.canonical(questions.profile_of({name: {} for name in names})) for names in (order, sorted(order))
    }

    assert len(texts) == 1


@pytest.mark.parametrize(
    ("profile", "method", "params", "code"),
    [
        ({"elicitation": {"form": {}}}, "elicitation/create", {}, None),
        ({"elicitation": {"form": {}}}, "elicitation/create", {"mode": "url"}, -32602),
        ({"elicitation": {"url": {}}}, "elicitation/create", {}, -32602),
        ({"sampling": {}}, "elicitation/create", {}, -32601),
        ({"sampling": {}}, "sampling/createMessage", {"tools": []}, -32602),
        ({"sampling": {"tools": {}}}, "sampling/createMessage", {"tools": []}, None),
        ({}, "roots/list", {}, -32601),
        ({"roots": {}}, "roots/list", {}, None),
        ({"roots": {}}, "tasks/get", {}, -32601),
    ],
)
def test_what_was_not_declared_is_refused(
    profile: JsonObject, method: str, params: JsonObject, code: int | None
) -> None:
    refusal = questions.undeclared(profile, method, params)

    assert (refusal.code if refusal else None) == code


@pytest.mark.parametrize(
    ("method", "params", "lacking"),
    [
        ("elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}),
        ("elicitation/create", {"mode": "dance"}, {}),
        ("sampling/createMessage", {"tools": []}, {"sampling": {"tools": {}}}),
        ("sampling/createMessage", {}, {"sampling": {}}),
        ("roots/list", {}, {"roots": {}}),
        ("tasks/get", {}, {}),
    ],
)
def test_a_refusal_names_the_capability_that_would_do(method: str, params: JsonObject, lacking: JsonObject) -> None:
    refusal = questions.undeclared({"elicitation": {"form": {}}}, method, params)

    assert refusal is not None
    assert refusal.lacking == lacking


def test_a_question_keeps_what_the_new_era_knows_and_what_nobody_knows() -> None:
    params = {
        "message": "m",
        "requestedSchema": {"type": "object"},
        "elicitationId": "1",
        "task": {"ttl": 1},
        "vendor": None,
        "_meta": {"progressToken": 1, "io.modelcontextprotocol/related-task": {}, "vendor/x": 1},
    }

    assert questions.as_modern("elicitation/create", params) == {
        "method": "elicitation/create",
        "params": {
            "message": "m",
            "requestedSchema": {"type": "object"},
            "vendor": None,
            "mode": "form",
            "_meta": {"vendor/x": 1},
        },
    }


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("elicitation/create", None),
        ("elicitation/create", {}),
        ("elicitation/create", {"action": "yes"}),
        ("elicitation/create", [{"action": "accept"}]),
        ("sampling/createMessage", {"content": {"type": "text"}}),
        ("sampling/createMessage", {"role": "assistant", "content": "text"}),
        ("roots/list", {"roots": {}}),
    ],
)
def test_what_is_no_answer_is_as_good_as_none(method: str, answer: Any) -> None:
    assert questions.as_legacy(method, answer) is None


def test_an_answer_loses_nothing_but_the_word_of_the_new_era() -> None:
    answer = {"action": "accept", "content": {"a": [1, None]}, "resultType": "complete", "vendor": None}

    assert questions.as_legacy("elicitation/create", answer) == {
        "action": "accept",
        "content": {"a": [1, None]},
        "vendor": None,
    }


def test_each_url_that_is_required_is_a_question() -> None:
    error = {
        "code": -32042,
        "data": {"elicitations": [{"url": "a", "elicitationId": "1"}, {"no": "url"}, {"url": "b"}]},
    }

    assert questions.urls_of(error) == {
        "url-1": {"method": "elicitation/create", "params": {"url": "a", "mode": "url"}},
        "url-2": {"method": "elicitation/create", "params": {"url": "b", "mode": "url"}},
    }


@pytest.mark.parametrize("error", [{}, {"code": -32042}, {"code": -32042, "data": []}, {"code": 1, "data": {}}])
def test_what_requires_no_url_asks_nothing(error: JsonObject) -> None:
    assert questions.urls_of(error) == {}


def request(**members: Any) -> BackendRequest:
    return BackendRequest(**{"method": "tools/call", "params": {"name": "t"}, "principal": ALICE, **members})


def test_a_binding_is_the_same_for_the_same_request_however_it_is_written() -> None:
    written = request(params={"name": "t", "arguments": msgspec.Raw(b'{"b": 2, "a": {"c": 1}}')})
    read = request(params={"arguments": {"a": {"c": 1}, "b": 2}, "name": "t"}, state="s", answers={}, meta={"x": 1})

    assert questions.binding_of(written) == questions.binding_of(read)


@pytest.mark.parametrize(
    "other",
    [
        request(params={"name": "u"}),
        request(params={"name": "t", "arguments": {}}),
        request(params={"uri": "t"}),
        request(method="prompts/get"),
        request(principal=Principal(issuer="i", subject="bob")),
        request(principal=Principal(issuer="j", subject="alice")),
    ],
)
def test_a_binding_is_another_for_another_request_or_principal(other: BackendRequest) -> None:
    assert questions.binding_of(other) != questions.binding_of(request())


def asks(requests: Any) -> BackendReply:
    return BackendReply({"resultType": "input_required", "inputRequests": requests, "requestState": "s"}, None, 0.0)


def test_a_modern_backend_may_ask_for_what_was_declared_alone() -> None:
    reply = asks({"k": {"method": "roots/list"}})

    assert questions.checked("r", request(capabilities={"roots": {}}), reply) is reply
    refused = questions.checked("r", request(), reply).error
    assert refused is not None
    assert (refused["code"], refused["data"]) == (-32021, {"requiredCapabilities": {"roots": {}}})


@pytest.mark.parametrize(
    "reply",
    [
        BackendReply({"resultType": "input_required"}, None, 0.0),
        asks([1]),
        asks({"k": {"method": "tools/call"}}),
        asks({"k": 1}),
    ],
)
def test_what_may_not_be_asked_is_no_answer(reply: BackendReply) -> None:
    with pytest.raises(BackendUnavailable):
        questions.checked("r", request(), reply)


def test_tools_that_run_only_as_tasks_are_not_offered_and_the_others_do_not_speak_of_it() -> None:
    tools = (
        {"name": "a", "execution": {"taskSupport": "required"}},
        {"name": "b", "execution": {"taskSupport": "optional"}, "x": None},
        {"name": "c"},
    )

    assert without_tasks(Offer(tools=tools)).tools == ({"name": "b", "x": None}, {"name": "c"})
