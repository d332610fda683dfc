"""Metrics for Prometheus. Labels come from the configuration and the outcome vocabulary, never from a caller.

What every call counts is tallied in plain numbers and given to prometheus_client when somebody scrapes, because its
locks cost more than the policy of a call. With several workers the client shares the numbers through files in
``PROMETHEUS_MULTIPROC_DIR``; the command line sets it before this module is imported, and ``flush`` is called often.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.ports import Take, Verdict

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED = "PROMETHEUS_MULTIPROC_DIR" in os.environ
"""Whether several workers count together."""

_TALLIED = 64
"""Requests that wait at most to be counted, which costs less where many are counted one after another."""

_Labels = tuple[str, ...]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Every metric of design section 9; implements ``ports.Meter``."""

    def __init__(self, version: str) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> _Counts:
            return _Counts(Counter(f"mcp_gateway_{name}", text, labels, registry=registry))

        def gauge(name: str, text: str, *labels: str, mode: Any = "livemax") -> Gauge:
            return Gauge(f"mcp_gateway_{name}", text, labels, registry=registry, multiprocess_mode=mode)

        def histogram(name: str, text: str, *labels: str) -> _Durations:
            return _Durations(Histogram(f"mcp_gateway_{name}", text, labels, registry=registry, buckets=_SECONDS))

        self._requests = counter(
            "requests_total", "MCP requests by how they ended.", "method", "route", "tool", "outcome", "era"
        )
        self._duration = histogram("request_duration_seconds", "Time from request to answer.", "method", "route")
        self._backend = histogram("backend_duration_seconds", "Time a backend took to answer.", "route")
        self._limits = counter("rate_limit_decisions_total", "Decisions of each limit.", "limit", "decision")
        self._audit = counter("audit_events_total", "Audit events by sink and result.", "sink", "result")
        self._tallies = (self._requests, self._duration, self._backend, self._limits, self._audit)
        self._ended: list[tuple[_Labels, float]] = []
        self._answered: list[tuple[_Labels, float]] = []
        self._decided: list[tuple[Sequence[Take], Verdict]] = []
        self.up = gauge("backend_up", "1 when the backend answered last.", "route", mode="livemin")
        self.breaker = gauge("breaker_state", "0 closed, 1 half open, 2 open.", "route")
        self.inflight = gauge("inflight", "Calls at the backend now.", "route", mode="livesum")
        self.catalog_tools = gauge("catalog_tools", "Tools of the route's last good listing.", "route")
        self.catalog_age = gauge("catalog_age_seconds", "Age of the route's last good listing.", "route")
        self.catalog_omitted = gauge("catalog_omitted", "Entries that the catalogue leaves out, see the log.", "route")
        self.catalog_cleaned = gauge("catalog_cleaned", "Entries with hidden characters removed.", "route")
        self.catalog_quarantined = gauge("catalog_quarantined", "Definitions withheld: not the pinned ones.", "route")
        self.sessions = gauge("sessions", "Sessions now: client streams or backend sessions.", "side", mode="livesum")
        self.parked = gauge("parked_calls", "Calls of legacy backends that wait for their client.", mode="livesum")
        self.reloaded = gauge("config_last_reload_successful", "1 when the last reload was taken.", mode="livemin")
        self.redis_up = gauge("redis_up", "1 when Redis answered last, or none is configured.", mode="livemin")
        gauge("build_info", "Version of the gateway.", "version").labels(version).set(1)
        self.reloaded.set(1)
        self.redis_up.set(1)
        self.parked.set(0)
        for side in ("client", "backend"):
            self.sessions.labels(side).set(0)

    def request(self, method: str, route: str, tool: str, outcome: str, era: str, seconds: float) -> None:
        """A request has ended."""
        self._ended.append(((method, route, tool, outcome, era), seconds))
        if len(self._ended) >= _TALLIED:
            self._tally()

    def backend(self, route: str, seconds: float) -> None:
        """A backend has answered."""
        self._answered.append(((route,), seconds))

    def limits(self, takes: Sequence[Take], verdict: Verdict) -> None:
        """Limits have decided: all allowed, or the one that waits longest refused; ``shadow`` would have."""
        self._decided.append((takes, verdict))

    def _count_limits(self) -> None:
        waiting = self._limits.waiting
        usual: dict[int, list[Sequence[Take]]] = defaultdict(list)
        for takes, verdict in self._decided:
            if verdict.refused is not None:
                waiting[(verdict.refused.name, "refused")] += 1
            elif not verdict.degraded and not verdict.watching:
                usual[id(takes)].append(takes)
            else:
                decision = "degraded" if verdict.degraded else "allowed"
                for take in takes:
                    waiting[(take.limit.name, "shadow" if take.limit in verdict.watching else decision)] += 1
        for same in usual.values():
            for take in same[0]:
                waiting[(take.limit.name, "allowed")] += len(same)

    def audit(self, sink: str, result: str, count: int) -> None:
        """Audit events were written, or failed; with a count of 0 the series exists from the start."""
        self._audit.waiting[(sink, result)] += count

    def _tally(self) -> None:
        for labels, seconds in _grouped(self._ended).items():
            self._requests.waiting[labels] += len(seconds)
            self._duration.add(labels[:2], seconds)
        for labels, seconds in _grouped(self._answered).items():
            self._backend.add(labels, seconds)
        self._count_limits()
        for waiting in (self._ended, self._answered, self._decided):
            waiting.clear()

    def flush(self) -> None:
        """Give what was tallied to prometheus_client."""
        self._tally()
        for tally in self._tallies:
            tally.flush()

    def render(self, refresh: Callable[[], None]) -> bytes:
        """The exposition; ``refresh`` first sets what is read rather than counted."""
        refresh()
        self.flush()
        if not SHARED:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


def _grouped(observed: Sequence[tuple[_Labels, float]]) -> dict[_Labels, list[float]]:
    groups: dict[_Labels, list[float]] = defaultdict(list)
    for labels, seconds in observed:
        groups[labels].append(seconds)
    return groups


class _Counts:
    """A counter whose increments wait for the next flush."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.waiting: dict[_Labels, int] = defaultdict(int)

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, defaultdict(int)
        for labels, count in waiting.items():
            self._counter.labels(*labels).inc(count)


class _Durations:
    """A histogram whose observations wait for the next flush, counted by bucket."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._waiting: dict[_Labels, list[float]] = {}

    def add(self, labels: _Labels, durations: Sequence[float]) -> None:
        tally = self._waiting.get(labels)
        if tally is None:
            tally = self._waiting[labels] = [0.0] * (len(_SECONDS) + 2)
        for seconds in durations:
            tally[bisect_left(_SECONDS, seconds)] += 1
        tally[-1] += sum(durations)

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for labels, (*buckets, total) in waiting.items():
            # prometheus_client has no call for many observations at once; these two are what observe() itself does.
            child: Any = self._histogram.labels(*labels)
            child._sum.inc(total)
            for bucket, count in zip(child._buckets, buckets, strict=True):
                if count:
                    bucket.inc(count)
