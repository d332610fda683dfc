"""What the core asks of the world. The edges implement these; tests have fakes that pass the same contract tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.audit import AuditEvent
from gateway.models import BackendReply, BackendRequest, Call, JsonObject, Limit, LimitState, Principal

T = TypeVar("T")

Check = Callable[[Call], Awaitable[None] | None]
"""A policy step: returns to allow, raises a ``Refusal`` to deny; there is no third way. One that has to ask or to wait
returns what does so, which then allows or denies."""

Notify = Callable[[str, Mapping[str, Any]], None]
"""Takes a notification (method, params) that belongs to the running exchange. Never blocks, never raises."""


class Channel(Protocol):
    """The way to a client while its request runs."""

    def begin(self, session_id: str, request_id: str | int, whose: Principal, *, resumable: bool = False) -> None:
        """The request is of this legacy session: its client may cancel it and may be asked, and with ``resumable``
        knows how to leave the answer's stream and come back to it."""
        ...

    async def part(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do the work of one message of a batch; None where its client cancelled it, which ends no other."""
        ...

    @property
    def can_ask(self) -> bool:
        """Whether requests reach it: a legacy client that takes an event stream."""
        ...

    def dispatched(self) -> None:
        """The request has left for a backend: a long silence may be filled, which fixes the status at 200."""
        ...

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """See ``Notify``."""
        ...

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """Put a request to the client and wait for the result that it posts.

        Raises:
            ClientSilent: it refused, did not answer in time, or cannot be asked.
        """
        ...


Authenticate = Callable[[Sequence[bytes]], Awaitable[Principal]]
"""All ``Authorization`` header values in; a principal out, or ``Unauthenticated``."""


class Take(msgspec.Struct, frozen=True):
    """One limit of a call and the key it is counted under."""

    limit: Limit
    key: str


class Verdict(msgspec.Struct, frozen=True):
    """The decision over all limits of a call: all were taken, or none was.

    ``refused`` is the limit that waits longest, ``retry_after`` its exact seconds; for a concurrency limit a guess.
    ``left`` makes a state for each take, in order: few are ever asked for. ``degraded``: the shared store was away and
    the outage policy decided. ``watching`` are limits without ``enforce`` that would have refused; they were not taken.
    ``release`` is set where concurrency limits were taken: it gives them back, is called once, never waits and never
    raises.
    """

    refused: Limit | None
    retry_after: float
    left: Callable[[], tuple[LimitState, ...]] = tuple
    degraded: bool = False
    watching: tuple[Limit, ...] = ()
    release: Callable[[], None] | None = None

    @property
    def states(self) -> tuple[LimitState, ...]:
        """The limits after the decision."""
        return self.left()


class LimitStore(Protocol):
    """Counts. All limits of a call are decided atomically, in one step."""

    async def take(self, takes: Sequence[Take]) -> Verdict:
        """Decide and count. In an outage the policy for it answers.

        Raises:
            Overloaded: the policy is to refuse.
        """
        ...


class Room(Protocol):
    """Place for so many calls at once; a few more wait for a moment, first come first served."""

    @property
    def taken(self) -> int:
        """Places that are held; somebody waits only where all of them are."""
        ...

    def take(self) -> bool:
        """Take a place if there is one and nobody waits for it."""
        ...

    async def wait(self, seconds: float) -> bool:
        """Wait for a place, at most ``seconds``; false when none came or too many wait."""
        ...

    def release(self) -> None:
        """Give a place back; once for each that was had."""
        ...


class SigningKeys(Protocol):
    """The keys of an issuer."""

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> Sequence[Any]:
        """Public keys that may have signed a token with this ``kid`` and algorithm, usable by PyJWT; maybe none.

        Raises:
            IssuerUnavailable: the issuer's keys were never had.
        """
        ...

    @property
    def generation(self) -> int:
        """Changes whenever any issuer's set of keys changed: what was verified before is verified anew."""
        ...


class Introspect(Protocol):
    """Asks an issuer about a token (RFC 7662)."""

    async def __call__(self, token: bytes, *, known: bool = False) -> JsonObject | None:
        """Its claims, or None where it is not active. ``known``: it was active before, so others wait for it.

        Raises:
            IssuerUnavailable: the issuer cannot be asked now.
        """
        ...


class Conversations(Protocol):
    """What a legacy client posts about a request that runs elsewhere."""

    def deliver(self, session_id: str, response: Mapping[str, Any]) -> None:
        """An answer to a request that was put to the client; one that nobody waits for is dropped."""
        ...

    def cancel(self, session_id: str, request_id: Any) -> None:
        """The client wants no answer to its own request any more."""
        ...


class Elsewhere(Protocol):
    """The other processes of this gateway, as far as a request concerns them."""

    @property
    def here(self) -> str:
        """The address of this process."""
        ...

    def subscribed(self, session_id: str, uri: str, principal: Principal, toolset: str | None) -> None:
        """A legacy session, whose stream may be at another process, watches a resource."""
        ...

    def unsubscribed(self, session_id: str, uri: str) -> None:
        """It does so no more."""
        ...

    def ended(self, session_id: str) -> None:
        """A legacy session has ended."""
        ...

    def named(self, principal: Principal, route: str, uris: Sequence[str]) -> None:
        """A backend named resources to a principal that no list has."""
        ...

    async def resume(self, holder: str, route: str, request: BackendRequest, notify: Notify) -> BackendReply:
        """Go on with a call that is parked at the process ``holder``; its progress and log messages go to ``notify``.

        Raises:
            Refusal: that of the holder, or that it is gone; nothing is run a second time.
        """
        ...


RouteOf = Callable[[str], str | None]
"""The route that answers for a URI, by the present rules; None where there is none that this client may read."""

Sees = Callable[[str], bool]
"""Whether a route concerns this client, by the present rules."""


class Hub(Protocol):
    """Who is told of changes. What opens a stream is entered by whoever writes it; ``seconds`` bound its life.

    All raise ``RateLimited`` or ``Overloaded`` where a principal, or all together, have too much.
    """

    def asked(self, params: Mapping[str, Any]) -> Any:
        """The filter of a ``subscriptions/listen``.

        Raises:
            InvalidRequest: -32602.
        """
        ...

    def listen(
        self, request_id: str | int, asked: Any, *, principal: Principal, route_of: RouteOf, sees: Sees, seconds: float
    ) -> AbstractContextManager[Any]:
        """The stream of one ``subscriptions/listen``."""
        ...

    def follow(
        self, session_id: str, *, principal: Principal, sees: Sees, seconds: float
    ) -> AbstractContextManager[Any]:
        """The GET stream of a legacy session."""
        ...

    def subscribe(
        self, session_id: str, uri: str, *, principal: Principal, route_of: RouteOf, sees: Sees, seconds: float
    ) -> None:
        """``resources/subscribe`` of a legacy session.

        Raises:
            InvalidRequest: nobody owns the URI, or the session has too many.
        """
        ...

    def unsubscribe(self, session_id: str, uri: str) -> None:
        """``resources/unsubscribe``."""
        ...

    def end_session(self, session_id: str) -> None:
        """A legacy session has ended."""
        ...


class AuditLog(Protocol):
    """Where events go. One chain per writer."""

    def intend(self, event: AuditEvent) -> Awaitable[None]:
        """Done when the intent is durable as configured.

        Raises:
            AuditUnavailable: it cannot be, and the policy is to deny.
        """
        ...

    def append(self, event: AuditEvent) -> None:
        """Queue an outcome or a refusal; synchronous, so that a cancelled request loses nothing. Never raises."""
        ...


class Backend(Protocol):
    """One MCP server behind us, whatever it speaks."""

    @property
    def up(self) -> bool:
        """Whether what is known of it is fresh, and calls get through."""
        ...

    @property
    def keeps_state(self) -> bool:
        """Whether what it asked is waiting in this process, so that no other can take the answer."""
        ...

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """Send and wait. Cancelling the caller cancels the request in the way the backend's era wants.

        Whatever the backend's era, a question of it in mid-call is a result with ``resultType: input_required``; the
        answers come with a new request that has its ``answers`` and ``state``.

        Raises:
            BackendUnavailable: or ``BackendTimeout``, ``BackendBusy``; ``dispatched`` says whether it had left.
        """
        ...


class SessionState(msgspec.Struct, frozen=True):
    """What is remembered of a sealed session: whether its client ended it, and the log level it asked for."""

    ended: bool = False
    log_level: str | None = None


class Sessions(Protocol):
    """What a sealed legacy session cannot hold: that it was ended before its time, and its log level."""

    async def end(self, session_id: str, seconds: float) -> None:
        """Remember for ``seconds`` that this one has ended."""
        ...

    async def ended(self, session_id: str) -> bool:
        """Whether a client ended it."""
        ...

    async def set_log_level(self, session_id: str, level: str, seconds: float) -> None:
        """Remember for ``seconds`` the least severe log message that the client wants."""
        ...

    async def state(self, session_id: str) -> SessionState:
        """Everything that is remembered of a session, in one round trip. Never raises for an outage."""
        ...


class Span(Protocol):
    """A running piece of a trace."""

    def context(self) -> Mapping[str, str]:
        """``traceparent`` and ``tracestate`` for whoever is called next; nothing where nothing is traced."""
        ...

    def end(self, outcome: str, attributes: Mapping[str, Any]) -> None:
        """It is over; every outcome but ``ok`` is an error. Called once."""
        ...


class Tracer(Protocol):
    """Where spans begin. Never raises."""

    def begin(self, name: str, parent: Mapping[str, Any], attributes: Mapping[str, Any]) -> Span:
        """Start a span. Of ``parent``, a ``_meta`` or a request's headers, only the W3C trace context is read."""
        ...


class _NoSpan:
    def context(self) -> Mapping[str, str]:
        return {}

    def end(self, outcome: str, attributes: Mapping[str, Any]) -> None:
        pass


NO_SPAN: Span = _NoSpan()
"""Of nothing that is traced."""


class _NoTracing:
    def begin(self, name: str, parent: Mapping[str, Any], attributes: Mapping[str, Any]) -> Span:
        return NO_SPAN


NO_TRACING: Tracer = _NoTracing()
"""Traces nothing."""


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
