from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes import checks
from gateway.routes.document import render

PREFIXES = st.lists(st.text("ab_", max_size=4), max_size=6)


def found(data: dict[str, Any]) -> list[str]:
    return [render(where) for where, _what, _hint in checks.of_values(data)]


@given(PREFIXES)
def test_prefixes_are_refused_exactly_when_two_routes_could_share_a_public_name(prefixes: list[str]) -> None:
    routes = [{"name": f"r{index}", "prefix": prefix} for index, prefix in enumerate(prefixes)]
    collide = any(a.startswith(b) for i, a in enumerate(prefixes) for j, b in enumerate(prefixes) if i != j)
    assert bool(found({"routes": routes})) == collide


KEYS = st.sampled_from(["routes", "name", "prefix", "toolsets", "tools", "limits", "backend", "env", "TOKEN", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, JSON))
def test_values_of_any_shape_are_looked_at_without_an_error(data: dict[str, Any]) -> None:
    for where in found(data):
        assert where


def test_a_toolset_pattern_that_reaches_into_a_prefix_is_accepted() -> None:
    routes = [{"name": "deploy"}, {"name": "logs"}]
    good = ["deploy__*", "dep*", "*", "*__search", "logs__search", "[dl]*", "deploy__"]
    assert found({"routes": routes, "toolsets": {"t": {"routes": ["deploy", "logs"], "tools": good}}}) == []


def test_a_toolset_pattern_that_can_match_nothing_is_found() -> None:
    routes = [{"name": "deploy"}, {"name": "logs"}]
    bad = ["deploy_x*", "search", "dep", "logs__*"]
    assert found({"routes": routes, "toolsets": {"t": {"routes": ["deploy"], "tools": bad}}}) == [
        f"toolsets.t.tools[{index}]" for index in range(4)
    ]


@pytest.mark.parametrize(
    "prefixes", [("deploy__", "Deploy__"), ("logs__", "1ogs__"), ("a-b__", "a_b__"), ("x", "Xy"), ("o_", "0_x")]
)
def test_prefixes_whose_names_could_be_taken_for_one_another_are_refused(prefixes: tuple[str, str]) -> None:
    for order in (prefixes, prefixes[::-1]):
        routes = [{"name": f"r{index}", "prefix": prefix} for index, prefix in enumerate(order)]
        ((where, what, hint),) = checks.of_values({"routes": routes})
        assert render(where) == "routes[1].prefix"
        assert all(repr(prefix) in what for prefix in prefixes)
        assert "prefix" in hint


def test_a_route_without_a_prefix_can_stand_alone_only() -> None:
    assert found({"routes": [{"name": "a", "prefix": ""}]}) == []
    assert found({"routes": [{"name": "a", "prefix": ""}, {"name": "b"}]}) == ["routes[1].prefix"]
