import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.backoff import Backoff
from gateway.backends.breaker import CLOSED, HALF_OPEN, OPEN, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, Backoff(1.0, 30.0, chance=lambda: 0.0))


def opened(breaker: Breaker) -> Breaker:
    for _ in range(10):
        breaker.failure()
    assert breaker.state == OPEN
    return breaker


def test_nine_failures_in_a_row_leave_it_closed_and_the_tenth_opens_it(breaker: Breaker) -> None:
    for _ in range(9):
        breaker.failure()
    assert breaker.state == CLOSED

    breaker.failure()

    assert breaker.state == OPEN
    assert not breaker.enter()


def test_a_success_breaks_the_row(breaker: Breaker) -> None:
    breaker.success()
    for _ in range(9):
        breaker.failure()
        breaker.success()
        breaker.success()
        breaker.failure()
        breaker.success()

    assert breaker.state == CLOSED


def test_half_of_twenty_calls_failing_opens_it(breaker: Breaker) -> None:
    for _ in range(9):
        breaker.success()
        breaker.failure()
    assert breaker.state == CLOSED

    breaker.success()
    breaker.failure()

    assert breaker.state == OPEN


def test_failures_of_more_than_ten_seconds_ago_are_forgotten(breaker: Breaker, clock: Clock) -> None:
    for _ in range(9):
        breaker.success()
        breaker.failure()
    clock.now += 10

    breaker.success()
    breaker.failure()

    assert breaker.state == CLOSED


def test_it_stays_open_for_a_second_then_lets_exactly_one_probe_through(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 0.99
    assert not breaker.enter()
    assert breaker.retry_after == pytest.approx(0.01)

    clock.now += 0.01

    assert breaker.enter()
    assert breaker.state == HALF_OPEN
    assert not breaker.enter()


def test_a_probe_that_succeeds_closes_it_and_all_is_forgotten(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1
    breaker.enter()

    breaker.success(probe=True)

    assert breaker.state == CLOSED
    for _ in range(9):
        breaker.failure()
    assert breaker.state == CLOSED


def test_probes_that_fail_double_the_time_up_to_thirty_seconds(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    times = []
    for _ in range(7):
        times.append(breaker.retry_after)
        clock.now += breaker.retry_after
        assert breaker.enter()
        breaker.failure(probe=True)

    assert times == [1, 2, 4, 8, 16, 30, 30]


def test_a_probe_that_is_given_up_lets_the_next_one_go_at_once(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1
    breaker.enter()

    breaker.abandon(probe=True)

    assert breaker.enter()


def test_calls_from_before_it_opened_neither_close_it_nor_keep_it_open(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    breaker.success()
    assert breaker.state == OPEN

    breaker.failure()
    clock.now += 1

    assert breaker.enter()
    breaker.success()
    assert breaker.state == HALF_OPEN


@given(st.lists(st.tuples(st.sampled_from(["ok", "failed", "gone"]), st.floats(0, 3)), max_size=200))
def test_never_are_there_two_probes_and_it_always_recovers(calls: list[tuple[str, float]]) -> None:
    clock = Clock()
    breaker = Breaker(clock, Backoff(1.0, 30.0))
    for outcome, pause in calls:
        probe = breaker.state != CLOSED
        if breaker.enter():
            if probe:
                assert not breaker.enter()
            report = {"ok": breaker.success, "failed": breaker.failure, "gone": breaker.abandon}[outcome]
            report(probe=probe)
        clock.now += pause

    clock.now += 30
    probe = breaker.state != CLOSED
    assert breaker.enter()
    breaker.success(probe=probe)
    assert breaker.state == CLOSED
