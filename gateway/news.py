"""What operators are told of a new catalogue, once for each change: in the log, and of pins in the audit too."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from gateway.audit import AuditEvent
from gateway.catalog import Catalog
from gateway.definitions.lock import Drift, rule_of
from gateway.entries import Finding
from gateway.models import Kind

log = logging.getLogger(__name__)

Record = Callable[[AuditEvent], None]


class News:
    """Compares each catalogue with the one before.

    Args:
        record: takes audit events.
        now: seconds since the epoch.
    """

    def __init__(self, record: Record, now: Callable[[], float]) -> None:
        self._record = record
        self._now = now
        self._omitted: frozenset[Finding] = frozenset()
        self._cleaned: frozenset[Finding] = frozenset()
        self._drifts: dict[tuple[str, Kind, str], Drift] = {}

    def tell(self, catalog: Catalog) -> None:
        """This is the catalogue from now on."""
        _say("left out", catalog.omitted, self._omitted)
        _say("cleaned", catalog.cleaned, self._cleaned)
        self._omitted, self._cleaned = frozenset(catalog.omitted), frozenset(catalog.cleaned)
        former, self._drifts = self._drifts, {(it.route, it.kind, it.backend_name): it for it in catalog.drifts}
        for key, drift in self._drifts.items():
            if former.get(key) != drift:
                _warn(drift)
                self._record(self._event(drift, "quarantined" if drift.withheld else "ok", drift.change))
        for key, drift in former.items():
            if key not in self._drifts and catalog.lists(drift.route, drift.backend_name, drift.kind):
                log.info(
                    f"{drift.kind} is as pinned again", extra={"route": drift.route, drift.kind: drift.backend_name}
                )
                self._record(self._event(drift, "ok", "as_pinned"))

    def _event(self, drift: Drift, outcome: str, change: str) -> AuditEvent:
        event = AuditEvent(request_id=os.urandom(10).hex(), kind="tools_changed", outcome=outcome)
        event.tool, event.route, event.backend_tool = drift.name, drift.route, drift.backend_name
        event.rule = rule_of(drift.route, drift.backend_name, drift.kind)
        event.started = self._now()
        event.duration_ms = 0.0
        event.arguments = {
            "kind": drift.kind,
            "change": change,
            "fields": list(drift.fields),
            "pinned": drift.pinned,
            "found": drift.found,
        }
        return event


def _say(what: str, findings: Iterable[Finding], said: frozenset[Finding]) -> None:
    for it in findings:
        if it not in said:
            log.warning(what, extra={"route": it.route, "kind": it.kind, "entry": it.name, "reason": it.reason})


def _warn(drift: Drift) -> None:
    what = "is quarantined" if drift.withheld else "is not as pinned"
    told = {"route": drift.route, drift.kind: drift.backend_name, "reason": str(drift)}
    log.warning(f"{drift.kind} {what}", extra=told)
