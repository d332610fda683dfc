"""A token's text and claims, read with their types. What makes a principal is in the tests of ``authenticate``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import tokens
from gateway.errors import Unauthenticated

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("claims", "names", "scopes"),
    [
        ({"scope": "a b"}, ["scope"], {"a", "b"}),
        ({"scp": ["a", "b"]}, ["scope", "scp"], {"a", "b"}),
        ({"scope": " a  b "}, ["scope"], {"a", "b"}),
        ({"scope": "a", "roles": ["b"]}, ["scope", "roles"], {"a", "b"}),
        ({"realm_access": {"roles": ["a"]}}, ["realm_access.roles"], {"a"}),
        ({"resource_access": {"gw": {"roles": ["a"]}}}, ["resource_access.gw.roles"], {"a"}),
        ({"https://example.com/roles": ["a"]}, ["https://example.com/roles"], {"a"}),
        ({"a.b": "flat", "a": {"b": "nested"}}, ["a.b"], {"flat"}),
        ({"realm_access": "text"}, ["realm_access.roles"], set()),
        ({"realm_access": {}}, ["realm_access.roles"], set()),
        ({}, ["scope", "a.b.c"], set()),
    ],
)
def test_scopes_are_the_union_of_the_claims_that_are_there(claims: Any, names: list[str], scopes: set[str]) -> None:
    assert tokens.scopes(claims, names) == scopes


@pytest.mark.parametrize("value", [None, 1, True, {"a": 1}, ["a", 1], [["a"]]])
def test_scopes_of_another_type_are_refused_wherever_they_are(value: Any) -> None:
    for claims, name in (({"scope": value}, "scope"), ({"realm_access": {"roles": value}}, "realm_access.roles")):
        with pytest.raises(Unauthenticated) as caught:
            tokens.scopes(claims, [name])
        assert caught.value.reason == "invalid_claim"
        assert name in caught.value.message


@given(st.dictionaries(st.sampled_from(["scope", "a", "b"]), JSON), st.sampled_from(["scope", "a.b", "a", "..", ""]))
def test_any_claims_give_scopes_or_a_refusal(claims: dict[str, Any], name: str) -> None:
    with suppress(Unauthenticated):
        assert all(tokens.scopes(claims, [name]))


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_apart_or_refused(text: bytes) -> None:
    with pytest.raises(Unauthenticated):
        tokens.take_apart(text + b"!")


def test_a_refusal_names_the_claim_and_nothing_of_its_value() -> None:
    with pytest.raises(Unauthenticated) as caught:
        tokens.text({"sub": ["marker"]}, "sub")
    assert "sub" in caught.value.message
    assert "marker" not in caught.value.message
