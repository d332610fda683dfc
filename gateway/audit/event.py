"""The event that frames a request. The pipeline opens it first and fills it as it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

from gateway.models import Principal

Kind = Literal["intent", "outcome", "request"]
"""An executed call has an *intent* and an *outcome*; everything else is one *request*."""

Snapshot = tuple[Any, ...]
"""An event as it was when it was recorded: kind, epoch seconds, then ``_FIELDS``."""


@dataclass(slots=True)
class AuditEvent:
    """One request, as far as it is known.

    ``arguments`` are as received and are redacted when encoded; ``redact`` are the paths of the route. Neither is
    changed once the event was recorded. ``started`` is in seconds since the epoch; where ``duration_ms`` is None it is
    measured from there. ``intended`` is set by the writer: an intent was queued, so the next record is its outcome.
    """

    request_id: str
    trace_id: str | None = None
    client_address: str | None = None
    era: str | None = None
    revision: str | None = None
    method: str | None = None
    toolset: str | None = None
    tool: str | None = None
    route: str | None = None
    backend_tool: str | None = None
    principal: Principal | None = None
    scopes_needed: frozenset[str] | None = None
    rule: str = ""
    arguments: Mapping[str, Any] | None = field(default=None, repr=False)
    redact: tuple[str, ...] = ()
    outcome: str = "aborted"
    http_status: int | None = None
    dispatched: bool = False
    started: float = 0.0
    duration_ms: float | None = None
    backend_ms: float | None = None
    intended: bool = False
    encoded_arguments: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)


_FIELDS = attrgetter(
    "request_id",
    "trace_id",
    "client_address",
    "era",
    "revision",
    "method",
    "toolset",
    "tool",
    "route",
    "backend_tool",
    "principal",
    "scopes_needed",
    "rule",
    "arguments",
    "redact",
    "encoded_arguments",
    "outcome",
    "http_status",
    "dispatched",
    "started",
    "duration_ms",
    "backend_ms",
)


def snapshot(event: AuditEvent, kind: Kind, now: float) -> Snapshot:
    """Take the event as it is at ``now`` (epoch seconds). Cheap: it runs on the event loop."""
    return (kind, now, *_FIELDS(event))
