"""Fakes that implement the ports, and a gateway's core made of them: no sockets, no files, no clocks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from typing import Any

import msgspec

from gateway import catalog
from gateway.audit import AuditEvent
from gateway.definitions.lock import Lock
from gateway.errors import INVALID_PARAMS, AuditUnavailable, ClientSilent, InvalidRequest, Refusal, Unauthenticated
from gateway.exchange import Policy, Rules
from gateway.models import BackendReply, BackendRequest, Call, Entry, Limit, LimitState, Listing, Principal, ToolPolicy
from gateway.models import ClientRequest as Request
from gateway.pipeline import Pipeline
from gateway.policy.authorize import authorize
from gateway.policy.failed_authentications import FailedAuthentications
from gateway.policy.rate_limit import RateLimit
from gateway.policy.validate import Validate
from gateway.ports import NO_TRACING, Check, Conversations, Notify, SessionState, T, Take, Tracer, Verdict
from gateway.protocol import lifecycle, revisions
from gateway.protocol.answers import Answer
from gateway.protocol.inbound import Inbound
from gateway.protocol.request_state import RequestStates
from gateway.protocol.session import SessionSealer
from gateway.routes import Routes, parse
from gateway.seen import SeenUris

KEY = b"k" * 32
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
ISSUER = "https://idp.example.com"
SERVER_INFO = lifecycle.server_info("1.2.3")
HIDDEN_HOST = "backend.internal.example"

AUTH = f"""
auth:
  resource: https://mcp.example.com/mcp
  issuers: [{{issuer: "{ISSUER}", jwks_uri: "{ISSUER}/jwks"}}]
"""

ROUTES = f"""
routes:
  - name: deploy
    backend: {{url: "http://{HIDDEN_HOST}:9000/mcp", url_elicitation: true}}
    scopes: [deploy:read]
    tools:
      rollback: {{scopes: [deploy:write, deploy:admin]}}
      "debug_*": {{hidden: true}}
  - name: logs
    backend: {{url: "http://{HIDDEN_HOST}:9001/mcp"}}
    scopes: []
  - name: dark
    backend: {{url: "http://{HIDDEN_HOST}:9002/mcp"}}
toolsets:
  oncall: {{routes: [deploy, logs], tools: [deploy__status, "logs__*"]}}
  plain: {{routes: [logs], names: plain}}
"""
"""One route with scopes, a public one, and one that nothing is said of."""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeAudit:
    """``ports.AuditLog`` that keeps what it was given, as it was then.

    ``order`` has every step of audit and backends in order. With ``broken`` no intent can be recorded; ``gate``, where
    set, has to open first.
    """

    def __init__(self) -> None:
        self.intents: list[AuditEvent] = []
        self.ends: list[AuditEvent] = []
        self.order: list[str] = []
        self.broken = False
        self.gate: asyncio.Event | None = None

    async def intend(self, event: AuditEvent) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise AuditUnavailable("This call cannot be recorded.", retry_after=1, rule="audit")
        self.order.append("intent")
        event.intended = True
        self.intents.append(copy(event))

    def append(self, event: AuditEvent) -> None:
        self.order.append("end")
        self.ends.append(copy(event))

    @property
    def only(self) -> AuditEvent:
        """The one record there is beside intents."""
        (event,) = self.ends
        return event


class FakeBackend:
    """``ports.Backend`` that says what it is told to.

    Each of ``answers`` answers one request, the last of them all that follow: a result, a ``BackendReply``, an
    exception to raise, or a function of the request. ``hold`` keeps a request until it is set. ``notes`` are sent
    before the answer.
    """

    def __init__(self, *answers: Any, audit: FakeAudit | None = None) -> None:
        self.up = True
        self.keeps_state = False
        self.answers: list[Any] = list(answers) or [{"content": [], "isError": False}]
        self.requests: list[BackendRequest] = []
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.hold: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.cancelled = False
        self._audit = audit

    async def until_reached(self) -> None:
        """Returns when a request has arrived; fails where none does."""
        async with asyncio.timeout(5):
            await self.reached.wait()

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        if self._audit is not None:
            self._audit.order.append("backend")
        self.requests.append(request)
        self.reached.set()
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        for method, params in self.notes:
            notify(method, params)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return _reply(answer(request) if callable(answer) else answer)


class FakeChannel:
    """``ports.Channel`` of a client that answers with ``replies``, by method; without one it is silent."""

    def __init__(self, *, can_ask: bool = True, **replies: Mapping[str, Any]) -> None:
        self.can_ask = can_ask
        self.replies = {name.replace("_", "/", 1): reply for name, reply in replies.items()}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.notes: list[tuple[str, Mapping[str, Any]]] = []
        self.begun: list[tuple[str, str | int, bool]] = []
        self.left = 0

    def begin(self, session_id: str, request_id: str | int, whose: Principal, *, resumable: bool = False) -> None:
        self.begun.append((session_id, request_id, resumable))

    async def part(self, work: Coroutine[Any, Any, T]) -> T | None:
        return await work

    def dispatched(self) -> None:
        self.left += 1

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        self.notes.append((method, params))

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        self.asked.append((method, params))
        if not self.can_ask or method not in self.replies:
            raise ClientSilent("The client refused to answer a question of the backend.")
        return self.replies[method]


class FakeMeter:
    """``ports.Meter`` that keeps what it was told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, str, str]] = []
        self.verdicts: list[Verdict] = []

    def request(self, method: str, route: str, tool: str, outcome: str, era: str, seconds: float) -> None:
        self.requests.append((method, route, tool, outcome, era))

    def backend(self, route: str, seconds: float) -> None: ...

    def limits(self, takes: Sequence[Take], verdict: Verdict) -> None:
        self.verdicts.append(verdict)


