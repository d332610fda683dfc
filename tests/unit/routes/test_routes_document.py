from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.routes.document import MAX_ALIASES, MAX_DEPTH, Unreadable, read, render


def value_of(text: str) -> Any:
    root, faults = read(text)
    assert root is not None
    assert faults == []
    return root.value


def faults_of(text: str) -> list[tuple[int, str, str]]:
    _root, faults = read(text)
    return [(fault.line, render(fault.location), fault.message) for fault in faults]


def refusal_of(text: str) -> tuple[int, str]:
    with pytest.raises(Unreadable) as caught:
        read(text)
    return caught.value.fault.line, caught.value.fault.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: off", {"a": "off"}),
        ("a: yes", {"a": "yes"}),
        ("a: true", {"a": True}),
        ("a: False", {"a": False}),
        ("a: 010", {"a": 10}),
        ("a: 0x1F", {"a": 31}),
        ("a: 0o17", {"a": 15}),
        ("a: 1.5", {"a": 1.5}),
        ("a: '1'", {"a": "1"}),
        ("a: 2026-07-28", {"a": "2026-07-28"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: .nan", {"a": ".nan"}),
        ("a: " + "9" * 5000, {"a": "9" * 5000}),
        ("%YAML 1.1\n---\na: yes", {"a": "yes"}),
        ("{deploy:admin: [deploy:read]}", {"deploy:admin": ["deploy:read"]}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)
def test_values_are_those_of_the_yaml_1_2_core_schema(text: str, value: object) -> None:
    assert value_of(text) == value


def test_every_node_knows_its_line() -> None:
    root, _faults = read("a:\n  - b: 1\n    c: 2\n  - d\n")
    assert root is not None
    lines = [root.line_of(path) for path in [("a",), ("a", 0, "c"), ("a", 1), ("a", 0, "missing"), ("nothing",)]]
    assert lines == [1, 3, 4, 2, 1]


def test_each_repeated_key_is_reported_with_both_lines() -> None:
    assert faults_of("a: 1\nb: 2\na: 3\nb: 4\n") == [
        (3, "a", "is there twice, first in line 1"),
        (4, "b", "is there twice, first in line 2"),
    ]


def test_a_key_without_a_value_is_reported() -> None:
    assert faults_of("a:\nb: [~]\n") == [(1, "a", "has no value"), (2, "b[0]", "has no value")]


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x", "a: !secret x", "!x {a: 1}", "a: !!str 1"])
def test_tags_are_refused(text: str) -> None:
    assert "has a tag" in faults_of(text)[0][2]


def test_merge_keys_are_refused() -> None:
    assert faults_of("a: &x {b: 1}\nc:\n  <<: *x\n") == [(3, "c.<<", "merge keys are not allowed")]


def test_a_key_that_is_not_text_is_refused() -> None:
    assert faults_of("1: a") == [(1, "1", "is a key that is not text")]
    assert refusal_of("{[a]: b}") == (1, "has a key that is not text")


def test_a_second_document_is_refused() -> None:
    assert refusal_of("a: 1\n---\nb: 2\n") == (2, "has a second document")


def test_an_alias_of_itself_is_refused() -> None:
    assert refusal_of("a: &x [*x]") == (1, "contains itself")


def test_an_alias_of_nothing_is_refused() -> None:
    assert refusal_of("a: *x") == (1, "is an alias of nothing")


def test_aliases_are_bounded() -> None:
    text = "a: &x 1\nb: [" + ", ".join(["*x"] * (MAX_ALIASES + 1)) + "]"
    assert "aliases" in refusal_of(text)[1]


def test_aliases_that_multiply_are_bounded() -> None:
    rows = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    rows += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "values, aliases counted" in refusal_of("\n".join(rows))[1]


def test_depth_is_bounded() -> None:
    assert "nested deeper" in refusal_of("[" * (MAX_DEPTH + 2))[1]
    assert "nested deeper" in refusal_of("[" * 50_000)[1]


def test_a_syntax_error_has_its_line() -> None:
    assert refusal_of("a: 1\nb: [1\nc: 2\n")[0] == 3


def test_half_of_a_surrogate_pair_is_refused() -> None:
    assert "surrogate" in refusal_of(r'a: "\ud800"')[1]


@example(r'a: "\UFFFFFFFF"')
@example("%YAML x.y\n---\na")
@example("%TAG ! !\n--- !a b")
@example("\x00")
@example("? a\n: - b\n  -\n")
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!%\"'|>#?,~ \n\t\\0123xU")))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Unreadable):
        root, faults = read(text)
        assert root is not None or faults == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("routes", 0, "backend", "url"), "routes[0].backend.url"),
        ((), ""),
        (("routes", 0, "tools", "debug_*"), "routes[0].tools.debug_*"),
        (("toolsets", "a.b"), "toolsets['a.b']"),
        (("a", "\x1b[31m"), "a['\\x1b[31m']"),
    ],
)
def test_a_path_is_readable_and_holds_no_control_characters(path: tuple[str | int, ...], text: str) -> None:
    assert render(path) == text
