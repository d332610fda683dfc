"""A backend's state goes through a client and comes back for the same request of the same principal, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.models import Call
from gateway.protocol.request_state import LIFETIME, MAX_LENGTH, RequestStates

from ..fakes import KEY, Clock, call, entry, person, request


def states(clock: Clock | None = None, *keys: bytes) -> RequestStates:
    return RequestStates(keys or (KEY,), clock or Clock())


def refused(sealed: Any, other: Call, of: RequestStates | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        (of or states()).open(other, sealed)
    assert (caught.value.code, caught.value.status, caught.value.dispatched) == (INVALID_PARAMS, 200, False)
    return caught.value


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_a_state_comes_back_exactly_at_any_replica(state: str) -> None:
    assert states().open(call({"a": 1}), states().seal(call({"a": 1}), state, "at-3")) == (state, "at-3")


def test_the_state_is_not_readable_on_the_way() -> None:
    assert "secret" not in states().seal(call(), "secret")


def test_the_order_of_members_does_not_matter() -> None:
    assert states().open(
        call({"b": {"d": 1, "c": 2}, "a": 1}), states().seal(call({"a": 1, "b": {"c": 2, "d": 1}}), "s")
    )


@pytest.mark.parametrize(
    "other",
    [
        call({"a": 1}, principal=person("bob", "deploy:write")),
        call({"a": 2}),
        call({"a": "1"}),
        call({"a": True}),
        call({"a": 1.5}),
        call({"a": 1, "b": None}),
        call({}),
        call({"a": 1}, entry=entry("deploy__other", "other")),
        call({"a": 1}, entry=entry(route="logs")),
        call({"a": 1}, entry=entry(kind="prompt")),
        call({"a": 1}, request=request("prompts/get")),
    ],
    ids=lambda other: f"{other.principal.subject} {other.entry.route} {other.entry.kind} {other.arguments}",
)
def test_a_state_is_of_one_principal_request_and_backend(other: Call) -> None:
    refused(states().seal(call({"a": 1}), "s"), other)


def test_the_same_tool_under_another_public_name_is_the_same_tool() -> None:
    sealed = states().seal(call({"a": 1}), "s")
    assert states().open(call({"a": 1}, entry=entry("rollback"), toolset="plain"), sealed) == ("s", "")


def test_a_state_expires() -> None:
    clock = Clock()
    sealed = states(clock).seal(call(), "s")
    clock.now += LIFETIME - 1
    assert states(clock).open(call(), sealed) == ("s", "")
    clock.now += 1
    assert "expired" in refused(sealed, call(), states(clock)).message


def test_a_state_of_another_key_is_refused_and_of_an_older_one_is_not() -> None:
    sealed = states().seal(call(), "s")
    refused(sealed, call(), states(None, b"x" * 32))
    assert states(None, b"x" * 32, KEY).open(call(), sealed) == ("s", "")


@pytest.mark.parametrize("sealed", ["", "x", "A" * 100, None, 5, [], {}, "é", "A" * (MAX_LENGTH + 4)])
def test_what_was_never_given_out_is_refused(sealed: Any) -> None:
    refused(sealed, call())


@pytest.mark.parametrize("position", [0, 5, 20, -1])
def test_a_tampered_state_is_refused(position: int) -> None:
    sealed = states().seal(call(), "s")
    flipped = "A" if sealed[position] != "A" else "B"
    refused(
        sealed[:position] + flipped + sealed[len(sealed) + position + 1 if position < 0 else position + 1 :], call()
    )


@pytest.mark.parametrize("number", [10**30, -(10**30), 2**64, 1e308])
def test_arguments_with_large_numbers_are_bound_like_others(number: Any) -> None:
    sealed = states().seal(call({"n": number}), "s")
    assert states().open(call({"n": number}), sealed) == ("s", "")
    refused(sealed, call({"n": 1}))


def test_the_refusal_says_what_to_do_and_nothing_of_the_state() -> None:
    refusal = refused("forged", call({"password": "hunter2"}))
    assert refusal.hint == "Send the request again without it."
    assert "forged" not in refusal.message
    assert "hunter2" not in refusal.message