class FakeLimits:
    """``ports.LimitStore`` that allows, or refuses by the first limit with ``wait`` seconds.

    ``running`` counts what was allowed and not given back. Limits without ``enforce`` would have refused. Of each one
    unit is left.
    """

    def __init__(self) -> None:
        self.wait: float | None = None
        self.taken: list[Sequence[Take]] = []
        self.running = 0

    async def take(self, takes: Sequence[Take]) -> Verdict:
        self.taken.append(takes)
        states = tuple(LimitState(take.limit, 1, 30.0) for take in takes)
        if self.wait is not None:
            return Verdict(takes[0].limit, self.wait, lambda: states)
        self.running += 1
        watching = tuple(take.limit for take in takes if not take.limit.enforce)
        return Verdict(None, 0.0, lambda: states, watching=watching, release=self._release)

    def _release(self) -> None:
        self.running -= 1


class FakeSessions:
    """``ports.Sessions`` in memory."""

    def __init__(self) -> None:
        self.over: set[str] = set()
        self.levels: dict[str, str] = {}

    async def end(self, session_id: str, seconds: float) -> None:
        self.over.add(session_id)

    async def ended(self, session_id: str) -> bool:
        return session_id in self.over

    async def set_log_level(self, session_id: str, level: str, seconds: float) -> None:
        self.levels[session_id] = level

    async def state(self, session_id: str) -> SessionState:
        return SessionState(session_id in self.over, self.levels.get(session_id))


