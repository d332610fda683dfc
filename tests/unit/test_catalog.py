"""The catalogue shows what may be called, calls what it shows, and keeps its order and its names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import catalog
from gateway.definitions.lock import NAMED_BY, NO_LOCK, Lock, pin
from gateway.errors import InsufficientScope, UnknownTool
from gateway.models import Entry, Kind, Listing, Principal
from gateway.policy.authorize import authorize

from .fakes import AUTH, LISTINGS, PEOPLE, ROUTES, call, listing, person, routes, tool

ADA, BOB, EVE = PEOPLE["ada"], PEOPLE["bob"], PEOPLE["eve"]


def built(*listings: Listing, text: str = ROUTES) -> catalog.Catalog:
    return catalog.build(routes(AUTH + text), {one.route: one for one in listings or LISTINGS})


def names(of: catalog.Catalog, who: Principal = ADA, toolset: str | None = None, kind: Kind = "tool") -> list[str]:
    return [entry.name for entry in of.visible(toolset, who, kind)]


def one_route(*tools: Any, extra: str = "scopes: []", **more: Any) -> catalog.Catalog:
    text = f"routes:\n  - name: one\n    backend: {{url: 'http://x.example/mcp'}}\n    {extra}\n"
    return built(listing("one", *tools, **more), text=text)


async def allowed(who: Principal, entry: Entry) -> bool:
    try:
        authorize(call(principal=who, entry=entry))
    except (InsufficientScope, UnknownTool):
        return False
    return True


# Who sees what


@pytest.mark.parametrize(
    ("who", "tools"),
    [
        (ADA, ["deploy__status", "deploy__rollback", "logs__search"]),
        (BOB, ["deploy__status", "logs__search"]),
        (EVE, ["logs__search"]),
    ],
)
def test_everybody_sees_what_their_scopes_allow(who: Principal, tools: list[str]) -> None:
    assert names(built(), who) == tools


SCOPES = ["a", "b", "c", "d"]
scope_sets = st.frozensets(st.sampled_from(SCOPES))
rules = st.none() | scope_sets


@given(st.lists(st.tuples(rules, st.booleans()), min_size=1, max_size=6), rules, scope_sets)
async def test_the_list_is_exactly_what_may_be_called(
    tools: list[tuple[frozenset[str] | None, bool]], of_route: frozenset[str] | None, held: frozenset[str]
) -> None:
    lines = ["routes:", "  - name: one", "    backend: {url: 'http://x.example/mcp'}"]
    if of_route is not None:
        lines.append(f"    scopes: {json.dumps(sorted(of_route))}")
    lines.append("    tools:")
    for number, (needed, hidden) in enumerate(tools):
        scopes = "" if needed is None else f"scopes: {json.dumps(sorted(needed))}, "
        lines.append(f"      t{number}: {{{scopes}hidden: {str(hidden).lower()}}}")
    who = person("ada", *held)
    made = built(listing("one", *(tool(f"t{number}") for number in range(len(tools)))), text="\n".join(lines))
    expected = [
        f"one__t{number}"
        for number, (needed, hidden) in enumerate(tools)
        if not hidden and (wanted := of_route if needed is None else needed) is not None and wanted <= held
    ]
    assert names(made, who) == expected
    assert [json.loads(text)["name"] for text in made.rendered(None, who)] == expected
    for number in range(len(tools)):
        entry = made.find(None, f"one__t{number}")
        assert (entry is not None and await allowed(who, entry)) is (f"one__t{number}" in expected)


def test_what_no_rule_names_is_neither_listed_nor_found() -> None:
    made = built()
    assert made.find(None, "dark__matter") is None
    assert made.find(None, "dark__plan", "prompt") is None
    assert made.owner(None, "dark://one") is None


def test_what_is_hidden_is_not_there_whatever_the_scopes() -> None:
    assert built().find(None, "deploy__debug_dump") is None


def test_a_list_that_was_rendered_for_one_is_not_served_to_another() -> None:
    made = built()
    assert len(made.rendered(None, ADA)) == 3
    assert len(made.rendered(None, EVE)) == 1
    assert len(made.rendered("oncall", ADA)) == 2
    assert len(made.rendered(None, ADA, "prompt")) == 2
    assert len(made.rendered(None, ADA)) == 3


def test_remembered_lists_are_bounded_and_stay_right() -> None:
    made = built()
    for number in range(1000):
        assert len(made.rendered(None, person("x", "deploy:read", f"s{number}"))) == 2
    assert len(made.rendered(None, EVE)) == 1


# Order, names, definitions


def test_the_order_is_that_of_the_routes_and_then_of_each_backend() -> None:
    parts = {"deploy": listing("deploy", tool("z"), tool("a")), "logs": listing("logs", tool("m"), tool("b"))}
    expected = ["deploy__z", "deploy__a", "logs__m", "logs__b"]
    assert names(built(parts["deploy"], parts["logs"])) == expected
    assert names(built(parts["logs"], parts["deploy"])) == expected


def test_a_definition_is_the_backends_but_for_the_name() -> None:
    definition = tool(
        "status",
        {"type": "object", "$defs": {"x": {"$anchor": "y"}}, "if": {}, "then": {"$ref": "#y"}},
        title=None,
        icons=[{"src": "x"}],
        later={"n": 1.5, "big": 10**30},
        _meta={"ui": {"resourceUri": "ui://x"}},
    )
    entry = built(listing("deploy", definition)).find(None, "deploy__status")
    assert entry is not None
    assert json.loads(entry.rendered) == {**definition, "name": "deploy__status"}
    assert list(json.loads(entry.rendered)) == list(definition)
    assert json.loads(entry.input_schema) == definition["inputSchema"]


def test_a_long_public_name_is_shortened_and_leads_to_the_tool() -> None:
    made = one_route(tool("x" * 128))
    (name,) = names(made)
    assert len(name) == 64
    entry = made.find(None, name)
    assert entry is not None
    assert entry.backend_name == "x" * 128
    assert names(one_route(tool("x" * 128))) == [name]


def test_a_route_may_have_its_own_prefix_or_none() -> None:
    assert names(one_route(tool("a"), extra="scopes: []\n    prefix: ''")) == ["a"]
    assert names(one_route(tool("a"), extra="scopes: []\n    prefix: my-")) == ["my-a"]


def test_the_first_route_keeps_a_name_that_two_would_give() -> None:
    text = """
