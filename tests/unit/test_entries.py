"""What a backend offers becomes an entry that agents may read, or is left out with a reason and harms no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.entries import Entries, Findings, entries_of
from gateway.models import Listing

from .fakes import AUTH, listing, routes, tool

ZERO = "\u200b"


def made(of: Listing, *, more: str = "") -> tuple[Entries, Findings]:
    text = f"routes:\n  - name: one\n    backend: {{url: 'http://x.example/mcp'}}\n    scopes: []\n{more}"
    (route,) = routes(AUTH + text).routes
    findings = Findings()
    return entries_of(route, of, route.prefix, findings), findings


def test_hidden_characters_are_removed_from_what_is_listed_and_this_is_told() -> None:
    entries, findings = made(listing("one", tool("a", description=f"Saf{ZERO}e."), tool("b", description="Größe")))
    assert json.loads(entries.shown["tool"]["one__a"].rendered)["description"] == "Safe."
    assert ZERO not in entries.shown["tool"]["one__a"].definition["description"]
    assert json.loads(entries.shown["tool"]["one__b"].rendered)["description"] == "Größe"
    (cleaned,) = findings.cleaned
    assert (cleaned.route, cleaned.kind, cleaned.name) == ("one", "tool", "a")
    assert "description" in cleaned.reason
    assert findings.omitted == []


def test_a_lone_surrogate_is_removed_like_anything_hidden() -> None:
    entries, findings = made(listing("one", tool("a", description="x\ud800y")))
    assert json.loads(entries.shown["tool"]["one__a"].rendered)["description"] == "xy"
    assert len(findings.cleaned) == 1


def test_the_schema_that_judges_arguments_is_the_one_that_is_shown() -> None:
    schema = {"type": "object", "properties": {"a": {"description": f"x{ZERO}"}}}
    entries, _findings = made(listing("one", tool("a", schema)))
    entry = entries.shown["tool"]["one__a"]
    assert json.loads(entry.input_schema) == json.loads(entry.rendered)["inputSchema"]
    assert ZERO.encode() not in entry.input_schema


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("tool", listing("one", tool("a", {"properties": {f"x{ZERO}": {}}}), tool("good"))),
        ("tool", listing("one", tool("a", {"properties": {"x": {"enum": [ZERO]}}}), tool("good"))),
        ("tool", listing("one", tool(f"a{ZERO}"), tool("good"))),
        ("prompt", listing("one", prompts=({"name": f"a{ZERO}"}, {"name": "good"}))),
        ("resource", listing("one", resources=({"uri": f"x://{ZERO}", "name": "n"}, {"uri": "good", "name": "n"}))),
        ("template", listing("one", templates=({"uriTemplate": f"x://{ZERO}"}, {"uriTemplate": "good"}))),
    ],
)
def test_what_cannot_be_cleaned_is_left_out_alone(kind: Any, of: Listing) -> None:
    entries, findings = made(of)
    assert [name.removeprefix("one__") for name in entries.shown[kind]] == ["good"]
    (omitted,) = findings.omitted
    assert omitted.kind == kind
    assert "U+200B" in omitted.reason
    assert omitted.name.isprintable()


def test_what_no_rule_exposes_is_not_looked_at() -> None:
    hidden = "    tools: {a: {hidden: true}}\n"
    entries, findings = made(listing("one", tool("a", description=ZERO), {"name": "a"}), more=hidden)
    assert entries.shown["tool"] == {}
    assert findings == Findings()


def test_a_property_that_is_called_like_the_header_annotation_stays() -> None:
    schema = {
        "type": "object",
        "properties": {
            "x-mcp-header": {"type": "string", "default": {"x-mcp-header": 1}},
            "a": {"type": "string", "x-mcp-header": "not a token"},
        },
    }
    entries, _findings = made(listing("one", tool("a", schema), over_http=False))
    assert json.loads(entries.shown["tool"]["one__a"].input_schema)["properties"] == {
        "x-mcp-header": {"type": "string", "default": {"x-mcp-header": 1}},
        "a": {"type": "string"},
    }


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (tool("a", {"type": "nonsense"}), "input schema"),
        (tool("a", {"$ref": "https://x.example/s.json"}), "input schema"),
        (tool("a", {"properties": {"x": {"pattern": r"(\w)\1"}}}), "too long"),
        (tool("a", {}, outputSchema={"$ref": "#"}), "output schema"),
        (tool("a", {}, description=["x"]), "no text"),
        (tool("a", {}, _meta=json.loads("[" * 80 + "]" * 80)), "64 levels"),
        (tool("a", {}, _meta=json.loads("[" * 900 + "]" * 900)), "64 levels"),
        (tool("a", {}, description="x" * 200_001), "bytes"),
    ],
)
def test_a_tool_that_could_harm_is_left_out_alone(bad: Any, why: str) -> None:
    entries, findings = made(listing("one", bad, tool("good")))
    assert list(entries.shown["tool"]) == ["one__good"]
    (omitted,) = findings.omitted
    assert why in omitted.reason


# Names that could be taken for others


@pytest.mark.parametrize("other", ["Rollback", "ro11back", "ROLLBACK", "rollback"])
def test_of_names_that_look_alike_the_first_is_kept(other: str) -> None:
    entries, findings = made(listing("one", tool("rollback"), tool(other), tool("good")))
    assert list(entries.shown["tool"]) == ["one__rollback", "one__good"]
    (omitted,) = findings.omitted
    assert omitted.name == other


def test_prompts_that_look_alike_are_told_apart_too_and_a_tool_is_no_prompt() -> None:
    prompts = ({"name": "plan"}, {"name": "P\uff4can"}, {"name": "Rollback"})
    entries, findings = made(listing("one", tool("rollback"), prompts=prompts))
    assert list(entries.shown["prompt"]) == ["one__plan", "one__Rollback"]
    assert len(findings.omitted) == 1


RULES = """    tools:
      rollback: {scopes: [deploy:admin]}
      "debug_*": {hidden: true}
      list_all: {}
      "list_*": {scopes: [x]}
