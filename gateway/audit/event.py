"""The event that frames a request. The pipeline opens it first and fills it as it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.models import Principal

Kind = Literal["intent", "outcome", "request", "tools_changed"]
"""An executed call has an *intent* and an *outcome*; every other request is one *request*.

*tools_changed* is no request: a definition is not the pinned one, or is so again.
"""


class AuditEvent(msgspec.Struct):
    """One request, as far as it is known.

    ``arguments`` are as received and are redacted when encoded; ``redact`` are the paths of the route. Neither is
    changed once the event was recorded. ``started`` is in seconds since the epoch; where ``duration_ms`` is None it is
    measured from there. ``answer`` is the JSON-RPC answer with a backend's result, as the client is sent it.
    ``kind`` is what its record is called where it has but one. ``intended`` is set by the writer: an intent was queued,
    so the next record is its outcome. ``frame`` is what the encoder made of an intent, for its outcome: the rule at the
    time, and the fields both have.
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
    arguments: Mapping[str, Any] | None = None
    redact: tuple[str, ...] = ()
    outcome: str = "aborted"
    http_status: int | None = None
    dispatched: bool = False
    started: float = 0.0
    duration_ms: float | None = None
    backend_ms: float | None = None
    answer: bytes | None = None
    intended: bool = False
    kind: Kind = "request"
    frame: tuple[str, bytes] | None = None

    def __repr__(self) -> str:
        """Without what is redacted when it is encoded."""
        return f"AuditEvent({self.request_id!r}, {self.method!r}, {self.tool!r}, {self.outcome!r})"