routes:
  - {name: one, prefix: a, backend: {url: "http://x.example/mcp"}, scopes: []}
  - {name: two, prefix: b, backend: {url: "http://x.example/mcp"}, scopes: []}
"""
    made = built(
        listing("one", resources=({"uri": "x://1", "name": "n"},)),
        listing("two", tool("c"), resources=({"uri": "x://1", "name": "m"}, {"uri": "x://2", "name": "m"})),
        text=text,
    )
    owner = made.owner(None, "x://1")
    assert owner is not None
    assert owner.route == "one"
    assert names(made, kind="resource") == ["x://1", "x://2"]
    (omission,) = made.omitted
    assert (omission.route, omission.name) == ("two", "x://1")
    assert "one" in omission.reason


@given(st.lists(st.tuples(st.sampled_from(["deploy", "logs"]), st.sampled_from("abcde")), max_size=12))
def test_merged_names_are_unique_and_each_leads_to_its_own_backend(offered: list[tuple[str, str]]) -> None:
    parts = [listing(route, *(tool(name) for r, name in offered if r == route)) for route in ("deploy", "logs")]
    made = built(*parts)
    found = names(made)
    assert len(found) == len(set(found))
    assert set(found) == {f"{route}__{name}" for route, name in offered}
    for name in found:
        entry = made.find(None, name)
        assert entry is not None
        assert f"{entry.route}__{entry.backend_name}" == name


# What is left out


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ({"inputSchema": {}}, "no name"),
        ({"name": 5, "inputSchema": {}}, "no name"),
        ({"name": "", "inputSchema": {}}, "no name"),
        ({"name": "a b", "inputSchema": {}}, "A-Z"),
        ({"name": "x" * 129, "inputSchema": {}}, "A-Z"),
        ({"name": "a"}, "input schema"),
        ({"name": "a", "inputSchema": None}, "input schema"),
        ({"name": "a", "inputSchema": True}, "input schema"),
        (tool("a", description="x" * 200_001), "bytes"),
    ],
)
def test_a_tool_that_no_client_could_use_is_left_out_with_a_reason(definition: Any, reason: str) -> None:
    made = one_route(definition, tool("good"))
    assert names(made) == ["one__good"]
    (omission,) = made.omitted
    assert omission.route == "one"
    assert reason in omission.reason


def test_a_second_tool_of_a_name_is_left_out() -> None:
    made = one_route(tool("a", title="first"), tool("a", title="second"))
    (text,) = made.rendered(None, ADA)
    assert json.loads(text)["title"] == "first"
    assert made.omitted[0].name == "a"


BAD_HEADER = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "not a token"}}}
GOOD_HEADER = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "Region"}}}


def test_an_invalid_header_annotation_leaves_a_tool_of_an_http_backend_out() -> None:
    made = one_route(tool("a", BAD_HEADER), tool("b", GOOD_HEADER))
    assert names(made) == ["one__b"]
    entry = made.find(None, "one__b")
    assert entry is not None
    assert entry.param_headers == {("a",): "Region"}


def test_an_invalid_header_annotation_of_a_stdio_backend_does_not_reach_clients_that_would_drop_the_tool() -> None:
    (text,) = one_route(tool("a", BAD_HEADER), over_http=False).rendered(None, ADA)
    assert b"x-mcp-header" not in text


def test_a_route_that_was_never_listed_is_absent() -> None:
    made = built(LISTINGS[1])
    assert names(made) == ["logs__search"]
    assert list(made.routes(None)) == ["logs"]


def test_a_catalogue_of_nothing_has_empty_lists_and_tools() -> None:
    made = catalog.build(routes(AUTH + ROUTES), {})
    assert names(made) == []
    assert made.capabilities(None) == {"tools": {}}
    assert names(made, toolset="plain") == []


# Toolsets


def test_a_toolset_has_what_its_patterns_name_and_nothing_else_can_be_called_through_it() -> None:
    made = built()
    assert names(made, ADA, "oncall") == ["deploy__status", "logs__search"]
    assert made.find("oncall", "deploy__rollback") is None
    assert made.find("plain", "deploy__status") is None
    assert made.find("plain", "status") is None


def test_plain_names_are_those_of_the_backend() -> None:
    made = built()
    assert names(made, ADA, "plain") == ["search"]
    assert names(made, ADA, "plain", "prompt") == ["plan"]
    assert made.find("plain", "logs__search") is None


def test_prompts_and_resources_of_a_toolset_are_those_of_its_routes() -> None:
    made = built()
    assert names(made, ADA, "oncall", "prompt") == ["deploy__plan", "logs__plan"]
    assert made.owner("plain", "deploy://state") is None
    assert made.owner("plain", "deploy://service/x") is None
    assert made.owner("plain", "logs://today") is not None


def test_patterns_hold_in_a_toolset_of_plain_names_too() -> None:
    text = """