class FakeConversations:
    """``ports.Conversations`` that keeps what clients posted."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, Mapping[str, Any]]] = []
        self.cancelled: list[tuple[str, Any]] = []

    def deliver(self, session_id: str, response: Mapping[str, Any]) -> None:
        self.delivered.append((session_id, response))

    def cancel(self, session_id: str, request_id: Any) -> None:
        self.cancelled.append((session_id, request_id))


class FakeElsewhere:
    """``ports.Elsewhere``: one other process, that answers a parked call with ``reply``."""

    here = "here"

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.resumed: list[tuple[str, str, BackendRequest]] = []
        self.reply: Any = {"content": []}

    def subscribed(self, session_id: str, uri: str, principal: Principal, toolset: str | None) -> None:
        self.told.append(("subscribed", session_id, uri, principal.subject))

    def unsubscribed(self, session_id: str, uri: str) -> None:
        self.told.append(("unsubscribed", session_id, uri))

    def ended(self, session_id: str) -> None:
        self.told.append(("ended", session_id))

    def named(self, principal: Principal, route: str, uris: Sequence[str]) -> None:
        self.told.append(("named", principal.subject, route, *uris))

    async def resume(self, holder: str, route: str, request: BackendRequest, notify: Notify) -> BackendReply:
        self.resumed.append((holder, route, request))
        notify("notifications/progress", {"progress": 1})
        return _reply(self.reply)


class FakeHub:
    """``ports.Hub`` that keeps what it was told, and opens streams that are no more than a name, or is ``full``."""

    def __init__(self) -> None:
        self.full: Refusal | None = None
        self.told: list[tuple[str, Any, float]] = []
        self.watchers: list[tuple[Callable[[str], str | None] | None, Callable[[str], bool]]] = []
        self.whose: list[Principal] = []

    def asked(self, params: Mapping[str, Any]) -> Any:
        if not isinstance(params.get("notifications"), dict):
            raise InvalidRequest("The request needs params.notifications.", code=INVALID_PARAMS, status=200)
        return params["notifications"]

    def listen(
        self, request_id: str | int, asked: Any, *, principal: Principal, route_of: Any, sees: Any, seconds: float
    ) -> Any:
        self._admit(principal)
        self.told.append(("listen", (request_id, asked), seconds))
        self.watchers.append((route_of, sees))
        return nullcontext("listen")

    def follow(self, session_id: str, *, principal: Principal, sees: Any, seconds: float) -> Any:
        self._admit(principal)
        self.told.append(("follow", session_id, seconds))
        self.watchers.append((None, sees))
        return nullcontext("follow")

    def subscribe(
        self, session_id: str, uri: str, *, principal: Principal, route_of: Any, sees: Any, seconds: float
    ) -> None:
        self._admit(principal)
        self.told.append(("subscribe", (session_id, uri), seconds))
        self.watchers.append((route_of, sees))

    def unsubscribe(self, session_id: str, uri: str) -> None:
        self.told.append(("unsubscribe", (session_id, uri), 0.0))

    def _admit(self, principal: Principal) -> None:
        if self.full is not None:
            raise self.full
        self.whose.append(principal)

    def end_session(self, session_id: str) -> None:
        self.told.append(("end", session_id, 0.0))


class Core:
    """A pipeline over fakes. ``backends`` answer for the routes; ``who`` maps bearer tokens to principals."""

    def __init__(
        self,
        listings: Iterable[Listing] | None = None,
        *,
        text: str = AUTH + ROUTES,
        checks: tuple[Check, ...] | None = None,
        tracer: Tracer = NO_TRACING,
        failures_per_minute: int = 0,
        conversations: Conversations | None = None,
    ) -> None:
        self.routes = routes(text)
        self.listings = {listing.route: listing for listing in (LISTINGS if listings is None else listings)}
        self.lock: Lock | None = None
        self.audit = FakeAudit()
        self.backends = {route.name: FakeBackend(audit=self.audit) for route in self.routes.routes}
        self.limits, self.meter, self.clock = FakeLimits(), FakeMeter(), Clock()
        self.sessions, self.conversations, self.seen = FakeSessions(), FakeConversations(), SeenUris()
        self.hub, self.elsewhere = FakeHub(), FakeElsewhere()
        self.pauses: list[float] = []
        self.states = RequestStates((KEY,), self.clock)
        self.who: dict[str, Principal] = dict(PEOPLE)
        self.failures: list[tuple[str, Exception]] = []
        self.remembered: list[Sequence[bytes]] = []
        self.sealer = SessionSealer((KEY,), self.clock)
        policy = Policy(
            checks=checks or (authorize, RateLimit(self.limits, self.meter), Validate()),
            audit=self.audit,
            server_info=SERVER_INFO,
            states=self.states,
            sessions=self.sessions,
            conversations=conversations or self.conversations,
            hub=self.hub,
            elsewhere=self.elsewhere,
            tracer=tracer,
            seen=self.seen,
            failures=FailedAuthentications(failures_per_minute, self.clock),
            present=lambda: self.present,
            now=self.clock,
            pause=self._pause,
        )
        self.present = self.rules()
        self.pipeline = Pipeline(
            policy,
            sealer=self.sealer,
            meter=self.meter,
            failed=lambda request_id, error: self.failures.append((request_id, error)),
        )

    def rules(self) -> Rules:
        return Rules(
            authenticate=self._authenticate,
            routes=self.routes,
            catalog=catalog.build(self.routes, self.listings, self.lock),
            backends=dict(self.backends),
            scopes={None: frozenset({"deploy:read"}), **{name: frozenset() for name in self.routes.toolsets}},
            by_name={route.name: route for route in self.routes.routes},
            opening_urls=self.routes.opening_urls(),
            remembers=lambda headers: headers in self.remembered,
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def reload(self) -> None:
        """Make what routes, listings and backends are now the present rules."""
        self.present = self.rules()

    @property
    def requests(self) -> list[BackendRequest]:
        """Everything that left for any backend."""
        return [request for backend in self.backends.values() for request in backend.requests]

    async def modern(self, method: str, **options: Any) -> Answer:
        """Post a modern request; see ``modern``."""
        channel = options.pop("channel", None) or FakeChannel()
        return await self.pipeline.post(modern(method, **options), channel)

    async def legacy(self, method: str, *, revision: str = LEGACY, token: str = "ada", **options: Any) -> Answer:
        """Post a request in a session of this revision and these ``capabilities``."""
        session = options.pop("session", None) or self.session(token, revision, options.pop("capabilities", {}))
        options.pop("capabilities", None)
        channel = options.pop("channel", None) or FakeChannel()
        return await self.pipeline.post(legacy(method, session=session, token=token, **options), channel)

    def session(self, token: str = "ada", revision: str = LEGACY, capabilities: Mapping[str, Any] | None = None) -> str:
        """The id of a session of whom the token speaks for."""
        return self.sealer.seal(self.who[token], revision, capabilities or {}, {"name": "c", "version": "1"})

    async def _authenticate(self, headers: Sequence[bytes]) -> Principal:
        if not headers:
            raise Unauthenticated("Send a token.", token_presented=False)
        principal = self.who.get(headers[0].decode("latin-1").removeprefix("Bearer "))
        if principal is None:
            raise Unauthenticated("The token is not accepted.", token_presented=True, reason="unknown")
        return principal


def routes(text: str) -> Routes:
    """Routes from the YAML text of a file."""
    return parse(text, source="routes.yaml", environ={})


def person(name: str, *scopes: str) -> Principal:
    """Whom a token speaks for."""
    return Principal(ISSUER, name, "cli", frozenset(scopes))


PEOPLE = {
    "ada": person("ada", "deploy:read", "deploy:write", "deploy:admin"),
    "bob": person("bob", "deploy:read"),
    "eve": person("eve"),
}


def tool(name: str, schema: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A definition as a backend sends it."""
    return {"name": name, "inputSchema": schema or {"type": "object"}, **more}


