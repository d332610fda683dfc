"""A schema judges arguments within its budget, or is refused before it judges any."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway.definitions.schemas import MAX_DEPTH, Exhausting, Unusable, compiled, refuse_bomb

from .test_work import doubling


def usable(schema: Any) -> Any:
    return compiled(json.dumps(schema).encode())


def nested(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (nested(40), "64 levels"),
        (doubling(30), "too many times"),
        (
            {"properties": {"a": doubling(30)["$defs"] and {"$ref": "#/$defs/l0"}}, "$defs": doubling(30)["$defs"]},
            "too many",
        ),
        ({"$ref": "#"}, "itself"),
        ({"$ref": "https://schemas.internal.example/s.json"}, "not in it"),
        ({"$schema": "https://schemas.internal.example/dialect"}, "Unknown meta-schema"),
        ({"type": "nonsense"}, "no valid schema at type"),
        ({"properties": {"a": {"pattern": "("}}}, "no valid schema|cannot be used"),
        ({"properties": {"a": {"pattern": r"(\w+)\1"}}}, "run for too long"),
        ({"$ref": "#/x", "x": {"pattern": r"((?=a))*"}}, "run for too long"),
        ({"patternProperties": {r"((?=a))*": {}}}, "run for too long"),
        ({"properties": {str(n): {"pattern": f"{n}"} for n in range(101)}}, "100 patterns"),
        ({"properties": {"a": {"pattern": "(a{1000}){1000}{1000}"}}}, "no valid schema|too long"),
        ({"properties": {str(n): {} for n in range(6000)}}, "5000 schemas"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_quickly_and_each_time_alike(schema: Any, why: str) -> None:
    began = time.process_time()
    for _ in range(2):
        with pytest.raises(Unusable, match=why):
            usable(schema)
    assert time.process_time() - began < 2.0


def test_an_ordinary_schema_is_used_as_it_is() -> None:
    validator = usable({"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}})
    assert type(validator).__module__.startswith("jsonschema_rs")
    assert validator.is_valid({"a": None})
    assert not validator.is_valid({"a": 1})


def test_a_schema_that_multiplies_judges_what_it_can_afford() -> None:
    both = {"properties": {"a": {"$ref": "#/$defs/n"}}}
    validator = usable(
        {"$defs": {"n": {"anyOf": [{**both, "required": ["x"]}, {**both, "required": ["y"]}]}}, "$ref": "#/$defs/n"}
    )
    value: Any = {"x": 1}
    for _ in range(6):
        value = {"a": value, "x": 1}
    assert validator.is_valid(value)
    for _ in range(40):
        value = {"a": value, "x": 1}
    with pytest.raises(Exhausting):
        validator.is_valid(value)


def test_a_pattern_that_steps_back_judges_what_it_can_afford() -> None:
    validator = usable({"properties": {"a": {"pattern": "(?=\\w*\\w*)z"}}})
    began = time.process_time()
    assert validator.is_valid({"a": "xz", "b": "x" * 1000})
    for arguments in ({"a": "a" * 100_000}, {"b": "a" * 100_000}, {"a" * 100_000: 1}, {"a": ["a" * 10] * 10_000}):
        with pytest.raises(Exhausting):
            validator.is_valid(arguments)
    assert not validator.is_valid({"a": "a" * 2_000})
    assert time.process_time() - began < 3.0


def test_each_way_in_which_arguments_do_not_fit_is_told_within_a_budget_too() -> None:
    validator = usable({"properties": {"a": {"pattern": "(?!x)y"}, "b": {"type": "string"}}})
    assert not validator.is_valid({"a": "x", "b": 1})
    assert len(list(validator.iter_errors({"a": "x", "b": 1}))) == 2


def test_schemas_of_results_are_held_to_the_bounds_alone() -> None:
    refuse_bomb({"type": "nonsense", "properties": {"a": {"pattern": "("}}})
    refuse_bomb(None)
    refuse_bomb(True)
    for bomb in (doubling(30), nested(40), {"$ref": "https://x.example/s"}, [[[{}]]] * 2 + [nested(70)]):
        with pytest.raises(Unusable):
            refuse_bomb(bomb)


def test_the_deepest_schema_that_is_taken_can_be_compiled() -> None:
    assert usable(nested(MAX_DEPTH // 2 - 1)).is_valid({})