routes:
  - {name: logs, backend: {url: "http://x.example/mcp"}, scopes: []}
toolsets:
  reading: {routes: [logs], tools: ["logs__get_*"], names: plain}
"""
    made = built(listing("logs", tool("get_line"), tool("delete_all")), text=text)
    assert names(made, ADA, "reading") == ["get_line"]
    assert made.find("reading", "delete_all") is None


def test_scopes_are_the_same_through_every_toolset() -> None:
    assert names(built(), EVE, "oncall") == ["logs__search"]


def test_a_toolset_that_is_not_configured_is_not_there() -> None:
    made = built()
    assert [made.has(name) for name in (None, "oncall", "plain", "other", "")] == [True, True, True, False, False]


def test_a_toolset_reaches_its_routes_alone() -> None:
    made = built()
    assert [made.reaches("plain", route) for route in ("logs", "deploy", "nowhere")] == [True, False, False]


def test_capabilities_are_the_union_over_the_routes_of_a_toolset() -> None:
    made = built(
        listing("deploy", capabilities={"prompts": {"listChanged": True}, "resources": {"subscribe": True}}),
        listing("logs", capabilities={"resources": {}, "completions": {}, "x": {}, "logging": None}),
    )
    assert made.capabilities(None) == {
        "tools": {},
        "prompts": {},
        "resources": {"subscribe": True},
        "completions": {},
    }
    assert made.capabilities("plain") == {"tools": {}, "resources": {}, "completions": {}}


# Changes


def test_a_change_that_somebody_may_see_is_told_by_its_kind() -> None:
    before = built()
    assert built().differing(before) == []
    fewer = built(LISTINGS[0], listing("logs", tool("search")), LISTINGS[2])
    assert fewer.differing(before) == ["prompt", "resource"]
    assert built(LISTINGS[0], LISTINGS[1]).differing(before) == []
    assert built(text=ROUTES.replace("deploy:write, ", "")).differing(before) == ["tool"]
    assert built(text=ROUTES.replace('"logs__*"', "deploy__rollback")).differing(before) == ["tool"]


# Resources


@pytest.mark.parametrize(
    ("uri", "owner"),
    [
        ("deploy://state", ("resource", "deploy://state")),
        ("deploy://service/api", ("template", "deploy://service/{name}")),
        ("deploy://service/a/b", None),
        ("deploy://STATE", None),
        ("other://x", None),
        ("", None),
    ],
)
def test_a_uri_belongs_to_the_resource_listed_under_it_or_to_a_template(
    uri: str, owner: tuple[str, str] | None
) -> None:
    entry = built().owner(None, uri)
    assert (None if entry is None else (entry.kind, entry.name)) == owner


def test_a_listed_resource_goes_before_a_template_that_matches_it() -> None:
    made = built(
        listing(
            "deploy",
            resources=({"uri": "deploy://service/api", "name": "n"},),
            templates=({"uriTemplate": "deploy://service/{name}", "name": "n"},),
        )
    )
    entry = made.owner(None, "deploy://service/api")
    assert entry is not None
    assert entry.kind == "resource"


def test_a_template_that_is_none_matches_nothing() -> None:
    made = built(listing("logs", templates=({"uriTemplate": "logs://{", "name": "n"},)))
    assert made.owner(None, "logs://{") is None


# Idempotence


@pytest.mark.parametrize(
    ("annotations", "trusted", "idempotent"),
    [
        ({"readOnlyHint": True}, True, True),
        ({"idempotentHint": True}, True, True),
        ({"readOnlyHint": True}, False, False),
        ({"readOnlyHint": "yes"}, True, False),
        ({"destructiveHint": False}, True, False),
        (None, True, False),
        ("readOnlyHint", True, False),
    ],
)
def test_a_tool_is_idempotent_by_an_annotation_that_the_operator_trusts(
    annotations: Any, trusted: bool, idempotent: bool
) -> None:
    text = f"""
