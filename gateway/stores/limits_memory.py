"""Limits counted in this process: GCRA over whole microseconds, and calls that run at the same time.

GCRA keeps one number for each counter, the *theoretical arrival time* (TAT) at which the counter is whole again. A call
costs ``window / limit`` or several times that; it is admitted while the TAT stays within ``burst`` such costs from now.
Source: ITU-T I.371, annex A (virtual scheduling). ``limits.lua`` is the same arithmetic.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from gateway.models import Limit, LimitState
from gateway.ports import Take, Verdict

BUSY = 1_000_000
"""Microseconds that a call over a concurrency limit is told to wait: nobody knows when a running call will end."""

_SECOND = 1_000_000
_LOOKED_AT_PER_TAKE = 2
_MOST_COSTS = 10_000


def cost_of(limit: Limit, share: int = 1) -> tuple[int, int]:
    """What one call costs and how much there may be, for one of ``share`` equal parts, which always has room for one.

    In microseconds that the TAT may run ahead; of a concurrency limit in calls. The cost is rounded up, so that never
    more is admitted than was declared.
    """
    if limit.concurrent:
        return 1, max(1, limit.limit // share)
    calls = max(1, limit.limit // share)
    unit = -(-round(limit.window * _SECOND) // calls)
    return unit * limit.cost, unit * max(limit.cost, limit.burst // share)


def verdict_of(
    takes: Sequence[Take],
    costs: Sequence[tuple[int, int]],
    ahead: Sequence[int],
    *,
    refused: int,
    wait: int,
    degraded: bool = False,
    release: Callable[[], None] | None = None,
) -> Verdict:
    """Put a decision into words.

    ``ahead`` is how far each TAT is from now, or how many calls run, and -1 minus that where a limit that only watches
    would have refused. ``wait`` is how long ``takes[refused]`` has to, in microseconds; ``refused`` is -1 where
    nothing was.
    """
    watching: tuple[Limit, ...] = ()
    for lead in ahead:
        if lead < 0:
            watching = tuple(take.limit for take, lead in zip(takes, ahead, strict=True) if lead < 0)
            break
    who = takes[refused].limit if refused >= 0 else None
    return Verdict(who, wait / _SECOND, partial(_states, takes, costs, ahead), degraded, watching, release)


def _states(takes: Sequence[Take], costs: Sequence[tuple[int, int]], ahead: Sequence[int]) -> tuple[LimitState, ...]:
    states: list[LimitState] = []
    for take, (cost, span), said in zip(takes, costs, ahead, strict=True):
        limit, lead = take.limit, said if said >= 0 else -1 - said
        if limit.concurrent:
            states.append(LimitState(limit, max(span - lead, 0), 0.0))
        else:
            states.append(LimitState(limit, (span - lead) * limit.cost // cost, lead / _SECOND))
    return tuple(states)


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
        self._running: dict[str, int] = {}
        self._costs: dict[int, tuple[tuple[Take, ...], list[tuple[int, int]]]] = {}

    def __len__(self) -> int:
        return len(self._arrivals) + len(self._running)

    async def take(self, takes: Sequence[Take]) -> Verdict:
        """Decide and count; see ``ports.LimitStore``."""
        now = round(self._clock() * _SECOND)
        costs = self._costs_of(takes)
        ahead = [self._ahead(take, span, now) for take, (_, span) in zip(takes, costs, strict=True)]
        refused, wait = -1, 0
        for index, (cost, span) in enumerate(costs):
            if ahead[index] + cost <= span:
                continue
            limit = takes[index].limit
            needed = BUSY if limit.concurrent else ahead[index] + cost - span
            if not limit.enforce:
                ahead[index] = -1 - ahead[index]
            elif needed > wait:
                refused, wait = index, needed
        release = self._charge(takes, costs, ahead, now) if refused < 0 else None
        self._drop_whole(now, _LOOKED_AT_PER_TAKE * len(takes))
        return verdict_of(takes, costs, ahead, refused=refused, wait=wait, degraded=self._degraded, release=release)

    def _costs_of(self, takes: Sequence[Take]) -> Sequence[tuple[int, int]]:
        """The same tuple comes back for every call of a caller to a tool: found by identity, which is kept with it."""
        known = self._costs.get(id(takes))
        if known is not None:
            return known[1]
        costs = [cost_of(take.limit, self._share) for take in takes]
        if isinstance(takes, tuple):
            if len(self._costs) >= _MOST_COSTS:
                self._costs.clear()
            self._costs[id(takes)] = takes, costs
        return costs

    def hold(self, keys: Sequence[str]) -> Callable[[], None]:
        """Count one more running call under each of these keys, until what is returned is called."""
        running = self._running
        for key in keys:
            running[key] = running.get(key, 0) + 1

        def release() -> None:
            for key in keys:
                running[key] -= 1
                if not running[key]:
                    del running[key]

        return release

    def _ahead(self, take: Take, span: int, now: int) -> int:
        if take.limit.concurrent:
            return self._running.get(take.key, 0)
        return min(max(self._arrivals.get(take.key, now) - now, 0), span)

    def _charge(
        self, takes: Sequence[Take], costs: Sequence[tuple[int, int]], ahead: list[int], now: int
    ) -> Callable[[], None] | None:
        """Take what is not marked as watching; returns how to give back what is held."""
        held: list[str] = []
        for index, (take, (cost, _)) in enumerate(zip(takes, costs, strict=True)):
            if ahead[index] < 0:
                continue
            ahead[index] += cost
            if take.limit.concurrent:
                held.append(take.key)
            else:
                self._arrivals[take.key] = now + ahead[index]
        return self.hold(held) if held else None

    def _drop_whole(self, now: int, count: int) -> None:
        arrivals = self._arrivals
        for _ in range(min(count, len(arrivals))):
            key, arrival = arrivals.popitem(last=False)
            if arrival > now:
                arrivals[key] = arrival
