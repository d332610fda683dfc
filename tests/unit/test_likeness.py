"""What people take for one name is one name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.likeness import LOOKS


def alike(one: str, other: str) -> bool:
    return any(look(one) == look(other) for look in LOOKS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rollback", "Rollback"),
        ("rollback", "ROLLBACK"),
        ("get_id", "Get-Id"),
        ("read.file", "read_file"),
        ("rollback", "ro11back"),
        ("rollback", "roIlback"),
        ("doit", "d0it"),
        ("deploy", "\uff44eploy"),
        ("straße", "STRASSE"),
    ],
)
def test_these_look_alike(one: str, other: str) -> None:
    assert alike(one, other)
    assert alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("get", "set"), ("move_i", "move_l"), ("v1", "v2"), ("a_b", "ab"), ("list", "lists")]
)
def test_these_do_not(one: str, other: str) -> None:
    assert not alike(one, other)


@given(st.text(), st.text())
def test_what_begins_alike_stays_so_when_more_follows(one: str, more: str) -> None:
    for look in LOOKS:
        assert look(look(one)) == look(one) or not one.isascii()
    assert alike(one, one)
