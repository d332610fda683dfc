"""The values that travel through the gateway. Frozen: a policy step can read them, never change them.

What is made for every request is a ``msgspec.Struct``, which costs a tenth of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

Era = Literal["modern", "legacy"]
"""*modern*: 2026-07-28 and later, stateless. *legacy*: ``initialize`` and sessions."""

LimitKey = Literal["principal", "client", "tool", "route", "toolset", "global"]
"""What a limit counts by."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a token speaks for. There is none without a subject.

    ``expires_at`` is in seconds since the epoch; the token is not accepted after it. ``toolsets`` is None for a token
    whose audience is the whole gateway, else the toolsets that its audience names (RFC 8707). ``token`` is the token
    itself, only where a route exchanges it; it is shown and sent to nobody else.
    """

    issuer: str
    subject: str
    client_id: str | None = None
    scopes: frozenset[str] = frozenset()
    expires_at: float = float("inf")
    toolsets: frozenset[str] | None = None
    token: bytes = field(default=b"", repr=False, compare=False)

    def __hash__(self) -> int:
        return hash((self.issuer, self.subject))  # of these there are few; the whole takes long


ANONYMOUS = Principal(issuer="", subject="anonymous")
"""Everybody, where ``routes.yaml`` has no ``auth`` (loopback only)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """``limit`` calls per ``window`` seconds as a steady rate, ``burst`` of them at once, counted by ``per``.

    With ``concurrent`` it is ``limit`` calls at the same time instead. A call counts as ``cost`` of a rate and as one
    of those at the same time. Without ``enforce`` a limit decides and counts, and refuses nobody.
    """

    name: str
    per: tuple[LimitKey, ...]
    limit: int
    window: float
    burst: int
    cost: int = 1
    enforce: bool = True
    concurrent: bool = False

    @property
    def said(self) -> str:
        """What it allows, for people: ``600 per 60s``, or ``5 at once``."""
        if self.concurrent:
            return f"{self.limit} at once"
        window = int(self.window) if self.window == int(self.window) else self.window
        return f"{self.limit} per {window}s"


class LimitState(msgspec.Struct, frozen=True):
    """A limit after a decision: what is left at once, and seconds until ``burst`` is whole again.

    A call takes ``limit.cost`` of what is left. ``reset`` is 0 for a concurrency limit: nobody knows when calls end.
    """

    limit: Limit
    remaining: int
    reset: float


class Grant(msgspec.Struct):
    """What the checks had for a call: the one part of it that changes while they run.

    ``left`` makes the states of its limits after the decision; ``watching`` would have refused if they were enforced.
    ``held`` gives back what the call has until it ends.
    """

    left: Callable[[], tuple[LimitState, ...]] = tuple
    watching: tuple[Limit, ...] = ()
    held: tuple[Callable[[], None], ...] = ()

    def end(self) -> None:
        """The call has ended, however it did: give everything back. Never waits."""
        held, self.held = self.held, ()
        for release in held:
            release()


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """What ``routes.yaml`` says about one tool of a route.

    ``scopes`` is None where no rule names the tool: then it is neither listed nor callable.
    ``rule`` is the YAML path that decided, as audit and refusals quote it.
    ``timeout`` and ``max_timeout`` are in seconds. ``principal_concurrency`` is how many calls of one principal may be
    under way in one process, or None for any number. ``described``: agents are told scopes and limits.
    """

    scopes: frozenset[str] | None
    rule: str
    limits: tuple[Limit, ...] = ()
    timeout: float = 30.0
    max_timeout: float = 300.0
    hidden: bool = False
    principal_concurrency: int | None = None
    described: bool = False


