"""A lock says what was approved, reads back as it was written, and cannot be edited without being found out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.definitions import hidden
from gateway.definitions.lock import NO_LOCK, Lock, Unreadable, differing, digest, drift, parse, pin, render


def tool(name: str = "rollback", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "Rolls back.", "inputSchema": {"type": "object"}, **more}


def locked(*tools: dict[str, Any], route: str = "deploy") -> Lock:
    return Lock({route: {"tool": {one["name"]: pin(one) for one in tools}}})


def found(lock: Lock, definition: dict[str, Any], withheld: bool = True) -> Any:
    return drift(lock, "deploy", f"deploy__{definition['name']}", definition, withheld=withheld)


def test_what_is_as_pinned_does_not_differ_whatever_the_order_of_its_members() -> None:
    lock = locked(tool(annotations={"a": 1, "b": 2}))
    assert found(lock, tool(annotations={"a": 1, "b": 2})) is None
    reordered = dict(reversed(tool(annotations={"b": 2, "a": 1}).items()))
    assert found(lock, reordered) is None


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"description": "Rolls back. "}, ("description",)),
        ({"description": "Rolls\u200b back."}, ("description",)),
        ({"inputSchema": {"type": "object", "properties": {}}}, ("inputSchema",)),
        ({"annotations": {"readOnlyHint": True}}, ("annotations",)),
        ({"annotations": {"readOnlyHint": 1}}, ("annotations",)),
        ({"title": None}, ("title",)),
        ({"outputSchema": {}, "_meta": {"x": 1}}, ("_meta", "outputSchema")),
    ],
)
def test_any_change_is_found_and_named(changed: dict[str, Any], fields: tuple[str, ...]) -> None:
    it = found(locked(tool()), tool(**changed))
    assert (it.change, it.fields, it.route, it.backend_name, it.name) == (
        "changed",
        fields,
        "deploy",
        "rollback",
        "deploy__rollback",
    )
    assert it.pinned == digest(tool())
    assert it.found == digest(tool(**changed))
    assert ", ".join(fields) in str(it)


def test_values_that_python_holds_for_equal_are_not_the_same() -> None:
    assert differing({"a": 1}, {"a": True}) == ("a",)
    assert differing({"a": 1}, {"a": 1.0}) == ("a",)
    assert differing({"a": None}, {}) == ("a",)


def test_a_tool_that_is_not_in_the_lock_is_new() -> None:
    for lock in (NO_LOCK, locked(tool("other")), locked(tool(), route="logs")):
        it = found(lock, tool(), withheld=False)
        assert (it.change, it.fields, it.pinned, it.withheld) == ("new", (), None, False)
        assert "not in the lock" in str(it)


def test_the_text_is_made_to_be_reviewed() -> None:
    text = render(locked(tool("b", description="One.\nTwo.\u200b\n"), tool("a"), tool("c", title="Größe \U000e0041")))
    assert text.isprintable() or set(text) - {"\n"} <= {one for one in text if one.isprintable()}
    lines = [line.strip() for line in text.splitlines()]
    assert lines.index('"a": {') < lines.index('"b": {') < lines.index('"c": {')
    assert '"One.",' in lines
    assert '"Two.\\u200b",' in lines
    assert '"title": "Größe \\udb40\\udc41"' in lines
    assert render(parse(text)) == text


def test_the_order_of_members_is_not_the_backend_s() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "string", "enum": ["y", "x"]}, "a": {}}}
    reordered = {"properties": {"a": {}, "b": {"enum": ["y", "x"], "type": "string"}}, "type": "object"}
    assert render(locked(tool(inputSchema=schema))) == render(locked(tool(inputSchema=reordered)))


def test_a_lone_surrogate_is_pinned_like_anything_else() -> None:
    lock = locked(tool(title="x\ud800"))
    assert parse(render(lock)).pins == lock.pins
    assert render(lock).isascii()


def test_one_changed_line_of_a_description_is_one_changed_line_of_the_text() -> None:
    before = render(locked(tool(description="One.\nTwo.\nThree."))).splitlines()
    after = render(locked(tool(description="One.\nTwo!\nThree."))).splitlines()
    assert [new.strip() for old, new in zip(before, after, strict=True) if old != new and "sha256" not in new] == [
        '"Two!",'
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
definitions = st.builds(
    lambda name, more: {**more, "name": name},
    st.text(min_size=1, max_size=8),
    st.fixed_dictionaries(
        {"inputSchema": values, "description": st.text(st.characters() | st.just("\n"))}, optional={"x": values}
    ),
)


@given(st.dictionaries(st.text(max_size=5), st.lists(definitions, max_size=3), max_size=3))
def test_what_was_written_is_read_back(routes: dict[str, list[dict[str, Any]]]) -> None:
    lock = Lock({route: {"tool": {one["name"]: pin(one) for one in tools}} for route, tools in routes.items() if tools})
    text = render(lock)
    again = parse(text)
    assert again.pins == lock.pins
    assert render(again) == text
    assert list(hidden.hidden_in(text)) == []


def test_no_letter_of_a_text_can_be_changed_unnoticed() -> None:
    lock = locked(tool(description="One.\nTwo."))
    text = render(lock)
    begins, ends = text.index('"definition"') + 14, text.index("}", text.index('"inputSchema"'))
    for at in range(begins, ends):
        edited = text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]
        try:
            again = parse(edited)
        except Unreadable:
            continue
        assert again.pins == lock.pins


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "version 1"),
        ("{}", "version 1"),
        ('{"version": 2, "routes": {}}', "version 1"),
        ('{"version": 1, "routes": []}', "version 1"),
        ('{"version": 1, "routes": {"a": 5}}', "no tools"),
        ('{"version": 1, "routes": {"a": {"tools": {"t": 5}}}}', "no definition"),
        ('{"version": 1, "routes": {"a": {"tools": {"t": {"definition": {}}}}}}', "edited"),
        ('{"version": 1, "routes": {"a": {}, "a": {}}}', "twice"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_lock_is_said(text: str, what: str) -> None:
    with pytest.raises(Unreadable, match=what):
        parse(text)


def test_a_name_of_another_tool_cannot_be_smuggled_into_a_definition() -> None:
    document = json.loads(render(locked(tool())))
    document["routes"]["deploy"]["tools"]["other"] = document["routes"]["deploy"]["tools"].pop("rollback")
    with pytest.raises(Unreadable, match="edited") as caught:
        parse(json.dumps(document))
    assert caught.value.where == "routes.deploy.tools.other"


def test_each_kind_has_a_section_and_a_file_without_them_is_good() -> None:
    pins: dict[Any, Any] = {
        "tool": {"rollback": pin(tool())},
        "prompt": {"plan": pin({"name": "plan", "arguments": [{"name": "a"}]})},
        "resource": {"x://1": pin({"uri": "x://1", "name": "one", "mimeType": "text/plain"})},
        "template": {"x://{a}": pin({"uriTemplate": "x://{a}", "name": "any"})},
    }
    text = render(Lock({"deploy": pins}))
    assert list(json.loads(text)["routes"]["deploy"]) == ["tools", "prompts", "resources", "templates"]
    assert parse(text).pins == {"deploy": pins}
    assert "prompts" not in render(locked(tool()))
    for kind, name in (("prompt", "plan"), ("resource", "x://1"), ("template", "x://{a}")):
        definition = pins[kind][name].definition
        assert drift(Lock({"deploy": pins}), "deploy", name, definition, withheld=True, kind=kind) is None
        new = drift(locked(tool()), "deploy", name, definition, withheld=True, kind=kind)
        assert new is not None
        assert (new.change, new.kind) == ("new", kind)


@pytest.mark.parametrize("entry", [{"tools": {}, "promts": {}}, {"tools": {}, "prompts": []}])
def test_a_section_that_nobody_knows_is_an_error(entry: Any) -> None:
    with pytest.raises(Unreadable):
        parse(json.dumps({"version": 1, "routes": {"deploy": entry}}))
