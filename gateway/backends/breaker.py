"""A circuit breaker: after enough failures calls are refused at once, and one probe at a time looks for recovery.

Only unavailability counts as failure: no connection, a broken one, no answer in time. An error that a backend
answers is an answer. Pure: the clock and the chance are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.backends.backoff import Backoff

CLOSED: Final = 0
HALF_OPEN: Final = 1
OPEN: Final = 2

_WINDOW = 10
"""Seconds over which the share of failures is judged; one bucket each."""


class Breaker:
    """Opens after ``in_a_row`` failures, or when half of at least ``at_least`` calls in ten seconds failed.

    ``state`` is ``CLOSED``, ``HALF_OPEN`` or ``OPEN``. While it is ``CLOSED`` nothing needs to be asked; else
    ``enter`` says whether a call may go as the probe. Every call reports once with ``success``, ``failure`` or, when
    it was given up, ``abandon``. ``backoff`` gives the seconds to stay open.
    """

    __slots__ = ("_at_least", "_backoff", "_clock", "_failures", "_in_a_row", "_seconds", "_until", "state")

    def __init__(self, clock: Callable[[], float], backoff: Backoff, *, in_a_row: int = 10, at_least: int = 20) -> None:
        self._clock = clock
        self._backoff = backoff
        self._in_a_row = in_a_row
        self._at_least = at_least
        self._failures = 0
        self._until = 0.0
        self._seconds: list[_Second] = [_Second() for _ in range(_WINDOW)]
        self.state: int = CLOSED

    def enter(self) -> bool:
        """Whether a call may go now; it is then the only one until it reports."""
        if self.state == CLOSED:
            return True
        if self.state == OPEN and self._clock() >= self._until:
            self.state = HALF_OPEN
            return True
        return False

    @property
    def retry_after(self) -> float:
        """Seconds until a probe may go; 0 when one is under way."""
        return max(0.0, self._until - self._clock())

    def success(self, *, probe: bool = False) -> None:
        """A call was answered. What started before the breaker opened decides nothing any more."""
        if self.state == CLOSED:
            self._failures = 0
            self._bucket().calls += 1
        elif probe:
            self._close()

    def failure(self, *, probe: bool = False) -> None:
        """The backend was not available to a call."""
        if self.state == CLOSED:
            self._failures += 1
            bucket = self._bucket()
            bucket.calls += 1
            bucket.failed += 1
            if self._failures >= self._in_a_row or self._too_many():
                self._open()
        elif probe:
            self._open()

    def abandon(self, *, probe: bool = False) -> None:
        """A call was given up by its caller: it says nothing, but the next one may probe."""
        if probe and self.state == HALF_OPEN:
            self.state = OPEN

    def _open(self) -> None:
        self.state = OPEN
        self._until = self._clock() + self._backoff.next()

    def _close(self) -> None:
        self.state = CLOSED
        self._failures = 0
        self._backoff.reset()
        self._seconds = [_Second() for _ in range(_WINDOW)]

    def _bucket(self) -> _Second:
        now = int(self._clock())
        bucket = self._seconds[now % _WINDOW]
        if bucket.second != now:
            bucket.second, bucket.calls, bucket.failed = now, 0, 0
        return bucket

    def _too_many(self) -> bool:
        oldest = int(self._clock()) - _WINDOW
        recent = [bucket for bucket in self._seconds if bucket.second > oldest]
        calls = sum(bucket.calls for bucket in recent)
        return calls >= self._at_least and 2 * sum(bucket.failed for bucket in recent) >= calls


class _Second:
    __slots__ = ("calls", "failed", "second")

    def __init__(self) -> None:
        self.second = -1
        self.calls = 0
        self.failed = 0
