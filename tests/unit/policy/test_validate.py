"""Arguments that do not fit never leave, what is wrong is said without any value, and no schema harms the gateway."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.definitions.schemas import _judged
from gateway.errors import BackendUnavailable, InvalidArguments
from gateway.policy.validate import MAX_VIOLATIONS, Validate

from ..fakes import call, entry

CANARY = "c4n4ry-s3cr3t"


async def checked(schema: Any, arguments: dict[str, Any], step: Validate | None = None) -> InvalidArguments | None:
    try:
        (step or Validate())(call(arguments, entry=entry(schema=schema)))
    except InvalidArguments as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"a": "x"},
            {"a": 5},
        ),
        ({"required": ["a"]}, {"a": None, "b": 1}, {}),
        ({"properties": {"n": {"type": "integer", "maximum": 10}}}, {"n": 10}, {"n": 11}),
        ({"properties": {"n": {"type": "integer"}}}, {"n": 10**30}, {"n": 1.5}),
        ({"additionalProperties": False, "properties": {"a": {}}}, {"a": 1}, {"b": 1}),
        ({"$defs": {"x": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/x"}}}, {"a": "x"}, {"a": 1}),
        (
            {"$defs": {"x": {"$anchor": "y", "type": "string"}}, "properties": {"a": {"$ref": "#y"}}},
            {"a": "x"},
            {"a": 1},
        ),
        (
            {"if": {"properties": {"k": {"const": 1}}, "required": ["k"]}, "then": {"required": ["a"]}, "else": False},
            {"k": 1, "a": 1},
            {"k": 1},
        ),
        (
            {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
            {"a": 1},
            {"a": 1, "b": 1},
        ),
        ({"properties": {"l": {"prefixItems": [{"type": "string"}], "items": False}}}, {"l": ["x"]}, {"l": ["x", 1]}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}, {"a": 1, "b": 1}),
        (
            {"$dynamicAnchor": "n", "properties": {"c": {"$dynamicRef": "#n"}}, "required": ["v"]},
            {"v": 1, "c": {"v": 2}},
            {"v": 1, "c": {}},
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "definitions": {"x": {"type": "string"}},
                "properties": {"l": {"items": [{"$ref": "#/definitions/x"}], "additionalItems": False}},
            },
            {"l": ["x"]},
            {"l": ["x", "y"]},
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-04/schema#",
                "properties": {"n": {"maximum": 5, "exclusiveMaximum": True}},
            },
            {"n": 4},
            {"n": 5},
        ),
        (
            {"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"p": {"pattern": "^a+$"}}},
            {"p": "aa"},
            {"p": "b"},
        ),
    ],
)
async def test_any_json_schema_of_its_dialect_decides(schema: Any, good: dict[str, Any], bad: dict[str, Any]) -> None:
    assert await checked(schema, good) is None
    assert await checked(schema, bad) is not None


async def test_every_violation_is_told_with_its_path() -> None:
    schema = {
        "properties": {"a": {"type": "string"}, "l": {"items": {"type": "integer"}}},
        "required": ["b"],
    }
    refusal = await checked(schema, {"a": 1, "l": [1, "x", {}]})
    assert refusal is not None
    found = {item["path"]: item["problem"] for item in refusal.data["violations"]}
    assert set(found) == {"arguments", "arguments.a", "arguments.l[1]", "arguments.l[2]"}
    assert "b" in found["arguments"]
    assert refusal.retryable is False
    assert refusal.dispatched is False
    assert "arguments.a" in refusal.message


async def test_violations_and_their_texts_are_bounded() -> None:
    schema = {"properties": {"l": {"items": {"enum": ["x" * 1000]}}}}
    refusal = await checked(schema, {"l": list(range(1000))})
    assert refusal is not None
    assert len(refusal.data["violations"]) == MAX_VIOLATIONS
    assert len(json.dumps(refusal.data)) < 10_000


LEAKY = [
    {"type": "integer"},
    {"type": ["integer", "null"]},
    {"const": 1},
    {"enum": [1, 2]},
    {"maxLength": 1},
    {"minLength": 1000},
    {"pattern": "^only$"},
    {"pattern": "^(?=x)only$"},
    {"format": "date"},
    {"not": {"type": "string"}},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"oneOf": [{"type": "string"}, {"minLength": 1}]},
    {"allOf": [{"type": "integer"}]},
    {"if": {"type": "string"}, "then": False},
    False,
]


@pytest.mark.parametrize("schema", LEAKY, ids=json.dumps)
async def test_no_message_has_a_value_of_an_argument(schema: Any) -> None:
    refusal = await checked({"properties": {"a": schema}, "additionalProperties": {"items": schema}}, {"a": CANARY})
    if refusal is None:
        assert schema == {"format": "date"}
        return
    for text in (refusal.message, refusal.hint, json.dumps(refusal.data)):
        assert CANARY not in text


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"uniqueItems": True}, [CANARY, CANARY]),
        ({"contains": {"type": "integer"}}, [CANARY]),
        ({"maxItems": 0}, [CANARY]),
        ({"items": False}, [CANARY]),
        ({"prefixItems": [{}], "items": False}, [CANARY, CANARY]),
        ({"unevaluatedItems": False}, [CANARY]),
        ({"items": {"type": "integer"}}, [CANARY]),
        ({"maxProperties": 0}, {"k": CANARY}),
        ({"additionalProperties": False}, {"k": CANARY}),
        ({"unevaluatedProperties": False}, {"k": CANARY}),
        ({"dependentSchemas": {"k": False}}, {"k": CANARY}),
        ({"dependentRequired": {"k": ["l"]}}, {"k": CANARY}),
        ({"required": ["l"]}, {"k": CANARY}),
        ({"patternProperties": {"k": {"type": "integer"}}}, {"k": CANARY}),
        ({"type": "string"}, {"k": [CANARY]}),
        ({"const": {"k": 1}}, {"k": CANARY}),
        ({"multipleOf": 7}, 1234567891),
        ({"maximum": 1}, 1234567891),
        ({"minimum": 1e300}, 1234567891),
    ],
)
async def test_no_message_has_a_value_from_inside_an_argument(schema: Any, value: Any) -> None:
    refusal = await checked({"properties": {"a": schema}}, {"a": value})
    assert refusal is not None
    text = refusal.message + json.dumps(refusal.data)
    assert CANARY not in text
    assert "1234567891" not in text


@given(st.dictionaries(st.sampled_from("abc"), st.text(min_size=6).map(lambda text: CANARY + text), min_size=1))
async def test_no_text_of_arguments_is_ever_said(arguments: dict[str, Any]) -> None:
    refusal = await checked({"additionalProperties": {"type": "integer"}}, arguments)
    assert refusal is not None
    assert CANARY not in refusal.message + json.dumps(refusal.data)


async def test_a_null_for_an_optional_argument_counts_as_absent_and_for_a_needed_one_does_not() -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["b"]}
    assert await checked(schema, {"a": None, "b": "x"}) is None
    assert await checked(schema, {"a": None, "b": None}) is not None


async def uncallable(schema: Any) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        Validate()(call({"a": 1}, entry=entry(schema=schema)))
    assert (caught.value.dispatched, caught.value.retryable) == (False, False)
    assert "deploy__rollback" in caught.value.message
    return caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://schemas.internal.example/s.json"},
        {"properties": {"a": {"$ref": "https://schemas.internal.example/s.json#/x"}}},
        {"$id": "https://schemas.internal.example/root.json", "properties": {"a": {"$ref": "other.json"}}},
        {"$schema": "https://schemas.internal.example/dialect"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "//x"},
        {"$dynamicRef": "#nowhere"},
        {"type": "nonsense"},
        {"properties": []},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"minLength": "x"}}},
        {"$ref": 5},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"not": {"$ref": "#"}},
        {"$dynamicRef": "#"},
        {"properties": {"a": {"pattern": "(a{1000}){1000}{1000}"}}},
    ],
)
async def test_a_schema_that_leaves_its_document_or_is_none_makes_the_tool_uncallable_with_words(schema: Any) -> None:
    said = await uncallable(schema)
    assert "schema" in said
    assert "internal.example" not in said
    assert "passwd" not in said


async def test_a_schema_that_refers_to_itself_ends() -> None:
    await checked({"unevaluatedProperties": {"$ref": "#"}}, {"a": {"a": {"a": 1}}})
    await checked({"properties": {"a": {"$dynamicRef": "#"}}}, {"a": {"a": {"a": 1}}})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=a)(a+)+$", "^(a|a)*(?!b)$", r"^(\w+\s?)*(?=x)$"])
async def test_a_pattern_that_backtracks_is_bounded(pattern: str) -> None:
    step = Validate()
    began = time.process_time()
    assert await checked({"properties": {"a": {"pattern": pattern}}}, {"a": "a" * 2000 + "!"}, step) is not None
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    "schema", [{"properties": {"once": {"type": "integer"}}}, {"type": "nonsense", "title": "once"}]
)
async def test_a_definition_is_looked_at_once_whether_it_can_be_used_or_not(schema: Any) -> None:
    step, before = Validate(), _judged.cache_info().misses
    for number in range(3):
        with suppress(BackendUnavailable):
            await checked(schema, {"once": number}, step)
    assert _judged.cache_info().misses == before + 1


async def test_what_might_take_too_long_to_judge_is_refused_with_words() -> None:
    schema = {"properties": {"a": {"items": {"pattern": "(?!x)y"}}}}
    assert await checked(schema, {"a": ["yes"] * 100}) is None
    refusal = await checked(schema, {"a": [CANARY * 10] * 10_000})
    assert refusal is not None
    assert "deploy__rollback" in refusal.message
    assert CANARY not in refusal.message + json.dumps(refusal.data)


async def test_another_definition_of_the_same_tool_is_judged_by_itself() -> None:
    step = Validate()
    assert await checked({"required": ["a"]}, {}, step) is not None
    assert await checked({"required": []}, {}, step) is None


@pytest.mark.parametrize("kind", ["prompt", "resource", "template"])
async def test_only_tools_have_a_schema(kind: Any) -> None:
    Validate()(call({"a": 1}, entry=entry(schema={"$ref": "http://x.example/"}, kind=kind)))


@pytest.mark.parametrize("value", [10**30, -(10**30), 2**63, 1e308, 5e-324, 0.1 + 0.2, "\u2028\U0001f600", "\u0000"])
async def test_unusual_values_are_values(value: Any) -> None:
    assert await checked({"properties": {"a": {"type": ["number", "string"]}}}, {"a": value}) is None


async def test_deep_arguments_are_judged() -> None:
    value: Any = 1
    for _ in range(60):
        value = {"a": value}
    assert await checked({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, value) is None
    assert await checked(
        {"$defs": {"n": {"properties": {"a": {"$ref": "#/$defs/n"}}, "type": "object"}}, "$ref": "#/$defs/n"}, value
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "string"}}, "additionalProperties": False},
        {"properties": {"a": {"type": "string"}}, "unevaluatedProperties": False},
        {"properties": {"a": {"type": "string"}}, "propertyNames": {"enum": ["a"]}},
    ],
)
async def test_a_null_for_an_argument_that_the_schema_does_not_know_is_refused(schema: Any) -> None:
    assert await checked(schema, {"a": None}) is None
    assert await checked(schema, {"b": None}) is not None
    assert await checked(schema, {"a": None, "b": None}) is not None
