"""Metrics for Prometheus. Labels come from the configuration and the outcome vocabulary, never from a caller.

With several workers the counts are shared through files in ``PROMETHEUS_MULTIPROC_DIR`` (prometheus_client's
multiprocess mode); the command line sets it before this module is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.ports import Take, Verdict

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Every metric of design section 9; implements ``ports.Meter``."""

    def __init__(self, version: str) -> None:
        self._registry = registry = CollectorRegistry()
        self._cached: dict[tuple[Any, ...], Any] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"mcp_gateway_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str, mode: Any = "livemax") -> Gauge:
            return Gauge(f"mcp_gateway_{name}", text, labels, registry=registry, multiprocess_mode=mode)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"mcp_gateway_{name}", text, labels, registry=registry, buckets=_SECONDS)

        self._requests = counter(
            "requests_total", "MCP requests by how they ended.", "method", "route", "tool", "outcome", "era"
        )
        self._duration = histogram("request_duration_seconds", "Time from request to answer.", "method", "route")
        self._backend = histogram("backend_duration_seconds", "Time a backend took to answer.", "route")
        self._limits = counter("rate_limit_decisions_total", "Decisions of each limit.", "limit", "decision")
        self._audit = counter("audit_events_total", "Audit events by sink and result.", "sink", "result")
        self.up = gauge("backend_up", "1 when the backend answered last.", "route", mode="livemin")
        self.breaker = gauge("breaker_state", "0 closed, 1 half open, 2 open.", "route")
        self._inflight = gauge("inflight", "Calls at the backend now.", "route", mode="livesum")
        self.catalog_tools = gauge("catalog_tools", "Tools of the route's last good listing.", "route")
        self.catalog_age = gauge("catalog_age_seconds", "Age of the route's last good listing.", "route")
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
        key = (method, route, tool, outcome, era)
        pair = self._cached.get(key)
        if pair is None:
            pair = self._cached[key] = (self._requests.labels(*key), self._duration.labels(method, route))
        pair[0].inc()
        pair[1].observe(seconds)

    def backend(self, route: str, seconds: float) -> None:
        """A backend has answered."""
        self._child(self._backend, route).observe(seconds)

    def limits(self, takes: Sequence[Take], verdict: Verdict) -> None:
        """Limits have decided: all allowed, or the one that waits longest refused."""
        for take in takes:
            if verdict.refused is None:
                self._child(self._limits, take.limit.name, "degraded" if verdict.degraded else "allowed").inc()
            elif take.limit is verdict.refused:
                self._child(self._limits, take.limit.name, "refused").inc()

    def inflight(self, route: str, change: int) -> None:
        """Calls at a backend went up or down."""
        self._child(self._inflight, route).inc(change)

    def audit(self, sink: str, result: str, count: int) -> None:
        """Audit events were written, or failed."""
        self._child(self._audit, sink, result).inc(count)

    def render(self, refresh: Callable[[], None]) -> bytes:
        """The exposition; ``refresh`` first sets what is read rather than counted."""
        refresh()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)

    def _child(self, metric: Any, *labels: str) -> Any:
        child = self._cached.get((metric, *labels))
        if child is None:
            child = self._cached[(metric, *labels)] = metric.labels(*labels)
        return child
