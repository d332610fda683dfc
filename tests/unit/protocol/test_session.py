"""Sealed sessions: any replica opens them, nobody else's key or principal does."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UnknownSession
from gateway.models import Principal
from gateway.protocol.session import LIFETIME, SessionSealer

ALICE = Principal("https://idp.example", "alice")
BOB = Principal("https://idp.example", "bob")
OLD, NEW = b"o" * 32, b"n" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _sealer(*keys: bytes, clock: Clock | None = None) -> SessionSealer:
    return SessionSealer(keys or (OLD,), clock or Clock())


def test_another_replica_with_the_same_key_opens_a_session() -> None:
    session_id = _sealer().seal(ALICE, "2025-11-25", {"roots": {}}, {"name": "c"})
    session = _sealer().open(session_id, ALICE)
    assert (session.revision, session.capabilities, session.client_info) == ("2025-11-25", {"roots": {}}, {"name": "c"})
    assert session_id.isascii()
    assert session_id.isprintable()


def test_the_key_ring_seals_with_the_first_key_and_opens_with_every_key() -> None:
    before = _sealer(OLD).seal(ALICE, "2025-11-25", {}, None)
    rotated = _sealer(NEW, OLD)
    assert rotated.open(before, ALICE).revision == "2025-11-25"
    with pytest.raises(UnknownSession):
        _sealer(OLD).open(rotated.seal(ALICE, "2025-11-25", {}, None), ALICE)


def test_another_principal_cannot_use_a_session_and_gets_the_same_answer_as_for_an_unknown_one() -> None:
    sealer = _sealer()
    session_id = sealer.seal(ALICE, "2025-11-25", {}, None)
    for who in (BOB, Principal("https://other.example", "alice")):
        with pytest.raises(UnknownSession) as caught:
            sealer.open(session_id, who)
        assert caught.value.status == 404
    assert sealer.open(session_id, ALICE)


def test_an_issuer_and_subject_that_join_to_the_same_text_are_different_principals() -> None:
    sealer = _sealer()
    session_id = sealer.seal(Principal("https://a", "bc"), "2025-11-25", {}, None)
    with pytest.raises(UnknownSession):
        sealer.open(session_id, Principal("https://ab", "c"))


def test_a_session_ends_with_its_lifetime_even_when_it_was_opened_before() -> None:
    clock = Clock()
    sealer = _sealer(clock=clock)
    session_id = sealer.seal(ALICE, "2025-11-25", {}, None)
    clock.now += LIFETIME - 1
    sealer.open(session_id, ALICE)
    clock.now += 2
    with pytest.raises(UnknownSession):
        sealer.open(session_id, ALICE)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_one_changed_byte_anywhere_makes_a_session_unknown(position: int, change: int) -> None:
    sealer = _sealer()
    sealed = bytearray(base64.urlsafe_b64decode(sealer.seal(ALICE, "2025-11-25", {}, None) + "=="))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(UnknownSession):
        sealer.open(base64.urlsafe_b64encode(bytes(sealed)).rstrip(b"=").decode(), ALICE)


@given(st.text(max_size=300))
def test_any_text_is_an_unknown_session(text: str) -> None:
    with pytest.raises(UnknownSession):
        _sealer().open(text, ALICE)


def test_a_session_has_one_spelling() -> None:
    sealer = _sealer()
    session_id = sealer.seal(ALICE, "2025-11-25", {}, None)
    for other in (session_id + "=", session_id + "==", session_id + "\n", " " + session_id):
        with pytest.raises(UnknownSession):
            sealer.open(other, ALICE)


def test_an_endless_id_is_refused_unread() -> None:
    with pytest.raises(UnknownSession):
        _sealer().open("A" * 1_000_000, ALICE)