"""


@pytest.mark.parametrize("name", ["Rollback", "ro1lback", "DEBUG_dump", "debug-dump", "Iist_x"])
def test_a_name_does_not_slip_past_a_rule_by_looking_like_one_that_has_it(name: str) -> None:
    entries, findings = made(listing("one", tool(name), tool("other")), more=RULES)
    assert list(entries.shown["tool"]) == ["one__other"]
    (omitted,) = findings.omitted
    assert "rule" in omitted.reason


@pytest.mark.parametrize("name", ["rollback", "list_all", "list_x", "other"])
def test_a_name_that_has_its_rule_is_shown(name: str) -> None:
    entries, findings = made(listing("one", tool(name)), more=RULES)
    assert list(entries.shown["tool"]) == [f"one__{name}"]
    assert findings.omitted == []


def test_descriptions_end_with_scopes_and_limits_where_that_is_wanted_and_nothing_else_is_touched() -> None:
    limits = "    limits: [{per: principal, limit: 5, window: 1s}]\n"
    offered = listing("one", tool("a", description="Does it."), prompts=({"name": "p", "description": "Plans."},))
    told, _ = made(offered, more=limits + "    describe_limits: true\n")
    plain, _ = made(offered, more=limits)
    shown = json.loads(told.shown["tool"]["one__a"].rendered)
    assert shown["description"] == "Does it.\nLimited to 5 per 1s for each principal."
    assert {**shown, "description": "Does it."} == json.loads(plain.shown["tool"]["one__a"].rendered)
    assert told.shown["tool"]["one__a"].definition == plain.shown["tool"]["one__a"].definition
    assert told.shown["prompt"]["one__p"].rendered == plain.shown["prompt"]["one__p"].rendered
