"""A flood of bad requests is refused unjudged; other addresses, and tokens of the same one, are not its victims."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.failed_authentications import FailedAuthentications

from ..fakes import Clock

HERE, THERE = "192.0.2.7", "192.0.2.8"


def flood(failures: FailedAuthentications, address: str = HERE, *, token: bool = True) -> int:
    """How many failures are judged until there is a wait."""
    judged = 0
    while not failures.wait(address, token=token):
        failures.failed(address, token=token)
        judged += 1
    return judged


def test_ten_seconds_worth_of_failures_are_judged_at_once_and_then_the_steady_rate() -> None:
    clock = Clock()
    failures = FailedAuthentications(60, clock)
    assert flood(failures) == 10
    assert failures.wait(HERE, token=True) == pytest.approx(1.0)
    clock.now += 0.999
    assert failures.wait(HERE, token=True) > 0
    clock.now += 0.002
    assert flood(failures) == 1
    clock.now += 60
    assert flood(failures) == 10


@given(per_minute=st.integers(1, 100_000), pauses=st.lists(st.floats(0, 30), max_size=20))
def test_no_span_of_time_judges_more_than_the_burst_and_the_rate(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    failures = FailedAuthentications(per_minute, clock)
    judged = 0
    for pause in pauses:
        clock.now += pause
        for _ in range(3):
            if not failures.wait(HERE, token=True):
                failures.failed(HERE, token=True)
                judged += 1
    assert judged <= (10 + sum(pauses)) * per_minute / 60 + 1.001


def test_a_wait_asked_for_costs_nothing() -> None:
    failures = FailedAuthentications(60, Clock())
    flood(failures)
    assert len({failures.wait(HERE, token=True) for _ in range(100)}) == 1


def test_addresses_are_apart() -> None:
    failures = FailedAuthentications(60, Clock())
    flood(failures)
    assert failures.wait(THERE, token=True) == 0


def test_requests_without_a_token_do_not_stand_in_the_way_of_those_with_one() -> None:
    failures = FailedAuthentications(60, Clock())
    flood(failures, token=False)
    assert failures.wait(HERE, token=True) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::1", "::2", True),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_the_addresses_of_one_ipv6_customer_are_one(one: str, other: str, same: bool) -> None:
    failures = FailedAuthentications(60, Clock())
    flood(failures, one)
    assert (failures.wait(other, token=True) > 0) == same


def test_zero_is_any_number() -> None:
    failures = FailedAuthentications(0, Clock())
    for _ in range(10_000):
        failures.failed(HERE, token=True)
    assert failures.wait(HERE, token=True) == 0
    assert len(failures) == 0


def test_memory_is_bounded_and_those_who_go_on_are_remembered() -> None:
    failures = FailedAuthentications(60, Clock())
    flood(failures)
    for number in range(30_000):
        failures.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", token=True)
        failures.recorded(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", token=True)
        if number % 5_000 == 0:
            failures.failed(HERE, token=True)
    assert len(failures) <= 20_000
    assert failures.wait(HERE, token=True) > 0


def test_one_refusal_a_second_is_recorded_with_the_number_of_those_that_were_not() -> None:
    clock = Clock()
    failures = FailedAuthentications(60, clock)
    assert [failures.recorded(HERE, token=True) for _ in range(4)] == [0, None, None, None]
    assert failures.recorded(THERE, token=True) == 0
    clock.now += 1
    assert [failures.recorded(HERE, token=True) for _ in range(2)] == [3, None]


@pytest.mark.parametrize(("token", "word"), [(True, "failed to authenticate"), (False, "came without a token")])
def test_the_refusal_says_what_was_wrong_and_how_long_to_wait(token: bool, word: str) -> None:
    refusal = FailedAuthentications(60, Clock()).refusal(0.25, 3, token=token)
    assert word in refusal.message
    assert "wait 1 seconds" in refusal.message
    assert (refusal.status, refusal.retry_after) == (429, 0.25)
    assert refusal.rule == "GATEWAY_AUTH_FAILURES_PER_MINUTE (3 before this one)"