routes:
  - name: one
    backend: {{url: "http://x.example/mcp", trust_annotations: {str(trusted).lower()}}}
    scopes: []
"""
    entry = built(listing("one", tool("a", annotations=annotations)), text=text).find(None, "one__a")
    assert entry is not None
    assert entry.idempotent is idempotent


def test_what_is_read_is_idempotent() -> None:
    made = built()
    prompt, resource = made.find(None, "logs__plan", "prompt"), made.find(None, "logs://today", "resource")
    assert prompt is not None
    assert resource is not None
    assert (prompt.idempotent, resource.idempotent) == (True, True)


# Pins


PINNED = """
routes:
  - {name: one, backend: {url: "http://x.example/mcp"}, scopes: [], pins: block}
  - {name: two, backend: {url: "http://y.example/mcp"}, scopes: [], pins: warn}
toolsets:
  some: {routes: [one], tools: ["one__a*"]}
  bare: {routes: [one], names: plain, tools: ["one__a*"]}
"""


def pinned(*tools: Any, lock: Lock | None) -> catalog.Catalog:
    listings = {name: listing(name, *tools) for name in ("one", "two")}
    return catalog.build(routes(AUTH + PINNED), listings, lock)


def approved(*tools: Any) -> Lock:
    return Lock({name: {"tool": {one["name"]: pin(one) for one in tools}} for name in ("one", "two")})


def test_a_tool_that_is_not_as_pinned_is_withheld_everywhere_where_the_route_blocks() -> None:
    made = pinned(tool("a1", title="x"), tool("b"), tool("a2"), lock=approved(tool("a1"), tool("b"), tool("a2")))
    assert names(made) == ["one__b", "one__a2", "two__a1", "two__b", "two__a2"]
    assert names(made, toolset="some") == ["one__a2"]
    assert names(made, toolset="bare") == ["a2"]
    for toolset, name in ((None, "one__a1"), ("some", "one__a1"), ("bare", "a1")):
        assert made.find(toolset, name) is None
        withheld = made.quarantined(toolset, name)
        assert withheld is not None
        assert withheld.backend_name == "a1"
    assert [(it.route, it.backend_name, it.withheld) for it in made.drifts] == [
        ("one", "a1", True),
        ("two", "a1", False),
    ]


def test_a_second_definition_of_a_quarantined_name_does_not_take_its_place() -> None:
    made = pinned(tool("a1", title="x"), tool("a1"), lock=approved(tool("a1")))
    assert made.find(None, "one__a1") is None
    assert made.quarantined(None, "one__a1") is not None
    assert [it.reason for it in made.omitted] == ["a second tool of this name"] * 2


def test_without_a_lock_file_every_tool_is_new() -> None:
    made = pinned(tool("a1"), tool("b"), lock=NO_LOCK)
    assert names(made) == ["two__a1", "two__b"]
    assert {it.change for it in made.drifts} == {"new"}


def test_a_change_of_hidden_characters_alone_is_a_change() -> None:
    made = pinned(tool("a1", description="x\u200by"), lock=approved(tool("a1", description="xy")))
    assert made.find(None, "one__a1") is None


def test_a_toolset_does_not_know_what_is_quarantined_outside_of_it() -> None:
    made = pinned(tool("b"), lock=NO_LOCK)
    assert made.quarantined(None, "one__b") is not None
    assert made.quarantined("some", "one__b") is None
    assert made.quarantined("bare", "b") is None
    assert made.quarantined(None, "two__b") is None


# Claims on what others have


TWO = """
routes:
  - {name: one, backend: {url: "http://x.example/mcp"}, scopes: []}
  - {name: two, backend: {url: "http://y.example/mcp"}, scopes: []}
