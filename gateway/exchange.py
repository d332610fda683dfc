"""One request of a client on its way: the rules that hold for it, who asks, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.audit import AuditEvent
from gateway.catalog import Catalog
from gateway.models import Call, ClientRequest, Principal
from gateway.policy.failed_authentications import FailedAuthentications
from gateway.ports import (
    AuditLog,
    Authenticate,
    Backend,
    Channel,
    Check,
    Conversations,
    Elsewhere,
    Hub,
    Sessions,
    Span,
    T,
    Tracer,
)
from gateway.protocol import clients
from gateway.protocol.inbound import Inbound
from gateway.protocol.request_state import RequestStates
from gateway.routes import Route, Routes
from gateway.seen import SeenUris


@dataclass(frozen=True, slots=True)
class Rules:
    """One snapshot of everything that decides: a request reads it once, a reload replaces it as a whole.

    ``scopes`` has for each toolset what a client is told to ask for before its first call; ``opening_urls`` are the
    routes whose backends may ask people to open URLs. ``remembers``: whether a token, as ``Authorization`` values, was
    accepted before and has not expired.
    """

    authenticate: Authenticate
    routes: Routes
    catalog: Catalog
    backends: Mapping[str, Backend]
    scopes: Mapping[str | None, frozenset[str]]
    by_name: Mapping[str, Route]
    opening_urls: frozenset[str]
    remembers: Callable[[Sequence[bytes]], bool]


@dataclass(frozen=True, slots=True)
class Policy:
    """What every exchange needs: the checks in their order, the audit, who we are, and what is remembered.

    ``present`` gives the rules as they are now, for what outlives its request; ``now`` is in seconds since the epoch;
    ``pause`` waits for seconds.
    """

    checks: tuple[Check, ...]
    audit: AuditLog
    server_info: msgspec.Raw
    states: RequestStates
    sessions: Sessions
    conversations: Conversations
    hub: Hub
    elsewhere: Elsewhere
    tracer: Tracer
    seen: SeenUris
    failures: FailedAuthentications
    present: Callable[[], Rules]
    now: Callable[[], float]
    pause: Callable[[float], Awaitable[None]]


class Exchange(msgspec.Struct):
    """One request. ``channel`` leads to the client while it runs; ``call`` is set once an entry is to be decided."""

    rules: Rules
    inbound: Inbound
    channel: Channel
    event: AuditEvent
    principal: Principal
    request: ClientRequest
    span: Span
    call: Call | None = None

    @property
    def modern(self) -> bool:
        """Whether the client speaks the modern era."""
        return self.request.era == "modern"


class OfRequest(msgspec.Struct, frozen=True):
    """A client's channel as one request uses it: progress under the client's own token, messages it asked for."""

    channel: Channel
    request: ClientRequest

    @property
    def can_ask(self) -> bool:
        """See ``ports.Channel``."""
        return self.channel.can_ask

    def dispatched(self) -> None:
        """See ``ports.Channel``."""
        self.channel.dispatched()

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """See ``ports.Channel``."""
        if method == "notifications/progress":
            token = self.request.progress_token
            if token is not None:
                self.channel.notify(method, {**params, "progressToken": token})
            return
        level = self.request.meta.get(clients.LOG_LEVEL)
        if level is not None and clients.at_least(params.get("level"), level):
            self.channel.notify(method, params)

    def begin(self, session_id: str, request_id: str | int, whose: Principal, *, resumable: bool = False) -> None:
        """See ``ports.Channel``."""
        self.channel.begin(session_id, request_id, whose, resumable=resumable)

    async def part(self, work: Coroutine[Any, Any, T]) -> T | None:
        """See ``ports.Channel``."""
        return await self.channel.part(work)

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """See ``ports.Channel``."""
        return await self.channel.ask(method, params, seconds)
