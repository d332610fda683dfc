"""What is a schema and what is data is told by the place, not by the name."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.definitions.structure import DATA, IN_PLACE, MAPS, OF_PARTS, Schema, members, rebuilt, words_in


def marked(schema: Schema) -> Schema:
    return {**schema, "seen": True}


def test_every_schema_is_changed_and_no_data() -> None:
    schema = {
        "properties": {"default": {"default": {"properties": {}}}, "enum": {"enum": [{"x": 1}]}},
        "items": [{"a": 1}, True],
        "allOf": [{"not": {"const": {"not": {}}}}],
        "additionalProperties": False,
        "dependencies": {"a": ["b"], "c": {"d": 1}},
        "x-other": {"properties": {"a": {}}},
    }
    assert rebuilt(schema, marked) == {
        "properties": {
            "default": {"default": {"properties": {}}, "seen": True},
            "enum": {"enum": [{"x": 1}], "seen": True},
        },
        "items": [{"a": 1, "seen": True}, True],
        "allOf": [{"not": {"const": {"not": {}}, "seen": True}, "seen": True}],
        "additionalProperties": False,
        "dependencies": {"a": ["b"], "c": {"d": 1, "seen": True}},
        "x-other": {"properties": {"a": {}}},
        "seen": True,
    }


def test_the_schemas_directly_in_one_are_found_with_their_places() -> None:
    schema: Any = {"properties": {"a": {"x": 1}, "b": True}, "items": {"y": 1}, "oneOf": [{"z": 1}], "const": {"w": 1}}
    assert list(members(schema)) == [
        ("properties", "a", {"x": 1}),
        ("properties", "b", True),
        ("items", "", {"y": 1}),
        ("oneOf", "0", {"z": 1}),
    ]


def test_a_keyword_is_of_one_kind() -> None:
    kinds = (DATA, MAPS, IN_PLACE, OF_PARTS)
    assert len(frozenset().union(*kinds)) == sum(map(len, kinds))
    assert list(words_in({"title": "t", "enum": [], "properties": {}, "items": {}, "x-hint": "y"})) == [
        "title",
        "x-hint",
    ]


keys = st.sampled_from([*MAPS, *IN_PLACE, *OF_PARTS, "enum", "const", "title", "a"])
schemas = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@given(schemas)
def test_a_change_that_changes_nothing_gives_the_same_schema(schema: Any) -> None:
    assert rebuilt(schema, lambda it: it) == schema


@given(schemas)
def test_rebuilding_reaches_what_the_members_of_members_are(schema: Any) -> None:
    reached: list[Schema] = []

    def note(it: Schema) -> Schema:
        reached.append(it)
        return it

    def walk(it: Any) -> int:
        return 1 + sum(walk(part) for _key, _name, part in members(it) if isinstance(part, dict))

    rebuilt(schema, note)
    assert len(reached) == (walk(schema) if isinstance(schema, dict) else 0)
