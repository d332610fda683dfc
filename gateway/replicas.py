"""What reaches one process and concerns another: answers, cancellations and subscriptions of legacy clients, and the
retries of calls that are parked elsewhere. With one process the relay leads back to it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import INVALID_PARAMS, BackendUnavailable, InvalidRequest, Refusal
from gateway.exchange import Rules
from gateway.models import BackendReply, BackendRequest, Principal
from gateway.ports import Conversations, Hub, Notify
from gateway.protocol.strict_json import encode
from gateway.relay import Relay, RelayLost
from gateway.seen import SeenUris
from gateway.watching import of_principal

_FIELDS = (
    "method",
    "params",
    "meta",
    "capabilities",
    "client_info",
    "name",
    "headers",
    "answers",
    "state",
    "log_level",
    "wants_progress",
    "timeout",
    "max_timeout",
    "idempotent",
)
"""What of a request for a backend crosses as it is."""

_Reply = tuple[dict[str, msgspec.Raw] | None, dict[str, Any] | None, float, dict[str, Any] | None]
_NO_REPLY = (None, None, 0.0, None)


class Replicas:
    """Implements ``ports.Conversations`` over all processes, and ``ports.Elsewhere``.

    Args:
        relay: leads to the other processes.
        conversations: those of this process.
        hub: the subscriptions of this process.
        present: the rules as they are now.
        seen: what backends named to principals.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        relay: Relay,
        conversations: Conversations,
        hub: Hub,
        *,
        present: Callable[[], Rules],
        seen: SeenUris,
        now: Callable[[], float],
    ) -> None:
        self._relay = relay
        self._conversations = conversations
        self._hub = hub
        self._present = present
        self._seen = seen
        self._now = now
        self._resuming: dict[str, Notify] = {}
        handlers: Mapping[str, Callable[[Any], Awaitable[Any]]] = {
            "answer": self._answered,
            "cancel": self._cancelled,
            "subscribe": self._subscribed,
            "unsubscribe": self._unsubscribed,
            "ended": self._ended,
            "named": self._named,
            "resume": self._resumed,
            "heard": self._heard,
        }
        for topic, handler in handlers.items():
            relay.serve(topic, _of_json(handler))

    @property
    def here(self) -> str:
        """The address of this process."""
        return self._relay.here

    # ports.Conversations

    def deliver(self, session_id: str, response: Mapping[str, Any]) -> None:
        """The id of a question begins with the address of the process that waits for the answer."""
        there = str(response["id"]).partition(".")[0]
        if there == self.here:
            self._conversations.deliver(session_id, response)
        elif there.isalnum():
            self._relay.tell(there, "answer", encode([session_id, response]))

    def cancel(self, session_id: str, request_id: Any) -> None:
        """Nobody knows where the request runs, so everybody is told; here at once, before a later one has its id."""
        self._conversations.cancel(session_id, request_id)
        self._relay.publish("cancel", encode([session_id, request_id]), here=False)

    # ports.Elsewhere

    def subscribed(self, session_id: str, uri: str, principal: Principal, toolset: str | None) -> None:
        """See ``ports.Elsewhere``."""
        self._relay.publish("subscribe", encode([session_id, uri, _written(principal), toolset]))

    def unsubscribed(self, session_id: str, uri: str) -> None:
        """See ``ports.Elsewhere``."""
        self._relay.publish("unsubscribe", encode([session_id, uri]))

    def ended(self, session_id: str) -> None:
        """See ``ports.Elsewhere``."""
        self._relay.publish("ended", encode([session_id]))

    def named(self, principal: Principal, route: str, uris: Sequence[str]) -> None:
        """See ``ports.Elsewhere``."""
        self._relay.publish("named", encode([principal.issuer, principal.subject, route, uris]))

    async def resume(self, holder: str, route: str, request: BackendRequest, notify: Notify) -> BackendReply:
        """See ``ports.Elsewhere``."""
        fields = {name: getattr(request, name) for name in _FIELDS}
        name = secrets.token_hex(8)
        payload = encode([route, fields, _written(request.principal), self.here, name])
        self._resuming[name] = notify
        try:
            answer = await self._relay.ask(holder, "resume", payload, request.max_timeout)
        except RelayLost as lost:
            raise _gone(route, delivered=lost.delivered) from None
        finally:
            del self._resuming[name]
        reply, refusal = msgspec.json.decode(answer, type=tuple[_Reply, list[Any] | None])
        if refusal is not None:
            raise _refusal(*refusal)
        return BackendReply(*reply)

    # What others say

    async def _answered(self, message: list[Any]) -> None:
        self._conversations.deliver(*message)

    async def _cancelled(self, message: list[Any]) -> None:
        self._conversations.cancel(*message)

    async def _subscribed(self, message: list[Any]) -> None:
        session_id, uri, principal, toolset = message
        watcher = of_principal(_read(principal), toolset, self._present, self._now())
        try:
            self._hub.subscribe(session_id, uri, **watcher)
        except Refusal:  # refused here is refused there too, where the client was told
            return

    async def _unsubscribed(self, message: list[Any]) -> None:
        self._hub.unsubscribe(*message)

    async def _ended(self, message: list[Any]) -> None:
        self._hub.end_session(*message)

    async def _named(self, message: list[Any]) -> None:
        self._seen.keep(*message)

    async def _heard(self, message: list[Any]) -> None:
        name, method, params = message
        notify = self._resuming.get(name)
        if notify is not None:
            notify(method, params)

    async def _resumed(self, message: list[Any]) -> list[Any]:
        route, fields, principal, asker, name = message

        def notify(method: str, params: Mapping[str, Any]) -> None:
            self._relay.tell(asker, "heard", encode([name, method, params]))

        backend = self._present().backends.get(route)
        if backend is None:
            return [_NO_REPLY, _told(_gone(route, delivered=False))]
        try:
            reply = await backend.request(BackendRequest(principal=_read(principal), **fields), notify)
        except Refusal as refusal:
            return [_NO_REPLY, _told(refusal)]
        return [[reply.result, reply.error, reply.seconds, reply.undeclared], None]