Kind = Literal["tool", "prompt", "resource", "template"]
"""What an entry of the catalogue is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the catalogue: a tool, or a prompt, resource or resource template, which are governed alike.

    ``name`` is public, for a resource its URI, for a template its URI template. ``definition`` is what the backend
    sent, with the public name in it; ``rendered`` is the same as JSON. For tools, ``input_schema`` is the JSON text of
    the ``inputSchema``, the identity under which a validator is kept, and ``param_headers`` maps property paths to
    ``Mcp-Param-*`` names (``x-mcp-header``). ``idempotent``: a repetition does no harm, by an annotation that the
    operator trusts, or because it is a read.
    """

    name: str
    backend_name: str
    route: str
    definition: Mapping[str, Any]
    rendered: bytes
    input_schema: bytes
    policy: ToolPolicy
    param_headers: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    idempotent: bool = False
    kind: Kind = "tool"


class ClientRequest(msgspec.Struct, frozen=True):
    """One JSON-RPC request of a client in the canonical, modern form, whichever era it came in.

    ``params`` is fully decoded; ``raw`` holds the same members as the bytes that were received, to be forwarded.
    ``meta`` is ``params._meta`` and ``crossing`` what of it may reach a backend; ``capabilities`` and ``client_info``
    come from it or from the legacy session.
    """

    id: str | int
    method: str
    params: Mapping[str, Any]
    raw: Mapping[str, Any]
    meta: Mapping[str, Any]
    era: Era
    revision: str
    capabilities: Mapping[str, Any]
    client_info: Mapping[str, Any] | None = None
    crossing: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def progress_token(self) -> str | int | None:
        """The client's own token, or None where it wants no progress."""
        token = self.meta.get("progressToken")
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None


class Call(msgspec.Struct, frozen=True):
    """A request for an entry that is to be decided: who calls what with which arguments."""

    principal: Principal
    entry: Entry
    request: ClientRequest
    arguments: Mapping[str, Any]
    toolset: str | None = None
    param_headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    grant: Grant = msgspec.field(default_factory=Grant)


class BackendRequest(msgspec.Struct, frozen=True):
    """A request as it leaves for a backend: its own names, no credentials, no id (the connection mints one).

    ``params`` has no ``_meta``; its values may be ``msgspec.Raw``: bytes as the client sent them. ``meta`` is what of
    the client's ``_meta`` may cross. ``name`` is mirrored as ``Mcp-Name``, ``headers`` are the ``Mcp-Param-*`` ones.
    ``answers`` and ``state`` are the ``inputResponses`` and the backend's own ``requestState`` of a retry
    (``basic/patterns/mrtr``). ``log_level`` is the least severe log message wanted. ``timeout`` runs without a byte of
    answer or progress, ``max_timeout`` in all; seconds.
    """

    method: str
    params: Mapping[str, Any]
    principal: Principal
    meta: Mapping[str, Any] = msgspec.field(default_factory=dict)
    capabilities: Mapping[str, Any] = msgspec.field(default_factory=dict)
    client_info: Mapping[str, Any] | None = None
    name: str | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    answers: Mapping[str, Any] | None = None
    state: str | None = None
    log_level: str | None = None
    wants_progress: bool = False
    timeout: float = 30.0
    max_timeout: float = 300.0
    idempotent: bool = False


class BackendReply(msgspec.Struct, frozen=True):
    """What a backend answered: exactly one of ``result`` and ``error``.

    Values inside ``result`` may be ``msgspec.Raw``. ``seconds`` is the time the backend took. ``undeclared`` is the
    error -32021 for a question that the backend put in mid-call and that was refused to it, whatever it made of that.
    """

    result: JsonObject | None
    error: JsonObject | None
    seconds: float
    undeclared: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What one backend offers, as of ``fetched_at`` (monotonic seconds). Kept when a refresh fails.

    Each list holds definitions as the backend sent them.
    """

    route: str
    tools: tuple[Mapping[str, Any], ...]
    fetched_at: float
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    server_info: Mapping[str, Any] | None = None
    over_http: bool = True
    prompts: tuple[Mapping[str, Any], ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()
    templates: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Something of a backend changed: one of its lists, or the resource ``uri``."""

    route: str
    kind: Literal["tools", "prompts", "resources", "resource"]
    uri: str = ""