CAPABILITIES = {"tools": {}, "prompts": {}, "resources": {"subscribe": True}, "completions": {}, "logging": {}}


def listing(route: str, *tools: Mapping[str, Any], **more: Any) -> Listing:
    """What a backend offers."""
    return Listing(route, tools, 0.0, more.pop("capabilities", CAPABILITIES), **more)


LISTINGS = (
    listing(
        "deploy",
        tool("status"),
        tool(
            "rollback",
            {
                "type": "object",
                "properties": {"service": {"type": "string"}, "steps": {"type": "integer"}},
                "required": ["service"],
            },
        ),
        tool("debug_dump"),
        prompts=({"name": "plan"},),
        resources=({"uri": "deploy://state", "name": "state"},),
        templates=({"uriTemplate": "deploy://service/{name}", "name": "service"},),
    ),
    listing("logs", tool("search"), prompts=({"name": "plan"},), resources=({"uri": "logs://today", "name": "today"},)),
    listing("dark", tool("matter"), prompts=({"name": "plan"},), resources=({"uri": "dark://one", "name": "one"},)),
)


def entry(
    name: str = "deploy__rollback",
    backend_name: str = "rollback",
    *,
    scopes: Iterable[str] | None = (),
    limits: tuple[Limit, ...] = (),
    schema: Any = None,
    **more: Any,
) -> Entry:
    """An entry of the catalogue."""
    wanted = None if scopes is None else frozenset(scopes)
    policy = ToolPolicy(wanted, "routes.deploy.scopes", limits)
    text = json.dumps(schema if schema is not None else {"type": "object"}).encode()
    return Entry(name, backend_name, more.pop("route", "deploy"), {}, b"{}", text, policy, **more)