def _of_json(handler: Callable[[Any], Awaitable[Any]]) -> Callable[[bytes], Awaitable[bytes]]:
    async def handle(payload: bytes) -> bytes:
        return encode(await handler(msgspec.json.decode(payload)))

    return handle


def _written(principal: Principal) -> list[Any]:
    until = principal.expires_at if math.isfinite(principal.expires_at) else None
    toolsets = sorted(principal.toolsets) if principal.toolsets is not None else None
    scopes = sorted(principal.scopes)
    return [principal.issuer, principal.subject, principal.client_id, scopes, until, toolsets]


def _read(written: list[Any]) -> Principal:
    issuer, subject, client_id, scopes, until, toolsets = written
    return Principal(
        issuer=issuer,
        subject=subject,
        client_id=client_id,
        scopes=frozenset(scopes),
        expires_at=until if until is not None else math.inf,
        toolsets=frozenset(toolsets) if toolsets is not None else None,
    )


def _told(refusal: Refusal) -> list[Any]:
    return [
        refusal.outcome,
        refusal.message,
        refusal.hint,
        refusal.code,
        refusal.status,
        refusal.dispatched,
        refusal.retryable,
    ]


def _refusal(
    outcome: str, message: str, hint: str, code: int, status: int, dispatched: bool, retryable: bool
) -> Refusal:
    """The holder's refusal again. What it did is on its record; here it is said by its kind and words."""
    if outcome == InvalidRequest.outcome:
        return InvalidRequest(message, code=code, status=status, hint=hint)
    return BackendUnavailable(message, dispatched=dispatched, retryable=retryable, hint=hint)


def _gone(route: str, *, delivered: bool) -> Refusal:
    if delivered:
        return BackendUnavailable(
            f"The part of the gateway that held this call of the {route} backend was lost meanwhile.",
            dispatched=True,
            retryable=False,
            hint="Check what the call has done before you repeat it.",
        )
    return InvalidRequest(
        "This requestState is not known any more: the part of the gateway that held the call is gone.",
        code=INVALID_PARAMS,
        status=200,
        rule="protocol.request_state",
        hint="Check what the call has done before you send the request again without it.",
    )
