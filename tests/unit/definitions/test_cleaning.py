"""Words are cleaned, what agents send back is not changed, and a definition that cannot be cleaned is refused."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.definitions.cleaning import Unclean, clean
from gateway.definitions.hidden import cleaned, hidden_in

TAG = "\U000e0041"
ZERO = "\u200b"


def tool(**more: Any) -> dict[str, Any]:
    return {"name": "rollback", "inputSchema": {"type": "object"}, **more}


def test_words_are_cleaned_wherever_they_stand() -> None:
    words = f"He{ZERO}llo{TAG}"
    definition = tool(
        title=words,
        description=words,
        annotations={"title": words, "readOnlyHint": True},
        icons=[{"src": "x", "label": words}],
        _meta={"vendor": {"note": [words]}},
        inputSchema={
            "title": words,
            "properties": {"a": {"description": words, "enum": ["x"], "enumDescriptions": [words]}},
            "$defs": {"title": {"$comment": words}},
            "x-hint": {"deep": words},
        },
        outputSchema={"items": {"description": words}},
        later=words,
    )
    shown, said = clean(definition)
    assert shown == {
        "name": "rollback",
        "title": "Hello",
        "description": "Hello",
        "annotations": {"title": "Hello", "readOnlyHint": True},
        "icons": [{"src": "x", "label": "Hello"}],
        "_meta": {"vendor": {"note": ["Hello"]}},
        "inputSchema": {
            "title": "Hello",
            "properties": {"a": {"description": "Hello", "enum": ["x"], "enumDescriptions": ["Hello"]}},
            "$defs": {"title": {"$comment": "Hello"}},
            "x-hint": {"deep": "Hello"},
        },
        "outputSchema": {"items": {"description": "Hello"}},
        "later": "Hello",
    }
    assert list(shown) == list(definition)
    assert "U+200B" in said
    assert "U+E0041" in said
    assert "description" in said


def test_a_definition_without_anything_hidden_is_the_same_object() -> None:
    definition = tool(description="Größe — ok", _meta={"n": None})
    assert clean(definition) == (definition, "")
    assert clean(definition)[0] is definition


@pytest.mark.parametrize(
    "definition",
    [
        tool(name=f"roll{ZERO}back"),
        tool(inputSchema={"properties": {f"a{ZERO}": {}}}),
        tool(inputSchema={"properties": {"a": {"enum": [f"x{TAG}"]}}}),
        tool(inputSchema={"properties": {"a": {"const": TAG}}}),
        tool(inputSchema={"properties": {"a": {"default": {"b": TAG}}}}),
        tool(inputSchema={"properties": {"a": {"examples": [TAG]}}}),
        tool(inputSchema={"properties": {"a": {"pattern": f"^{ZERO}$"}}}),
        tool(inputSchema={"required": [TAG]}),
        tool(outputSchema={"$defs": {TAG: {}}}),
        tool(**{f"x{ZERO}": 1}),
        tool(_meta={f"x{ZERO}": 1}),
        {"name": "p", "arguments": [{"name": f"a{ZERO}"}]},
        {"uri": f"file:///a{ZERO}", "name": "n"},
        {"uriTemplate": f"file:///{ZERO}{{a}}", "name": "n"},
        {"uri": "file:///a", "name": f"n{ZERO}"},
    ],
)
def test_something_hidden_in_a_name_a_key_or_a_value_is_refused(definition: dict[str, Any]) -> None:
    before = deepcopy(definition)
    with pytest.raises(Unclean, match=r"U\+(200B|E0041)"):
        clean(definition)
    assert definition == before


def test_a_property_that_is_called_like_a_keyword_is_a_schema() -> None:
    definition = tool(inputSchema={"properties": {"default": {"description": f"a{ZERO}", "enum": ["x"]}}})
    shown, _said = clean(definition)
    assert shown["inputSchema"] == {"properties": {"default": {"description": "a", "enum": ["x"]}}}


def test_the_words_of_a_prompt_s_arguments_are_cleaned() -> None:
    shown, _said = clean({"name": "p", "arguments": [{"name": "a", "description": f"x{TAG}"}, 5]})
    assert shown["arguments"] == [{"name": "a", "description": "x"}, 5]


def test_a_report_is_bounded() -> None:
    everything = "".join(chr(0xE0000 + number) for number in range(128))
    _shown, said = clean(tool(description=everything))
    assert len(said) < 200
    assert "and 120 more" in said


texts = st.text(st.characters() | st.sampled_from(["\u200b", "\u202e", "\x1b", TAG]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["properties", "enum", "title", "description", "items", "anyOf", "a"]) | texts,
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["description", "inputSchema", "annotations", "x", "arguments"]), values))
def test_what_comes_out_has_nothing_hidden_and_the_same_shape(definition: dict[str, Any]) -> None:
    try:
        shown, _said = clean(definition)
    except Unclean:
        return
    assert list(hidden_in(shown)) == []
    assert _cleaned_all(shown) == _cleaned_all(definition)


def _cleaned_all(value: Any) -> Any:
    if isinstance(value, str):
        return cleaned(value)
    if isinstance(value, dict):
        return {cleaned(key): _cleaned_all(part) for key, part in value.items()}
    return [_cleaned_all(part) for part in value] if isinstance(value, list) else value
