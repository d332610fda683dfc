from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.backoff import Backoff


def test_waits_double_up_to_the_last() -> None:
    backoff = Backoff(0.2, 1.0, chance=lambda: 0.0)

    assert [backoff.next() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_success_starts_small_again() -> None:
    backoff = Backoff(0.2, 30.0, chance=lambda: 0.0)
    backoff.next()
    backoff.next()

    backoff.reset()

    assert backoff.next() == 0.2


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=30))
def test_chance_never_takes_more_than_a_quarter(chances: list[float]) -> None:
    source = iter(chances)
    backoff, exact = Backoff(0.2, 30.0, chance=lambda: next(source)), Backoff(0.2, 30.0, chance=lambda: 0.0)

    for _ in chances:
        wait, longest = backoff.next(), exact.next()
        assert longest * 0.75 <= wait <= longest
