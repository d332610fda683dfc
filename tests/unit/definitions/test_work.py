"""What a schema can make a validator do is known before it does it, and never less than it does."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.definitions.structure import IN_PLACE, Schema, members
from gateway.definitions.work import MOST, Unbounded, Work

STRING = {"type": "string"}


def most(schema: Schema, depth: int = 64) -> int:
    return Work(schema).at_most(depth)


@pytest.mark.parametrize(
    ("schema", "times"),
    [
        ({}, 1),
        ({"type": "object", "properties": {"a": STRING, "b": STRING}}, 1),
        ({"anyOf": [STRING, {"type": "null"}]}, 3),
        ({"properties": {"a": {"anyOf": [STRING, STRING]}}}, 3),
        ({"properties": {"a": STRING}, "additionalProperties": STRING}, 2),
        ({"properties": {"a": STRING}, "patternProperties": {"^a": STRING, "b": STRING}}, 3),
        ({"allOf": [{"properties": {"a": STRING}}, {"properties": {"a": STRING, "b": STRING}}]}, 3),
        ({"prefixItems": [STRING, STRING], "contains": STRING}, 2),
        ({"items": [STRING, STRING], "additionalItems": STRING}, 2),
        ({"if": {}, "then": {}, "else": {}, "not": {}}, 5),
        ({"$defs": {"unused": {"allOf": [{}] * 9}}}, 1),
        ({"const": {"allOf": [{}] * 9}, "enum": [{"not": {}}]}, 1),
        ({"$defs": {"x": STRING}, "properties": {"a": {"$ref": "#/$defs/x"}}}, 2),
        ({"$defs": {"x": {"$anchor": "y"}}, "$ref": "#y"}, 2),
        ({"$id": "https://x.example/root", "$defs": {"x": STRING}, "$ref": "https://x.example/root#/$defs/x"}, 2),
        ({"$id": "https://x.example/root", "$defs": {"x": {"$id": "other"}}, "$ref": "other"}, 2),
        ({"x-own": {"a/b~": STRING}, "$ref": "#/x-own/a~1b~0"}, 2),
        ({"$defs": {"x": True}, "$ref": "#/$defs/x"}, 2),
        ({"$ref": "http://json-schema.org/draft-07/schema#"}, 2),
        ({"properties": {"a": {"$ref": "#"}}}, 2),
        ({"anyOf": [STRING, {"additionalProperties": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}, 5),
    ],
)
def test_the_number_is_how_often_one_part_is_judged(schema: Schema, times: int) -> None:
    assert most(schema) == times


def doubling(levels: int, keyword: str = "allOf") -> Schema:
    inner = {f"l{n}": {keyword: [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**inner, f"l{levels}": {}}, "$ref": "#/$defs/l0"}


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_what_doubles_at_each_level_is_seen_without_being_run(keyword: str) -> None:
    began = time.process_time()
    assert 2**10 <= most(doubling(10, keyword)) < 2**13
    assert most(doubling(100, keyword)) == MOST
    assert time.process_time() - began < 1.0


def test_what_doubles_with_the_depth_of_the_value_grows_with_it() -> None:
    schema = {"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}
    work = Work(schema)
    assert work.at_most(0) == 3
    assert work.at_most(1) == 2 * (3 + 1)
    assert work.at_most(20) >= 2**20
    assert work.at_most(64) == MOST


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "itself"),
        ({"allOf": [{"$ref": "#"}]}, "itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "itself"),
        ({"$ref": "https://x.example/s.json"}, "not in it"),
        ({"$ref": "other.json#/a"}, "not in it"),
        ({"$ref": "#/$defs/nowhere"}, "not in it"),
        ({"$ref": "#nowhere"}, "not in it"),
        ({"$ref": "#/type", "type": "object"}, "not in it"),
        ({"properties": {f"p{n}": {} for n in range(5_001)}}, "5000 schemas"),
        ({"$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(1000)}, "$ref": "#/$defs/0"}, "intricate"),
    ],
)
def test_what_has_no_bound_is_refused_with_a_reason(schema: Schema, why: str) -> None:
    with pytest.raises(Unbounded, match=why):
        most(schema)


def test_what_takes_long_to_say_is_refused() -> None:
    defs = {
        str(n): {"properties": {f"p{m}": {"$ref": f"#/$defs/{(n * 7 + m) % 400}"} for m in range(5)}}
        for n in range(400)
    }
    began = time.process_time()
    with pytest.raises(Unbounded, match="intricate"):
        Work({"$defs": defs, "items": {"$ref": "#/$defs/0"}}).at_most(64)
    assert time.process_time() - began < 5.0


keys = st.sampled_from(
    ["properties", "items", "anyOf", "allOf", "not", "additionalProperties", "patternProperties", "x"]
)
schemas: st.SearchStrategy[Any] = st.recursive(
    st.just({}) | st.booleans(),
    lambda inner: st.dictionaries(
        keys,
        inner | st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_size=3,
    ),
    max_leaves=12,
)
values = st.recursive(
    st.integers(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)


def judged(schema: Any, value: Any, counts: dict[int, int]) -> None:
    """Every schema that a validator without any shortcut would apply, counted by the part of the value."""
    if not isinstance(schema, dict):
        return
    counts[id(value)] = counts.get(id(value), 0) + 1
    for key, name, part in members(schema):
        if key in IN_PLACE:
            judged(part, value, counts)
        elif key == "properties" and isinstance(value, dict) and name in value:
            judged(part, value[name], counts)
        elif key in ("additionalProperties", "patternProperties") and isinstance(value, dict):
            for one in value.values():
                judged(part, one, counts)
        elif key == "items" and isinstance(value, list):
            for one in value if not name else value[int(name) : int(name) + 1]:
                judged(part, one, counts)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((1 + depth_of(one) for one in inner), default=0)


def apart(value: Any) -> Any:
    """The same value with every part an object of its own."""
    if isinstance(value, dict):
        return {key: apart(one) for key, one in value.items()}
    return [apart(one) for one in value] if isinstance(value, list) else [value]


@given(schemas, values)
def test_no_part_is_judged_more_often_than_was_said(schema: Any, value: Any) -> None:
    if not isinstance(schema, dict):
        return
    value, counts = apart(value), dict[int, int]()
    judged(schema, value, counts)
    assert max(counts.values(), default=0) <= most(schema, depth_of(value))
