from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes.references import expand, has_reference, is_plain_secret, resolve_secret

SECRET = "s3cr3t-canary"


def refusal_of(value: str, environ: dict[str, str]) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        resolve_secret(value, environ)
    return " ".join(map(str, caught.value.args))


def test_a_reference_is_replaced_whole_or_within_a_text() -> None:
    assert expand("${A}", {"A": "x"}) == "x"
    assert expand("Basic ${A}-${B}", {"A": "x", "B": "y"}) == "Basic x-y"


def test_what_was_expanded_is_not_expanded_again() -> None:
    assert expand("${A}", {"A": "${B}", "B": "no"}) == "${B}"


def test_all_missing_variables_are_named_at_once() -> None:
    assert "variables FIRST, SECOND not set" in refusal_of("${FIRST}${SECOND}", {"SECOND": ""})


@pytest.mark.parametrize("value", ["${}", "${A", "${A-b}", "${A:-default}", "${${A}}", "${1A}"])
def test_a_malformed_reference_is_refused(value: str) -> None:
    assert "malformed" in refusal_of(value, {"A": "x"})


def test_the_settings_of_the_gateway_cannot_be_handed_on() -> None:
    assert "own setting GATEWAY_KEYS" in refusal_of("${GATEWAY_KEYS}", {"GATEWAY_KEYS": SECRET})


def test_a_file_is_read_without_its_last_line_break(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert resolve_secret(f"file:{tmp_path}/token", {}) == SECRET


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"a\nb", "line break"), (b"\xff", "UTF-8"), (b"x" * 65537, "larger"), (b"a\x00", "control")],
)
def test_an_unusable_secret_file_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "token").write_bytes(content)
    assert word in refusal_of(f"file:{tmp_path}/token", {})


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path}/gone cannot be read" in refusal_of(f"file:{tmp_path}/gone", {})


@pytest.mark.parametrize("value", ["file:relative", "file:", "file:/a\x00b", "file:/"])
def test_a_path_that_is_none_is_refused(value: str) -> None:
    assert refusal_of(value, {})


def test_a_line_break_in_a_variable_is_refused_without_showing_it() -> None:
    said = refusal_of("${A}", {"A": f"{SECRET}\r\nX-Evil: 1"})
    assert "line break" in said
    assert SECRET not in said


@given(st.text(), st.dictionaries(st.text(max_size=3), st.text(max_size=5)))
def test_any_text_is_expanded_or_refused(value: str, environ: dict[str, str]) -> None:
    with suppress(ValueError):
        expanded = expand(value, environ)
        assert has_reference(value) or expanded == value


def test_a_plain_value_under_a_secret_name_is_found() -> None:
    assert is_plain_secret("GITHUB_TOKEN", "ghp")
    assert not is_plain_secret("GITHUB_TOKEN", "${X}")
    assert not is_plain_secret("TZ", "UTC")
