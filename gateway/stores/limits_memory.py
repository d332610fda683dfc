"""Limits counted in this process: GCRA over whole microseconds.

GCRA keeps one number for each counter, the *theoretical arrival time* (TAT) at which the counter is whole again. A call
costs ``window / limit``; it is admitted while the TAT stays within ``burst`` such costs from now.
Source: ITU-T I.371, annex A (virtual scheduling). ``limits.lua`` is the same arithmetic.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.models import Limit
from gateway.ports import LimitState, Take, Verdict

_SECOND = 1_000_000
_LOOKED_AT_PER_TAKE = 2


def cost_of(limit: Limit, share: int = 1) -> tuple[int, int]:
    """What one call costs and how far ahead the TAT may run, in microseconds, for one of ``share`` equal parts.

    The cost is rounded up, so that never more is admitted than was declared.
    """
    calls = max(1, limit.limit // share)
    cost = -(-round(limit.window * _SECOND) // calls)
    return cost, cost * max(1, limit.burst // share)


def verdict_of(
    takes: Sequence[Take],
    costs: Sequence[tuple[int, int]],
    ahead: Sequence[int],
    *,
    refused: int,
    wait: int,
    degraded: bool = False,
) -> Verdict:
    """Put a decision into words.

    ``ahead`` is how far each TAT is from now and ``wait`` how long ``takes[refused]`` has to, in microseconds;
    ``refused`` is -1 where nothing was.
    """
    states = [
        LimitState(take.limit, (span - lead) // cost, lead / _SECOND)
        for take, (cost, span), lead in zip(takes, costs, ahead, strict=True)
    ]
    return Verdict(takes[refused].limit if refused >= 0 else None, wait / _SECOND, tuple(states), degraded)


class MemoryLimits:
    """A ``LimitStore`` for one process, or for its share while Redis is away.

    Memory is bounded by the counters in use: each take looks at a few of the oldest and drops those that are whole.
    ``clock`` gives seconds and never goes back. ``share`` divides every limit and burst, never below one call.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, share: int = 1, degraded: bool = False) -> None:
        self._clock = clock
        self._share = share
        self._degraded = degraded
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    async def take(self, takes: Sequence[Take]) -> Verdict:
        """Decide and count; see ``ports.LimitStore``."""
        now = round(self._clock() * _SECOND)
        costs = [cost_of(take.limit, self._share) for take in takes]
        arrivals = self._arrivals
        ahead = [
            min(max(arrivals.get(take.key, now) - now, 0), span) for take, (_, span) in zip(takes, costs, strict=True)
        ]
        refused, wait = -1, 0
        for index, (cost, span) in enumerate(costs):
            if ahead[index] + cost - span > wait:
                refused, wait = index, ahead[index] + cost - span
        if refused < 0:
            ahead = [lead + cost for lead, (cost, _) in zip(ahead, costs, strict=True)]
            for take, lead in zip(takes, ahead, strict=True):
                arrivals[take.key] = now + lead
        self._drop_whole(now, _LOOKED_AT_PER_TAKE * len(takes))
        return verdict_of(takes, costs, ahead, refused=refused, wait=wait, degraded=self._degraded)

    def _drop_whole(self, now: int, count: int) -> None:
        arrivals = self._arrivals
        for _ in range(min(count, len(arrivals))):
            key, arrival = arrivals.popitem(last=False)
            if arrival > now:
                arrivals[key] = arrival
