"""What a client carries for us: closed, bound to a purpose, of one spelling."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.models import Principal
from gateway.protocol.sealing import Sealer, owner_of

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(max_size=300))
def test_what_was_sealed_opens_at_every_replica_and_shows_nothing(plain: bytes) -> None:
    sealed = Sealer((OLD,), b"p").seal(plain)
    assert Sealer((OLD,), b"p").open(sealed) == plain
    assert sealed.isascii()
    assert sealed.isprintable()
    assert " " not in sealed
    if len(plain) > 3:
        assert plain not in base64.urlsafe_b64decode(sealed + "==")


def test_the_same_value_is_sealed_differently_each_time() -> None:
    sealer = Sealer((OLD,), b"p")
    assert sealer.seal(b"x") != sealer.seal(b"x")


def test_a_value_for_another_purpose_does_not_open() -> None:
    assert Sealer((OLD,), b"session").open(Sealer((OLD,), b"request-state").seal(b"x")) is None


def test_the_first_key_seals_and_every_key_opens() -> None:
    rotated = Sealer((NEW, OLD), b"p")
    assert rotated.open(Sealer((OLD,), b"p").seal(b"x")) == b"x"
    assert Sealer((NEW,), b"p").open(rotated.seal(b"x")) == b"x"
    assert Sealer((OLD,), b"p").open(rotated.seal(b"x")) is None


@given(st.integers(0), st.integers(1, 255))
def test_one_changed_byte_closes_it_for_ever(position: int, change: int) -> None:
    sealer = Sealer((OLD,), b"p")
    raw = bytearray(base64.urlsafe_b64decode(sealer.seal(b"some value") + "=="))
    raw[position % len(raw)] ^= change
    assert sealer.open(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) is None


@given(st.text(max_size=80))
def test_any_other_text_opens_to_nothing(text: str) -> None:
    assert Sealer((OLD,), b"p").open(text) is None


@pytest.mark.parametrize("length", range(40))
def test_a_cut_value_opens_to_nothing(length: int) -> None:
    sealer = Sealer((OLD,), b"p")
    assert sealer.open(sealer.seal(b"some value")[:length]) is None


def test_a_value_has_one_spelling() -> None:
    sealer = Sealer((OLD,), b"p")
    sealed = sealer.seal(b"xy")
    tail = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert [sealed[:-1] + last for last in tail if sealer.open(sealed[:-1] + last) is not None] == [sealed]
    for other in (sealed + "=", sealed + "==", " " + sealed, sealed + "\n", sealed.replace("-", "+") + "\t"):
        assert sealer.open(other) is None


def test_an_owner_is_known_by_issuer_and_subject_and_told_to_nobody() -> None:
    ada = Principal("https://idp.example", "ada")
    assert owner_of(ada) == owner_of(Principal("https://idp.example", "ada", "cli", frozenset({"a"}), 5.0))
    assert owner_of(ada) != owner_of(Principal("https://idp.example", "bob"))
    assert owner_of(ada) != owner_of(Principal("https://other.example", "ada"))
    assert "ada" not in owner_of(ada)


def test_an_owner_cannot_be_made_by_moving_the_border_between_issuer_and_subject() -> None:
    assert owner_of(Principal("https://idp", ".example/ada")) != owner_of(Principal("https://idp.example/", "ada"))
