"""What the core asks of the world. The edges implement these; tests have fakes that pass the same contract tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gateway.audit import AuditEvent
from gateway.models import BackendReply, BackendRequest, Call, Limit, Principal

Check = Callable[[Call], Awaitable[None]]
"""A policy step: returns to allow, raises a ``Refusal`` to deny; there is no third way."""

Notify = Callable[[str, Mapping[str, Any]], None]
"""Takes a notification (method, params) that belongs to the running exchange. Never blocks, never raises."""

Authenticate = Callable[[Sequence[bytes]], Awaitable[Principal]]
"""All ``Authorization`` header values in; a principal out, or ``Unauthenticated``."""


class Take(msgspec.Struct, frozen=True):
    """One limit of a call and the key it is counted under."""

    limit: Limit
    key: str


class LimitState(msgspec.Struct, frozen=True):
    """A limit after a decision: calls left at once, and seconds until ``burst`` is whole again."""

    limit: Limit
    remaining: int
    reset: float


class Verdict(msgspec.Struct, frozen=True):
    """The decision over all limits of a call: all were taken, or none was.

    ``refused`` is the limit that waits longest, ``retry_after`` its exact seconds. ``states`` has one entry for each
    take, in order. ``degraded``: the shared store was away and the outage policy decided.
    """

    refused: Limit | None
    retry_after: float
    states: tuple[LimitState, ...]
    degraded: bool = False


class LimitStore(Protocol):
    """Counts. All limits of a call are decided atomically, in one step."""

    async def take(self, takes: Sequence[Take]) -> Verdict:
        """Decide and count. Never raises for an outage: the outage policy answers."""
        ...


class SigningKeys(Protocol):
    """The keys of an issuer."""

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> Sequence[Any]:
        """Public keys that may have signed a token with this ``kid`` and algorithm, usable by PyJWT; maybe none.

        Raises:
            KeysUnavailable: the issuer's keys were never had.
        """
        ...

    @property
    def generation(self) -> int:
        """Changes whenever any issuer's set of keys changed: what was verified before is verified anew."""
        ...


class AuditLog(Protocol):
    """Where events go. One chain per writer."""

    async def intend(self, event: AuditEvent) -> None:
        """Returns when the intent is durable as configured.

        Raises:
            AuditUnavailable: it cannot be, and the policy is to deny.
        """
        ...

    def append(self, event: AuditEvent) -> None:
        """Queue an outcome or a refusal; synchronous, so that a cancelled request loses nothing. Never raises."""
        ...


class Backend(Protocol):
    """One MCP server behind us, whatever it speaks."""

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """Send and wait. Cancelling the caller cancels the request in the way the backend's era wants.

        Raises:
            BackendUnavailable: or ``BackendTimeout``, ``BackendBusy``; ``dispatched`` says whether it had left.
        """
        ...


class Sessions(Protocol):
    """Which sealed legacy sessions were ended before their time."""

    async def end(self, session_id: str, seconds: float) -> None:
        """Remember for ``seconds`` that this one has ended."""
        ...

    async def ended(self, session_id: str) -> bool:
        """Whether a client ended it."""
        ...


class Meter(Protocol):
    """Instrumentation receives values, never decides."""

    def request(self, method: str, route: str, tool: str, outcome: str, era: str, seconds: float) -> None:
        """A request has ended."""
        ...

    def backend(self, route: str, seconds: float) -> None:
        """A backend has answered."""
        ...

    def limits(self, takes: Sequence[Take], verdict: Verdict) -> None:
        """Limits have decided."""
        ...

    def inflight(self, route: str, change: int) -> None:
        """Calls at a backend went up or down."""
        ...
