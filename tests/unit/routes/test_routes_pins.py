"""``pins:`` is one word for every kind of definition, or a word for each."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.models import Kind
from gateway.routes.pins import PinRules, Pins

KINDS: tuple[Kind, ...] = ("tool", "prompt", "resource", "template")


def rules(value: Any) -> list[str]:
    pins: Pins = TypeAdapter(PinRules).validate_python(value)
    assert pins.any == any(pins.of(kind) != "off" for kind in KINDS)
    return [pins.of(kind) for kind in KINDS]


@pytest.mark.parametrize("word", ["off", "warn", "block"])
def test_one_word_holds_for_every_kind(word: str) -> None:
    assert rules(word) == [word] * 4


def test_templates_are_as_resources_unless_they_have_a_word_of_their_own_and_the_rest_is_off() -> None:
    assert rules({"tools": "block"}) == ["block", "off", "off", "off"]
    assert rules({"resources": "warn"}) == ["off", "off", "warn", "warn"]
    assert rules({"resources": "off", "templates": "block"}) == ["off", "off", "off", "block"]


@pytest.mark.parametrize("wrong", ["on", {"tool": "block"}, {"tools": "yes"}, True, None, []])
def test_anything_else_is_an_error(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        rules(wrong)


@pytest.mark.parametrize(
    ("value", "approved"),
    [
        ("block", KINDS),
        ({"prompts": "warn"}, ("prompt",)),
        ({"tools": "block", "resources": "off", "templates": "block"}, ("tool", "template")),
        ("off", KINDS),
        ({}, KINDS),
    ],
)
def test_the_lock_is_of_what_is_pinned_and_of_everything_where_nothing_is_yet(
    value: Any, approved: tuple[str, ...]
) -> None:
    pins: Pins = TypeAdapter(PinRules).validate_python(value)
    assert tuple(kind for kind in KINDS if pins.approves(kind)) == approved
