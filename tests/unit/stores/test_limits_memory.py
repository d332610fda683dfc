import asyncio
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.models import Limit
from gateway.ports import Take, Verdict
from gateway.stores.limits_memory import MemoryLimits

MICROSECOND = 1e-6


class Clock:
    """Starts where a machine's monotonic clock may be: large, and no round number."""

    def __init__(self, microseconds: int = 123_456_789_012_345) -> None:
        self.microseconds = microseconds

    def __call__(self) -> float:
        return self.microseconds / 1_000_000

    def forward(self, seconds: float) -> None:
        self.microseconds += round(seconds * 1_000_000)


def a_limit(limit: int = 30, window: float = 60.0, burst: int | None = None, name: str = "x", **more: Any) -> Limit:
    return Limit(name=name, per=("principal",), limit=limit, window=window, burst=burst or limit, **more)


def take(store: MemoryLimits, *takes: Take) -> Verdict:
    return asyncio.run(_take(store, takes))


async def _take(store: MemoryLimits, takes: Sequence[Take]) -> Verdict:
    return await store.take(takes)


def direct(store: MemoryLimits, *takes: Take) -> Verdict:
    """Without an event loop: the store never waits."""
    coroutine = store.take(takes)
    try:
        coroutine.send(None)
    except StopIteration as done:
        verdict: Verdict = done.value
        return verdict
    raise AssertionError("the store waited")


limits = st.builds(
    a_limit,
    limit=st.integers(1, 1000),
    window=st.sampled_from([0.1, 1.0, 7.0, 60.0, 3600.0, 86400.0]),
    burst=st.integers(4, 50),
    cost=st.integers(1, 4),
)


def test_thirty_a_minute_pass_at_once_and_the_next_waits_two_seconds() -> None:
    store, one = MemoryLimits(Clock()), Take(a_limit(30, 60.0), "k")
    assert [take(store, one).refused for _ in range(30)] == [None] * 30
    refused = take(store, one)
    assert refused.refused is one.limit
    assert refused.retry_after == 2.0


def test_remaining_and_reset_count_down_and_recover() -> None:
    clock = Clock()
    store, one = MemoryLimits(clock), Take(a_limit(30, 60.0, burst=3), "k")
    states = [take(store, one).states[0] for _ in range(4)]
    assert [(state.remaining, state.reset) for state in states] == [(2, 2.0), (1, 4.0), (0, 6.0), (0, 6.0)]
    clock.forward(6.0)
    assert take(store, one).states[0].remaining == 2


def test_no_takes_are_no_decision() -> None:
    verdict = take(MemoryLimits(Clock()))
    assert (verdict.refused, verdict.states, verdict.degraded) == (None, (), False)


@given(limit=limits, start=st.integers(0, 10**15), pauses=st.lists(st.integers(0, 3_000_000), max_size=20))
def test_a_refused_call_is_admitted_exactly_at_retry_after_and_not_a_microsecond_before(
    limit: Limit, start: int, pauses: list[int]
) -> None:
    clock = Clock(start)
    store, one = MemoryLimits(clock), Take(limit, "k")
    for pause in pauses:
        clock.microseconds += pause
        direct(store, one)
    while not (verdict := direct(store, one)).refused:
        pass
    clock.forward(verdict.retry_after - MICROSECOND)
    assert direct(store, one).refused is limit
    clock.forward(MICROSECOND)
    assert direct(store, one).refused is None


@given(limit=limits, pauses=st.lists(st.one_of(st.none(), st.integers(0, 2_000_000)), min_size=1, max_size=100))
def test_no_span_of_time_ever_admits_more_than_the_burst_and_the_rate(limit: Limit, pauses: list[int | None]) -> None:
    clock = Clock()
    store, one = MemoryLimits(clock), Take(limit, "k")
    admitted: list[int] = []
    wait = 0.0
    for pause in pauses:
        clock.forward(wait if pause is None else pause / 1_000_000)
        verdict = direct(store, one)
        wait = verdict.retry_after
        if verdict.refused is None:
            admitted.append(clock.microseconds)
    window = round(limit.window * 1_000_000)
    for first, since in enumerate(admitted):
        for last in range(first, len(admitted)):
            beyond_burst = (last - first + 1) * limit.cost - limit.burst
            assert beyond_burst * window <= limit.limit * (admitted[last] - since)


