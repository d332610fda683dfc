"""Legacy clients get structured content and output schemas that are objects, and everything else as text."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.structured import legacy_definition, legacy_result

TEXT = {"type": "text", "text": "mine"}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda it: st.lists(it) | st.dictionaries(st.text(), it)
)


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


@pytest.mark.parametrize("text", ["null", "[1, 1.0]", "false", '"x"', "1e999"])
def test_what_is_no_object_becomes_a_text_block_word_for_word(text: str) -> None:
    found = legacy_result({"content": raw("[]"), "structuredContent": raw(text), "other": 1})
    assert found == {"content": [{"type": "text", "text": text}], "other": 1}


@pytest.mark.parametrize("content", [[TEXT], raw(json.dumps([{"type": "image"}, TEXT])), [{"type": raw('"text"')}]])
def test_a_text_block_that_is_there_is_enough(content: Any) -> None:
    assert legacy_result({"content": content, "structuredContent": [1]}) == {"content": content}


@pytest.mark.parametrize("content", [raw('"none"'), raw("{}"), None, 5])
def test_content_that_is_no_list_is_left_alone(content: Any) -> None:
    assert legacy_result({"content": content, "structuredContent": raw("[]")}) == {"content": content}


@pytest.mark.parametrize(
    "result", [{"content": []}, {"structuredContent": {"a": 1}}, {"structuredContent": raw(' {"a": 1.0} ')}]
)
def test_an_object_and_its_absence_change_nothing(result: dict[str, Any]) -> None:
    assert legacy_result(result) is result


@given(values, st.lists(values))
def test_whatever_there_is_it_is_an_object_afterwards_and_its_content_is_kept(structured: Any, content: Any) -> None:
    found = legacy_result({"content": raw(json.dumps(content)), "structuredContent": raw(json.dumps(structured))})
    assert "structuredContent" not in found or isinstance(structured, dict)
    kept = json.loads(msgspec.json.encode(found["content"]))
    assert kept[: len(content)] == content


@pytest.mark.parametrize("schema", ['{"type":"array"}', "true", "{}", '{"type":["object","null"]}', "null", "[]"])
def test_an_output_schema_that_is_not_of_an_object_is_left_out(schema: str) -> None:
    rendered = b'{"name":"a","outputSchema":%b,"inputSchema":{"type":"object"}}' % schema.encode()
    assert legacy_definition(rendered) == b'{"name":"a","inputSchema":{"type":"object"}}'


@pytest.mark.parametrize(
    "rendered", [b'{"name":"a"}', b'{"outputSchema":{ "type" : "object" }}', b'{"description":"\\"outputSchema\\""}']
)
def test_every_other_definition_stays_as_it_is(rendered: bytes) -> None:
    assert legacy_definition(rendered) is rendered