"""


@pytest.mark.parametrize("template", ["{+any}", "{scheme}://{rest}", "/{path}"])
def test_a_template_without_a_scheme_cannot_claim_the_uris_of_other_routes(template: str) -> None:
    greedy = listing("one", templates=({"uriTemplate": template, "name": "n"},))
    other = listing("two", templates=({"uriTemplate": "two://{x}", "name": "n"},))
    made = built(greedy, other, text=TWO)
    owner = made.owner(None, "two://a")
    assert owner is not None
    assert owner.route == "two"
    assert [(it.route, it.kind) for it in made.omitted] == [("one", "template")]
    alone = built(greedy, text=TWO.partition("  - {name: two")[0])
    assert names(alone, kind="template") == [template]


def test_a_tool_cannot_be_called_by_the_public_name_of_another_route_s() -> None:
    made = built(listing("one", tool("two__a"), tool("a")), listing("two", tool("a")), text=TWO)
    assert names(made) == ["one__two__a", "one__a", "two__a"]
    for name in names(made):
        entry = made.find(None, name)
        assert entry is not None
        assert name == f"{entry.route}__{entry.backend_name}"


# What is built again


def test_only_what_changed_is_made_again_and_everything_is_as_if_it_were() -> None:
    builder, given = catalog.Builder(), routes(AUTH + PINNED)
    listings = {name: listing(name, tool("a1"), tool("b", description="x\u200b")) for name in ("one", "two")}
    lock = approved(tool("a1"))
    first = builder.build(given, listings, lock)
    listings["two"] = listing("two", tool("c"))
    second = builder.build(given, listings, lock)
    fresh = catalog.build(given, listings, lock)
    for toolset in (None, "some", "bare"):
        assert names(second, toolset=toolset) == names(fresh, toolset=toolset)
        assert second.find(toolset, "a1") is first.find(toolset, "a1")
    assert second.find(None, "one__a1") is first.find(None, "one__a1")
    assert (second.omitted, second.cleaned, second.drifts) == (fresh.omitted, fresh.cleaned, fresh.drifts)
    third = builder.build(given, listings, approved(tool("b", description="x\u200b")))
    assert names(third) == ["one__b", "two__c"]
    assert names(builder.build(routes(AUTH + PINNED), listings, lock)) == names(fresh)
    stricter = routes(AUTH + PINNED.replace("pins: warn", "pins: block"))
    assert names(builder.build(stricter, listings, lock)) == ["one__a1"]


# Pins of prompts, resources and templates

PROMPT, RESOURCE = {"name": "plan"}, {"uri": "x://state", "name": "state"}
TEMPLATE = {"uriTemplate": "x://{+rest}", "name": "all"}
EACH: dict[Kind, Any] = {"prompt": PROMPT, "resource": RESOURCE, "template": TEMPLATE}


def offering(pins: str, lock: Lock = NO_LOCK, **changed: Any) -> catalog.Catalog:
    text = AUTH + f"routes: [{{name: one, backend: {{url: 'http://x/mcp'}}, scopes: [], pins: {pins}}}]"
    lists: dict[str, Any] = {"prompts": (PROMPT,), "resources": (RESOURCE,), "templates": (TEMPLATE,), **changed}
    return catalog.build(routes(text), {"one": listing("one", **lists)}, lock)


def of_each() -> Lock:
    named = {kind: definition[NAMED_BY[kind]] for kind, definition in EACH.items()}
    return Lock({"one": {kind: {named[kind]: pin(definition)} for kind, definition in EACH.items()}})


def shown(made: catalog.Catalog) -> list[Kind]:
    return [kind for kind in EACH if list(made.entries(None, kind))]


def test_every_kind_is_held_to_its_own_pins() -> None:
    assert shown(offering("block", of_each())) == list(EACH)
    assert shown(offering("block")) == []
    assert shown(offering("{tools: block}")) == list(EACH)
    assert shown(offering("{prompts: block, resources: warn}")) == ["resource", "template"]
    assert shown(offering("{templates: block}")) == ["prompt", "resource"]
    made = offering("block", of_each(), prompts=({**PROMPT, "description": "Obey."},))
    assert shown(made) == ["resource", "template"]
    assert [(it.kind, it.backend_name, it.fields) for it in made.drifts] == [("prompt", "plan", ("description",))]


def test_a_quarantined_resource_is_not_had_through_an_approved_template() -> None:
    made = offering("{resources: block, templates: off}")
    held = made.withheld_owner(None, "x://state")
    assert held is not None
    assert held.kind == "resource"
    assert made.withheld_owner(None, "x://other") is None


def test_no_route_takes_over_what_another_has_in_quarantine() -> None:
    text = "routes:\n" + "".join(
        f"  - {{name: {name}, backend: {{url: 'http://x/mcp'}}, scopes: [], pins: {pins}}}\n"
        for name, pins in (("one", "block"), ("two", "off"))
    )
    listings = {name: listing(name, resources=(RESOURCE,)) for name in ("one", "two")}
    made = catalog.build(routes(AUTH + text), listings, NO_LOCK)
    assert made.find(None, "x://state", "resource") is None
    assert [it.route for it in made.omitted] == ["two"]
