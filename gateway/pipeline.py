"""The path of one message, from the bytes of a request to the bytes of its answer.

authenticate → read → parse once → which era → the method, with its checks → [finally: audit, metrics]. There is one
order and it stands here; every way out, a refusal, a failure or a client that hangs up, passes the same ``finally``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import msgspec

from gateway.audit import AuditEvent
from gateway.errors import InsufficientScope, InvalidRequest, Refusal, Unauthenticated, UnknownSession
from gateway.exchange import Exchange, OfRequest, Policy, Rules
from gateway.methods import METHODS, answer
from gateway.models import ANONYMOUS, ClientRequest, Era, Principal
from gateway.ports import NO_SPAN, NO_TRACING, Channel, Meter
from gateway.protocol import answers, jsonrpc, lifecycle, revisions, strict_json
from gateway.protocol import inbound as wire
from gateway.protocol.answers import Answer
from gateway.protocol.authorization import challenge
from gateway.protocol.inbound import Inbound
from gateway.protocol.session import LIFETIME, Session, SessionSealer
from gateway.protocol.tracing import described
from gateway.watching import of_principal

MAX_BATCH = 50

_KNOWN_METHODS = frozenset(name for _, name in METHODS) | {"initialize", "session/stream", "session/end"}
_SPLIT = msgspec.json.Decoder(list[msgspec.Raw])


class _Path(msgspec.Struct):
    """What is known of one message while it travels; mutable, private to this module."""

    rules: Rules
    inbound: Inbound
    event: AuditEvent
    began: float
    era: Era = "modern"
    id: str | int | None = None
    exchange: Exchange | None = None
    in_parts: bool = False
    unrecorded: bool = False


class Pipeline:
    """Serves messages. The present rules are read once a message.

    Args:
        policy: the checks in their order, the audit log, our server info.
        sealer: opens and seals legacy session ids.
        meter: counts.
        failed: told of an unexpected exception and the request's id; it logs.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        sealer: SessionSealer,
        meter: Meter,
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._policy = policy
        self._traced = policy.tracer is not NO_TRACING
        self._sealer = sealer
        self._meter = meter
        self._failed = failed

    @property
    def rules(self) -> Rules:
        """The present ones."""
        return self._policy.present()

    def post(self, inbound: Inbound, channel: Channel) -> Awaitable[Answer]:
        """Answer one POST. ``channel`` leads to its client meanwhile."""
        path = self._open(inbound)
        return self._framed(path, self._post(path, channel))

    async def stream(self, inbound: Inbound, resumed: Callable[[], AbstractContextManager[Any] | None]) -> Answer:
        """Answer the GET of a legacy client: the stream of its session, or what is ``resumed`` of a call's."""
        path = self._open(inbound, "session/stream")

        async def opened() -> Answer:
            principal = await self._authenticate(path)
            await self._session(path, principal)
            opens = resumed()
            if opens is None:
                watcher = of_principal(principal, inbound.toolset, self._policy.present, self._policy.now())
                opens = self._policy.hub.follow(
                    inbound.headers["mcp-session-id"],
                    principal=principal,
                    sees=watcher["sees"],
                    seconds=watcher["seconds"],
                )
            path.event.outcome = "ok"
            return Answer(200, opens=opens)

        return await self._framed(path, opened())

    async def end(self, inbound: Inbound) -> Answer:
        """Answer a DELETE: the session is over."""
        path = self._open(inbound, "session/end")

        async def ended() -> Answer:
            principal = await self._authenticate(path)
            await self._session(path, principal)
            session_id = inbound.headers["mcp-session-id"]
            await self._policy.sessions.end(session_id, LIFETIME)
            self._policy.hub.end_session(session_id)
            self._policy.elsewhere.ended(session_id)
            path.event.outcome = "ok"
            return Answer(204)

        return await self._framed(path, ended())

    async def refuse(self, inbound: Inbound, refusal: Refusal, *, admitted: bool = False) -> Answer:
        """Say a refusal that was decided before the pipeline (a guard's), or behind it, and record it.

        Of a flood from one address, whose sender nobody knows, only so much is recorded; ``admitted``: it is known.
        """
        path = self._open(inbound)
        if not admitted:
            path.unrecorded, refusal.rule = self._policy.failures.refused(inbound.client_address, refusal.rule)

        async def refused() -> Answer:
            raise refusal

        return await self._framed(path, refused())

    def unreadable(self, client_address: str, status: int, reason: str) -> None:
        """Record what was refused before there was a request."""
        event = AuditEvent(request_id=os.urandom(10).hex(), client_address=client_address)
        event.started = time.time()
        event.duration_ms = 0.0
        event.outcome, event.http_status = "invalid_request", status
        unrecorded, event.rule = self._policy.failures.refused(client_address, reason)
        if not unrecorded:
            self._policy.audit.append(event)
        self._meter.request("other", "", "", event.outcome, "", 0.0)

    # The frame

    def _open(self, inbound: Inbound, method: str | None = None, suffix: str = "") -> _Path:
        event = AuditEvent(
            request_id=inbound.request_id + suffix if suffix else inbound.request_id,
            client_address=inbound.client_address,
            toolset=inbound.toolset,
            method=method,
            started=time.time(),
        )
        return _Path(self._policy.present(), inbound, event, time.perf_counter())

    async def _framed(self, path: _Path, work: Awaitable[Answer]) -> Answer:
        event = path.event
        reply: Answer | None = None
        try:
            reply = await work
        except Refusal as refusal:
            event.outcome = refusal.outcome
            event.rule = refusal.rule or event.rule
            event.dispatched = refusal.dispatched
            reply = self._say(path, refusal)
        except Exception as error:  # noqa: BLE001 - the one broad except: nothing unexpected may reach a client
            event.outcome = "internal_error"
            self._failed(path.inbound.request_id, error)
            reply = answers.internal_error(path.id, event.request_id, dispatched=event.dispatched)
        finally:
            event.http_status = reply.status if reply else None
            self._close(path)
        return reply

    def _close(self, path: _Path) -> None:
        """Record, count, give back; synchronous, because an ``await`` here would be lost when the client hangs up."""
        event = path.event
        seconds = time.perf_counter() - path.began
        event.duration_ms = seconds * 1000
        if path.exchange is not None and self._traced:
            path.exchange.span.end(event.outcome, {"mcp_gateway.route": event.route or ""})
        if not path.in_parts:
            if not path.unrecorded:
                self._policy.audit.append(event)
            method = event.method if event.method in _KNOWN_METHODS else "other"
            self._meter.request(method, event.route or "", event.tool or "", event.outcome, path.era, seconds)
        if path.exchange is not None and path.exchange.call is not None:
            path.exchange.call.grant.end()

    def _say(self, path: _Path, refusal: Refusal) -> Answer:
        call = path.exchange.call if path.exchange else None
        reply = answers.refused(
            refusal,
            request_id=path.id,
            era=path.era,
            tool_call=path.event.method == "tools/call",
            server_info=self._policy.server_info,
            over_http=path.rules.routes.refusals == "http",
            limits=call.entry.policy.limits if call else (),
            in_session=path.exchange is not None,
        )
        auth = path.rules.routes.auth
        if auth is None or not isinstance(refusal, Unauthenticated | InsufficientScope):
            return reply
        toolset = path.inbound.toolset
        value = challenge(refusal, auth, toolset, path.rules.scopes.get(toolset, frozenset()))
        return Answer(reply.status, reply.body, (*reply.headers, ("www-authenticate", value)))

    # The path

    async def _post(self, path: _Path, channel: Channel) -> Answer:
        principal = await self._authenticate(path)
        body = path.inbound.body
        if body is None:
            body = await path.inbound.read()
        value = strict_json.parse(body)
        if isinstance(value, list):
            return await self._batch(path, principal, value, body, channel)
        return await self._message(path, principal, value, body, channel)

    async def _authenticate(self, path: _Path) -> Principal:
        rules, inbound = path.rules, path.inbound
        if rules.routes.auth is None:
            principal = ANONYMOUS
        else:
            if self._policy.failures.arrivals:
                self._refuse_flood(path)
            try:
                principal = await rules.authenticate(inbound.authorization)
            except Unauthenticated:
                self._policy.failures.failed(inbound.client_address, token=bool(inbound.authorization))
                raise
            if principal.toolsets is not None and inbound.toolset not in principal.toolsets:
                raise Unauthenticated(
                    "The token was issued for another toolset of this gateway.",
                    token_presented=True,
                    reason="wrong_audience",
                )
        path.event.principal = principal
        return principal

    def _refuse_flood(self, path: _Path) -> None:
        """An address that failed too often is heard only with a token that was accepted before."""
        inbound, failures = path.inbound, self._policy.failures
        address, token = inbound.client_address, bool(inbound.authorization)
        wait = failures.wait(address, token=token)
        if wait and not path.rules.remembers(inbound.authorization):
            before = failures.recorded(address, token=token)
            path.unrecorded = before is None
            raise failures.refusal(wait, before or 0, token=token)

    def _message(
        self, path: _Path, principal: Principal, value: Any, body: bytes, channel: Channel
    ) -> Awaitable[Answer]:
        """The answer to come of a message; refuses at once what is none."""
        try:
            message = jsonrpc.read(value)
        except InvalidRequest:
            path.id = jsonrpc.id_of(value)
            raise
        path.id = None if isinstance(message, jsonrpc.Notification) else message.id
        if path.inbound.repeated:
            wire.refuse_repeated(path.inbound.repeated)
        if isinstance(message, jsonrpc.Request):
            raw, former = wire.forwarded(message, body), path.inbound.former
            request = former.again(message, raw)
            if request is not None:
                path.event.trace_id = former.trace_id
                return self._asked(path, principal, request, channel)
        path.era = path.event.era = wire.era_of(message, path.inbound.headers)
        if not isinstance(message, jsonrpc.Request):
            return self._accepted(path, principal, message)
        path.event.method = message.method[:64]
        path.event.trace_id = wire.trace_id(message, path.inbound.headers)
        if path.era == "legacy":
            return self._of_legacy(path, principal, message, raw, channel)
        request = wire.modern_request(message, path.inbound.headers, raw)
        former.keep(request, path.event.trace_id)
        return self._asked(path, principal, request, channel)

    async def _of_legacy(
        self, path: _Path, principal: Principal, message: jsonrpc.Request, raw: wire.RawParams, channel: Channel
    ) -> Answer:
        if message.method == "initialize":
            return self._initialize(path, principal, message)
        request = wire.legacy_request(message, await self._session(path, principal), raw)
        return await self._asked(path, principal, request, channel)

    def _asked(self, path: _Path, principal: Principal, request: ClientRequest, channel: Channel) -> Awaitable[Answer]:
        event, inbound = path.event, path.inbound
        path.era = event.era = request.era
        event.method, event.revision = request.method[:64], request.revision
        span = NO_SPAN
        if self._traced:
            span = self._policy.tracer.begin(*described(request, inbound.headers))
            event.trace_id = span.context().get("traceparent", "")[3:35] or event.trace_id
        exchange = path.exchange = Exchange(
            path.rules, inbound, OfRequest(channel, request), event, principal, request, span
        )
        if request.era == "legacy":
            resumable = request.revision in revisions.RESUMABLE
            channel.begin(inbound.headers["mcp-session-id"], request.id, principal, resumable=resumable)
        return answer(exchange, self._policy)

    async def _session(self, path: _Path, principal: Principal) -> Session:
        path.era = path.event.era = "legacy"
        headers = path.inbound.headers
        session_id = headers.get("mcp-session-id")
        if session_id is None:
            raise InvalidRequest("This request needs an Mcp-Session-Id; send initialize first.", rule="session.missing")
        session = self._sealer.open(session_id, principal)
        state = await self._policy.sessions.state(session_id)
        if state.ended:
            raise UnknownSession
        path.event.revision = session.revision
        version = headers.get("mcp-protocol-version", session.revision)
        if version not in revisions.LEGACY:
            message = f"MCP-Protocol-Version {version[:64]!a} is not served in a session."
            raise InvalidRequest(message, rule="session.version")
        return replace(session, log_level=state.log_level)

    async def _accepted(self, path: _Path, principal: Principal, message: jsonrpc.Message) -> Answer:
        """Notifications and posted responses are acknowledged, and in a session passed on to whom they concern.

        In the modern era nothing of them is acted on: ids are chosen by clients, one could cancel another's call.
        """
        if isinstance(message, jsonrpc.Notification):
            path.event.method = message.method[:64]
        elif path.era == "modern":
            raise InvalidRequest("Responses are not posted in this protocol version.")
        if path.era == "legacy":
            await self._session(path, principal)
            session_id = path.inbound.headers["mcp-session-id"]
            if isinstance(message, jsonrpc.Response):
                self._policy.conversations.deliver(session_id, message.body)
            elif isinstance(message, jsonrpc.Notification) and message.method == "notifications/cancelled":
                self._policy.conversations.cancel(session_id, message.params.get("requestId"))
        path.event.outcome = "ok"
        return Answer(202)

    def _initialize(self, path: _Path, principal: Principal, message: jsonrpc.Request) -> Answer:
        revision, capabilities, client_info = lifecycle.negotiate(message)
        path.event.revision = revision
        session_id = self._sealer.seal(principal, revision, capabilities, client_info)
        path.event.outcome = "ok"
        offered = path.rules.catalog.capabilities(path.inbound.toolset)
        members = lifecycle.initialize_result(revision, offered, self._policy.server_info)
        body = answers.result(message.id, "legacy", members, self._policy.server_info)
        return Answer(200, body, (("mcp-session-id", session_id),))

    async def _batch(
        self, path: _Path, principal: Principal, values: list[Any], body: bytes, channel: Channel
    ) -> Answer:
        """Split, run one after another, join: mandatory at 2025-03-26 and nowhere else (``basic/index`` there)."""
        session = await self._session(path, principal) if "mcp-session-id" in path.inbound.headers else None
        if session is None or session.revision != revisions.BATCH_REVISION:
            raise InvalidRequest("The body must be one JSON-RPC message, not an array.", rule="protocol.batch")
        if not 1 <= len(values) <= MAX_BATCH:
            raise InvalidRequest(f"A batch has 1 to {MAX_BATCH} messages.", rule="protocol.batch")
        path.event.method = "batch"  # stays on record where a client leaves before the last part
        parts: list[bytes] = []
        for index, (value, raw) in enumerate(zip(values, _SPLIT.decode(body), strict=True)):
            part = await channel.part(self._part(path, principal, value, bytes(raw), channel, index))
            if part is not None and part.body:
                parts.append(part.body)
        path.in_parts = True
        return Answer(200, b"[" + b",".join(parts) + b"]") if parts else Answer(202)

    async def _part(
        self, outer: _Path, principal: Principal, value: Any, body: bytes, channel: Channel, index: int
    ) -> Answer:
        path = self._open(outer.inbound, suffix=f".{index}")
        path.event.principal = principal

        async def serve() -> Answer:
            path.id = jsonrpc.id_of(value)
            if isinstance(value, dict) and value.get("method") == "initialize":
                raise InvalidRequest("initialize must not be part of a batch.", rule="protocol.batch")
            return await self._message(path, principal, value, body, channel)

        return await self._framed(path, serve())