@given(limit=limits, steps=st.integers(1, 60))
def test_a_caller_at_the_steady_rate_is_never_refused(limit: Limit, steps: int) -> None:
    clock = Clock()
    store, one = MemoryLimits(clock), Take(limit, "k")
    for _ in range(steps):
        assert direct(store, one).refused is None
        clock.microseconds += -(-round(limit.window * 1_000_000) // limit.limit) * limit.cost


class Bucket:
    """The reference: tokens that come one by one up to a burst, in exact arithmetic; places, which come back."""

    def __init__(self, limit: Limit, now: int) -> None:
        self.limit, self.last = limit, now
        self.tokens = Fraction(limit.burst)

    def at(self, now: int) -> "Bucket":
        if not self.limit.concurrent:
            unit = -(-round(self.limit.window * 1_000_000) // self.limit.limit)
            self.tokens = min(self.tokens + Fraction(now - self.last, unit), Fraction(self.limit.burst))
        self.last = now
        return self


some = st.one_of(
    st.builds(
        a_limit,
        limit=st.integers(1, 9),
        window=st.sampled_from([0.001, 0.7, 3.0]),
        burst=st.integers(3, 6),
        cost=st.integers(1, 3),
        enforce=st.booleans(),
    ),
    st.builds(
        lambda places, enforce: Limit("p", ("tool",), places, 0.0, places, enforce=enforce, concurrent=True),
        st.integers(1, 3),
        st.booleans(),
    ),
)


@given(
    some_limits=st.lists(some, min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 900_000), st.booleans()), min_size=1, max_size=40),
)
def test_limits_of_every_kind_decide_together_as_buckets_of_tokens_do(
    some_limits: list[Limit], steps: list[tuple[int, bool]]
) -> None:
    """A step waits, lets the oldest call end or not, and calls."""
    clock = Clock()
    store = MemoryLimits(clock)
    takes = [Take(limit, str(at)) for at, limit in enumerate(some_limits)]
    buckets = [Bucket(limit, clock.microseconds) for limit in some_limits]
    running: list[tuple[Verdict, list[Bucket]]] = []
    for pause, ends in steps:
        clock.microseconds += pause
        if ends and running:
            verdict, held = running.pop(0)
            for bucket in held:
                bucket.tokens += 1
            if verdict.release is not None:
                verdict.release()
        short = [bucket for bucket in buckets if bucket.at(clock.microseconds).tokens < bucket.limit.cost]
        verdict = direct(store, *takes)
        assert (verdict.refused is None) == all(not bucket.limit.enforce for bucket in short)
        assert verdict.watching == tuple(bucket.limit for bucket in short if not bucket.limit.enforce)
        if verdict.refused is None:
            taken = [bucket for bucket in buckets if bucket not in short]
            for bucket in taken:
                bucket.tokens -= bucket.limit.cost
            running.append((verdict, [bucket for bucket in taken if bucket.limit.concurrent]))
        assert [state.remaining for state in verdict.states] == [int(bucket.tokens) for bucket in buckets]


def test_what_one_limit_refuses_costs_the_others_nothing() -> None:
    store = MemoryLimits(Clock())
    wide, tight = Take(a_limit(10, name="wide"), "wide"), Take(a_limit(1, name="tight"), "tight")
    assert take(store, wide, tight).refused is None
    for _ in range(20):
        assert take(store, wide, tight).refused is tight.limit
    assert [take(store, wide).refused for _ in range(9)] == [None] * 9
    assert take(store, wide).refused is wide.limit


def test_the_limit_that_waits_longest_is_the_one_that_is_named() -> None:
    store = MemoryLimits(Clock())
    short, long = Take(a_limit(1, 1.0, name="short"), "s"), Take(a_limit(1, 60.0, name="long"), "l")
    take(store, short, long)
    verdict = take(store, short, long)
    assert (verdict.refused, verdict.retry_after) == (long.limit, 60.0)


def test_counters_are_apart() -> None:
    store, limit = MemoryLimits(Clock()), a_limit(1)
    assert take(store, Take(limit, "a")).refused is None
    assert take(store, Take(limit, "b")).refused is None
    assert take(store, Take(limit, "a")).refused is limit


def test_a_limit_that_became_smaller_waits_no_longer_than_it_says_itself() -> None:
    store = MemoryLimits(Clock())
    for _ in range(10):
        take(store, Take(a_limit(10, 3600.0), "k"))
    assert take(store, Take(a_limit(10, 1.0, burst=1), "k")).retry_after == 0.1


@given(limit=st.integers(1, 100), burst=st.integers(1, 100), share=st.integers(1, 20))
def test_a_share_is_its_part_of_the_burst_and_never_less_than_one(limit: int, burst: int, share: int) -> None:
    store, one = MemoryLimits(Clock(), share=share), Take(a_limit(limit, 60.0, burst), "k")
    admitted = 0
    while direct(store, one).refused is None:
        admitted += 1
    assert admitted == max(1, burst // share)


def test_counters_that_are_whole_again_are_forgotten() -> None:
    clock = Clock()
    store, limit = MemoryLimits(clock), a_limit(1, 1.0)
    for caller in range(5_000):
        direct(store, Take(limit, f"caller-{caller}"))
        clock.forward(0.01)
    assert len(store) < 300


def test_counters_in_use_are_kept_however_many_there_are() -> None:
    store, limit = MemoryLimits(Clock()), a_limit(1, 1.0)
    for _ in range(2):
        refused = [direct(store, Take(limit, f"caller-{caller}")).refused for caller in range(1_000)]
    assert refused == [limit] * 1_000