def request(method: str = "tools/call", **more: Any) -> Request:
    """A client's request in the canonical form."""
    values: dict[str, Any] = {
        "id": 1,
        "method": method,
        "params": {},
        "raw": {},
        "meta": {},
        "era": "modern",
        "revision": MODERN,
        "capabilities": {},
    }
    return Request(**{**values, **more})


def call(arguments: Mapping[str, Any] | None = None, **more: Any) -> Call:
    """A call to be decided."""
    who = more.pop("principal", PEOPLE["ada"])
    asked = more.pop("request", request())
    return Call(who, more.pop("entry", entry()), asked, arguments or {}, more.pop("toolset", None))


def envelope(**more: Any) -> dict[str, Any]:
    """The ``_meta`` of a modern request."""
    capabilities = more.pop("capabilities", {})
    return {revisions.PROTOCOL_VERSION: MODERN, revisions.CLIENT_CAPABILITIES: capabilities, **more}


_NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def modern(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    number: Any = 1,
    meta: Mapping[str, Any] | None = None,
    capabilities: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Inbound:
    """A modern POST with the headers that mirror it."""
    params = params or {}
    whole = {**params, "_meta": {**envelope(capabilities=capabilities or {}), **(meta or {})}}
    mirrored = {"mcp-protocol-version": MODERN, "mcp-method": method}
    name = params.get(_NAMES.get(method, ""))
    if isinstance(name, str):
        mirrored["mcp-name"] = name
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": whole}
    return inbound(body, headers={**mirrored, **(headers or {})}, **more)


def legacy(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    session: str | None,
    number: Any = 1,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Inbound:
    """A POST of a legacy client, in a session unless that is None."""
    own = {} if session is None else {"mcp-session-id": session}
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}
    return inbound(body, headers={**own, **(headers or {})}, **more)


def inbound(
    body: Any,
    *,
    headers: Mapping[str, str] | None = None,
    token: str | None = "ada",
    toolset: str | None = None,
    repeated: Iterable[str] = (),
) -> Inbound:
    """What arrived: a body, as bytes or as what becomes JSON."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)

    async def read() -> bytes:
        return raw

    authorization = () if token is None else (f"Bearer {token}".encode(),)
    return Inbound("req-1", "192.0.2.7", toolset, headers or {}, frozenset(repeated), authorization, read)


def said(answer: Answer) -> Any:
    """The JSON-RPC message of an answer."""
    return json.loads(answer.body)


def refusal_of(answer: Answer) -> Any:
    """What a refusal says to the agent, wherever it is said: the text of a tool result, or ``error.data``."""
    message = said(answer)
    if "result" in message:
        assert message["result"]["isError"] is True
        (block,) = message["result"]["content"]
        return json.loads(block["text"])
    return message["error"].get("data")


def outcome_of(core: Core) -> tuple[str, int | None, bool]:
    """Outcome, HTTP status and ``dispatched`` of the one record there is."""
    event = core.audit.only
    return event.outcome, event.http_status, event.dispatched


def refusing(refusal: Refusal) -> Check:
    """A check that refuses so."""

    async def check(_: Call) -> None:
        raise refusal

    return check


def failing(error: Exception) -> Callable[[Call], Awaitable[None]]:
    """A check with a bug."""

    async def check(_: Call) -> None:
        raise error

    return check


def _reply(answer: Any) -> BackendReply:
    if isinstance(answer, BaseException):
        raise answer
    return answer if isinstance(answer, BackendReply) else BackendReply(answer, None, 0.25)
