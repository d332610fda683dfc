"""What one principal may have of what there is once for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RateLimited
from gateway.http.resumption import MAX_ALL_BYTES
from gateway.http.resumption import MAX_STREAMS as MAX_KEPT
from gateway.http.shares import Shares, share
from gateway.http.streams import MAX_STREAMS
from gateway.http.subscriptions import MAX_SESSIONS, MAX_URIS
from gateway.http.watched import MAX_WATCHED
from gateway.models import ANONYMOUS, Principal

PEOPLE = [Principal("https://idp", "alice"), Principal("https://idp", "bob"), Principal("https://other", "alice")]


@pytest.mark.parametrize(
    ("whole", "least"),
    [(MAX_STREAMS, 100), (MAX_SESSIONS, 100), (MAX_WATCHED, MAX_URIS), (MAX_KEPT, 100), (MAX_ALL_BYTES, 2**20)],
)
def test_a_share_is_a_part_of_the_whole_that_is_enough_for_many_agents(whole: int, least: int) -> None:
    assert least <= share(PEOPLE[0], whole) <= whole // 2


def test_where_nobody_is_authenticated_there_is_one_principal_and_it_has_the_whole() -> None:
    shares = Shares("streams", 5.0)
    shares.add(ANONYMOUS, 9)
    shares.refuse_over(ANONYMOUS, 10)
    assert share(ANONYMOUS, 10) == 10


def test_who_has_its_share_is_told_when_to_come_again_and_what_to_do() -> None:
    shares = Shares("streams", 5.0)
    shares.add(PEOPLE[0], 2)
    with pytest.raises(RateLimited) as refused:
        shares.refuse_over(PEOPLE[0], 8)
    assert (refused.value.retry_after, refused.value.rule, refused.value.data) == (
        5.0,
        "share.streams",
        {"limit": "share.streams"},
    )
    assert "2 streams" in refused.value.message
    assert "5.0 seconds" in refused.value.message


@given(st.lists(st.tuples(st.sampled_from(PEOPLE), st.integers(1, 5))), st.integers(0, 40))
def test_nobody_takes_more_than_a_share_and_nobody_loses_one_to_another(
    wanted: list[tuple[Principal, int]], whole: int
) -> None:
    shares = Shares("streams", 5.0)
    taken: list[tuple[Principal, int]] = []
    for principal, more in wanted:
        held = sum(count for who, count in taken if who == principal)
        assert shares.of(principal) == held
        try:
            shares.refuse_over(principal, whole, more)
        except RateLimited:
            assert held + more > whole // 4
        else:
            assert held + more <= whole // 4
            shares.add(principal, more)
            taken.append((principal, more))
    for principal, more in taken:
        shares.add(principal, -more)
    assert len(shares) == 0
