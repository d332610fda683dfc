"""Public names fit every client, are stable and do not collide."""

from __future__ import annotations

import re
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.naming import MAX_LENGTH, is_valid, public_name

alphabet = ascii_letters + digits + "_.-"
names = st.text(alphabet, min_size=1, max_size=128)


def test_a_short_name_is_the_prefix_and_the_name() -> None:
    assert public_name("deploy__", "rollback") == "deploy__rollback"
    assert public_name("", "rollback") == "rollback"


def test_a_name_of_64_characters_stays() -> None:
    assert public_name("deploy__", "x" * 56) == "deploy__" + "x" * 56


def test_a_longer_name_keeps_its_head_and_ends_in_a_stable_hash() -> None:
    short = public_name("deploy__", "x" * 57)
    assert short == "deploy__" + "x" * 47 + "_cb721bbe"
    assert len(short) == 64


@given(st.text(alphabet, max_size=48), names)
def test_every_public_name_has_at_most_64_characters_that_clients_take(prefix: str, name: str) -> None:
    public = public_name(prefix, name)
    assert len(public) <= MAX_LENGTH == 64
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", public)
    assert public == public_name(prefix, name)


@given(names, names)
def test_different_names_of_a_route_have_different_public_names(one: str, other: str) -> None:
    assert (public_name("deploy__", one) == public_name("deploy__", other)) is (one == other)


def test_names_that_differ_only_beyond_the_bound_differ() -> None:
    assert public_name("", "x" * 100 + "a") != public_name("", "x" * 100 + "b")


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "x" * 128])
def test_the_names_of_the_specification_are_valid(name: str) -> None:
    assert is_valid(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "é", "a\n", "a\u0000", "\u0661"])
def test_every_other_name_is_not(name: str) -> None:
    assert not is_valid(name)
