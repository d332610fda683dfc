"""What clients of both eras can do, as it is carried to backends."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.protocol import clients

from ..fakes import request

EVERYTHING = {
    "sampling": {"tools": {}},
    "elicitation": {"form": {}, "url": {}},
    "roots": {"listChanged": True},
    "tasks": {"list": {}},
    "experimental": {"x": {}},
}


def carried(revision: str, capabilities: dict[str, Any], *, can_ask: bool = True, urls: bool = True) -> Any:
    era = "modern" if revision == "2026-07-28" else "legacy"
    of = request(era=era, revision=revision, capabilities=capabilities)
    return clients.carried_capabilities(of, can_ask=can_ask, urls=urls)


@pytest.mark.parametrize("can_ask", [True, False])
def test_modern_capabilities_are_carried_as_they_are(can_ask: bool) -> None:
    others = {name: value for name, value in EVERYTHING.items() if name != "tasks"}
    assert carried("2026-07-28", EVERYTHING, can_ask=can_ask) == others


def test_the_tasks_extension_is_not_carried_and_others_are() -> None:
    extensions = {"io.modelcontextprotocol/tasks": {}, "io.modelcontextprotocol/ui": {"mimeTypes": ["text/html"]}}
    assert carried("2026-07-28", {"extensions": extensions, "roots": {}}) == {
        "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html"]}},
        "roots": {},
    }


@pytest.mark.parametrize("extensions", [None, [], "io.modelcontextprotocol/tasks"])
def test_extensions_of_another_type_are_left_to_the_backend(extensions: Any) -> None:
    assert carried("2026-07-28", {"extensions": extensions}) == {"extensions": extensions}


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("2025-11-25", {"sampling": {"tools": {}}, "roots": {}, "elicitation": {"form": {}, "url": {}}}),
        ("2025-06-18", {"sampling": {"tools": {}}, "roots": {}, "elicitation": {}}),
        ("2025-03-26", {"sampling": {"tools": {}}, "roots": {}}),
    ],
)
def test_a_legacy_client_can_what_its_revision_knows(revision: str, expected: Any) -> None:
    assert carried(revision, EVERYTHING) == expected


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"form": {}, "url": {}}, {"elicitation": {"form": {}}}),
        ({"url": {}}, {}),
        ({"form": {}}, {"elicitation": {"form": {}}}),
        ({}, {"elicitation": {}}),
    ],
)
def test_urls_are_withheld_and_never_become_forms(revision: str, declared: Any, told: Any) -> None:
    capabilities = {"elicitation": declared, "sampling": {}}
    assert carried(revision, capabilities, urls=False) == {**told, "sampling": {}}
    assert capabilities == {"elicitation": declared, "sampling": {}}


def test_a_legacy_client_that_cannot_be_asked_can_nothing() -> None:
    assert carried("2025-11-25", EVERYTHING, can_ask=False) == {}


def test_capabilities_of_another_type_count_as_none() -> None:
    assert carried("2025-11-25", {"sampling": True, "roots": [], "elicitation": "yes"}) == {}


def test_a_request_wants_the_level_it_names_or_no_messages() -> None:
    assert clients.log_level_of(request()) is None
    assert clients.log_level_of(request(meta={clients.LOG_LEVEL: "warning"})) == "warning"


@pytest.mark.parametrize("level", ["loud", "", "Warning", 5, True, [], {}])
def test_a_level_there_is_none_of_is_refused_with_those_there_are(level: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        clients.log_level_of(request(meta={clients.LOG_LEVEL: level}))
    assert (caught.value.code, caught.value.status) == (INVALID_PARAMS, 200)
    assert "emergency" in caught.value.message


@pytest.mark.parametrize(("level", "wanted"), list(product(range(8), range(8))))
def test_a_message_is_sent_to_who_wants_its_level_or_less(level: int, wanted: int) -> None:
    assert clients.at_least(clients.LOG_LEVELS[level], clients.LOG_LEVELS[wanted]) is (level >= wanted)


@pytest.mark.parametrize("level", [None, "loud", 5, [], {}])
def test_a_message_without_a_level_is_sent_to_nobody(level: Any) -> None:
    assert not clients.at_least(level, "debug")


def test_a_url_question_has_an_id_of_its_own_for_a_legacy_client() -> None:
    params = {"mode": "url", "url": "https://x.example", "message": "m"}
    one, two = (clients.question("elicitation/create", params, "2025-11-25") for _ in range(2))
    assert {**one, "elicitationId": None} == {**params, "elicitationId": None}
    assert one["elicitationId"] != two["elicitationId"]
    assert len(one["elicitationId"]) >= 16


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("elicitation/create", {"message": "m", "requestedSchema": {}}),
        ("elicitation/create", {"mode": "url", "elicitationId": "backends"}),
        ("sampling/createMessage", {"mode": "url"}),
        ("roots/list", {}),
    ],
)
def test_every_other_question_is_asked_as_it_is(method: str, params: dict[str, Any]) -> None:
    assert clients.question(method, params, "2025-11-25") == params
