"""URIs that a backend named in a result lead back to it, for the principal that was told and nobody else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.strict_json import members
from gateway.seen import MAX_PRINCIPALS, MAX_URIS, SeenUris

from .fakes import person

ADA, BOB = person("ada"), person("bob")
LINK = {"type": "resource_link", "uri": "a:1", "name": "n"}


def noted(*blocks: Any, raw: bool = False) -> SeenUris:
    seen = SeenUris()
    content = list(blocks)
    seen.note(ADA, "deploy", "tools/call", {"content": msgspec.Raw(json.dumps(content).encode()) if raw else content})
    return seen


@pytest.mark.parametrize("raw", [True, False], ids=["as bytes", "decoded"])
def test_links_and_embedded_resources_are_remembered(raw: bool) -> None:
    embedded = {"type": "resource", "resource": {"uri": "a:2", "text": "t"}}
    seen = noted({"type": "text", "text": "t"}, LINK, embedded, raw=raw)
    assert [seen.route_of(ADA, uri) for uri in ("a:1", "a:2", "a:3")] == ["deploy", "deploy", None]


def test_what_one_principal_was_told_says_nothing_to_another() -> None:
    assert noted(LINK).route_of(BOB, "a:1") is None


def test_other_scopes_of_the_same_principal_are_the_same_principal() -> None:
    assert noted(LINK).route_of(person("ada", "deploy:read"), "a:1") == "deploy"


def test_the_last_route_that_named_a_uri_owns_it() -> None:
    seen = noted(LINK)
    seen.note(ADA, "logs", "tools/call", {"content": [LINK]})
    assert seen.route_of(ADA, "a:1") == "logs"


@pytest.mark.parametrize(
    "content",
    [
        None,
        5,
        "a:1",
        {},
        [None, 5, "a:1", ["uri"]],
        [{"uri": 5}, {"uri": None}, {"uri": ["a:1"]}, {"type": "resource", "resource": None}],
        [{"type": "resource", "resource": "a:1"}],
        [{"uri": "a" * 2049}],
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_content_of_another_shape_names_nothing_and_breaks_nothing(content: Any, raw: bool) -> None:
    seen = SeenUris()
    seen.note(ADA, "deploy", "tools/call", {"content": msgspec.Raw(json.dumps(content).encode()) if raw else content})
    seen.note(ADA, "deploy", "tools/call", {})
    assert seen.route_of(ADA, "a:1") is None


def test_a_number_that_no_double_holds_breaks_nothing() -> None:
    result = members(b'{"content":[{"type":"resource_link","uri":"a:1","size":1e999}]}')
    SeenUris().note(ADA, "deploy", "tools/call", result)


@given(st.lists(st.integers(0, 3 * MAX_URIS), max_size=2 * MAX_URIS))
def test_no_more_than_the_last_uris_of_a_principal_are_kept(numbers: list[int]) -> None:
    seen = SeenUris()
    for number in numbers:
        seen.note(ADA, "deploy", "tools/call", {"content": [{"uri": f"a:{number}"}]})
    latest = list(dict.fromkeys(reversed(numbers)))
    kept = [number for number in latest if seen.route_of(ADA, f"a:{number}")]
    assert kept == latest[:MAX_URIS]


def test_no_more_than_the_last_principals_are_kept() -> None:
    seen = SeenUris()
    for number in range(MAX_PRINCIPALS):
        seen.note(person(f"p{number}"), "deploy", "tools/call", {"content": [LINK]})
    seen.note(person("p0"), "deploy", "tools/call", {"content": [LINK]})
    seen.note(person("new"), "deploy", "tools/call", {"content": [LINK]})
    kept = [name for name in ("p0", "p1", "p2", "new") if seen.route_of(person(name), "a:1")]
    assert kept == ["p0", "p2", "new"]


@pytest.mark.parametrize("raw", [True, False], ids=["as bytes", "decoded"])
@pytest.mark.parametrize(
    ("method", "member", "parts"),
    [
        ("prompts/get", "messages", [{"role": "user", "content": LINK}, {"role": "user", "content": {"type": "text"}}]),
        ("prompts/get", "messages", [{"role": "user", "content": {"type": "resource", "resource": {"uri": "a:1"}}}]),
        ("resources/read", "contents", [{"uri": "a:1", "text": "t"}, {"uri": 5}]),
    ],
)
def test_prompts_and_contents_name_resources_too(method: str, member: str, parts: Any, raw: bool) -> None:
    seen = SeenUris()
    result = {member: msgspec.Raw(json.dumps(parts).encode()) if raw else parts}
    assert seen.note(ADA, "deploy", method, result) == ["a:1"]
    assert seen.route_of(ADA, "a:1") == "deploy"


def test_a_completion_names_nothing() -> None:
    assert SeenUris().note(ADA, "deploy", "completion/complete", {"completion": {"values": ["a:1"]}}) == []


def test_what_was_known_is_not_told_again_and_another_owner_is() -> None:
    seen = noted(LINK)
    assert seen.note(ADA, "deploy", "tools/call", {"content": [LINK]}) == []
    assert seen.note(ADA, "logs", "tools/call", {"content": [LINK]}) == ["a:1"]
    assert seen.note(BOB, "logs", "tools/call", {"content": [LINK]}) == ["a:1"]
