"""How long to wait before the next try. Pure: the chance is given."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Doubles from ``first`` to ``last`` seconds, each time with up to a quarter taken off by chance."""

    __slots__ = ("_chance", "_first", "_last", "_next")

    def __init__(self, first: float, last: float, chance: Callable[[], float] = random.random) -> None:
        self._first = first
        self._last = last
        self._chance = chance
        self._next = first

    def next(self) -> float:
        """Seconds to wait this time."""
        wait = self._next
        self._next = min(self._last, wait * 2)
        return wait * (1 - self._chance() / 4)

    def reset(self) -> None:
        """It worked: start small again."""
        self._next = self._first
