"""Why a principal may, or may not, use a tool: the decisions of the policy in words, for operators.

The predicate, the check and the counters are those of the path of a call; nothing here decides anything by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from gateway import tokens
from gateway.catalog import Catalog
from gateway.definitions.lock import NAMED_BY, SECTIONS
from gateway.errors import InsufficientScope, Refusal, Unauthenticated
from gateway.models import Call, ClientRequest, Entry, JsonObject, Kind, LimitState, Listing, Principal
from gateway.policy.authorize import authorize
from gateway.policy.rate_limit import key_of
from gateway.ports import Take
from gateway.protocol.naming import is_valid, public_name
from gateway.routes import Auth, Route, Routes

Peek = Callable[[Sequence[Take]], Awaitable[tuple[LimitState, ...] | None]]
"""What is left of limits, without taking anything; None where that cannot be seen."""

_RULED: tuple[Kind, ...] = ("tool", "prompt", "resource")
"""The kinds that have rules of their own."""

_WILD = frozenset("*?[")
_REQUEST = ClientRequest(0, "tools/call", {}, {}, {}, "modern", "", {})


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says about one tool. ``states`` is None where the counters cannot be seen."""

    entry: Entry
    allowed: bool
    reason: str
    missing: frozenset[str]
    states: tuple[LimitState, ...] | None


async def decide(
    principal: Principal, entry: Entry, toolset: str | None, peek: Peek, catalog: Catalog | None = None
) -> Decision:
    """Ask the checks about one tool, as a call would, and the ``catalog``, where there is one, about its pins."""
    call = Call(principal, entry, _REQUEST, {}, toolset)
    reason, missing = "", frozenset[str]()
    try:
        authorize(call)
    except InsufficientScope as refusal:
        missing, reason = refusal.needed - principal.scopes, refusal.outcome
    except Refusal:
        reason = "hidden" if entry.policy.hidden else "no rule gives it scopes"
    if not reason and catalog is not None:
        reason = _absence(catalog, toolset, entry)
    states = await peek([Take(limit, key_of(limit, call)) for limit in entry.policy.limits])
    return Decision(entry, not reason, reason, missing, states)


def _absence(catalog: Catalog, toolset: str | None, entry: Entry) -> str:
    """Why the catalogue does not expose it, whoever asks."""
    if entry.kind == "resource":
        uri = entry.backend_name
        held, known = catalog.withheld_owner(toolset, uri), catalog.owner(toolset, uri)
    else:
        held = catalog.quarantined(toolset, entry.name, entry.kind)
        known = catalog.find(toolset, entry.name, entry.kind)
    if held is not None:
        return "quarantined: see mcp-gateway lock"
    if known is None and catalog.reaches(toolset, entry.route):
        return "not offered by its backend, or left out: see mcp-gateway check --online"
    return ""


def tools(
    routes: Routes, catalog: Catalog, listings: Mapping[str, Listing], toolset: str | None, kind: Kind = "tool"
) -> list[Entry]:
    """Everything of a kind that a toolset exposes, then what its backends offer and the rules hold back."""
    exposed = list(catalog.entries(toolset, kind))
    offered = (
        _entry(route, str(definition.get(NAMED_BY[kind])), _prefix(routes, route, toolset), kind)
        for route in _routes(routes, toolset)
        for definition in (getattr(listings[route.name], SECTIONS[kind]) if route.name in listings else ())
    )
    return exposed + [entry for entry in offered if _is_held_back(catalog, toolset, entry)]


def _is_held_back(catalog: Catalog, toolset: str | None, entry: Entry) -> bool:
    policy = entry.policy
    return policy.hidden or policy.scopes is None or catalog.quarantined(toolset, entry.name, entry.kind) is not None


def rules(routes: Routes, toolset: str | None) -> list[Entry]:
    """The rules themselves, by the names and patterns that stand in the file; ``*`` is everything else of a route.

    Every route has tools; prompts and resources are told of where it has rules for them. Those for resources are for
    templates too. A rule for one tool that the toolset leaves out is left out.
    """
    found: list[Entry] = []
    for kind in _RULED:
        for route in _routes(routes, toolset):
            if kind == "tool" or route.rules_for(kind):
                prefix = _prefix(routes, route, toolset)
                keys = dict.fromkeys((*route.rules_for(kind), "*"))
                entries = [_entry(route, key, prefix, kind) for key in keys]
                found += [entry for entry in entries if _may_be_selected(routes, toolset, route, entry, prefix)]
    return found


def named(routes: Routes, name: str, toolset: str | None, catalog: Catalog | None = None) -> list[Entry]:
    """What is meant by a public name or URI that nobody lists, by the rules alone.

    A tool; a prompt where a rule names it; a resource of the route that the ``catalog`` has for the URI, or else of
    each whose rules name it.
    """
    found = [one for one in (tool(routes, name, toolset), _prompt(routes, name, toolset)) if one is not None]
    return found + _resources(routes, name, toolset, catalog) if ":" in name else found


def _prompt(routes: Routes, name: str, toolset: str | None) -> Entry | None:
    for route in _routes(routes, toolset):
        prefix = _prefix(routes, route, toolset)
        own = name.removeprefix(prefix)
        if name.startswith(prefix) and is_valid(own) and route.names(own, "prompt"):
            return _entry(route, own, prefix, "prompt")
    return None


def _resources(routes: Routes, uri: str, toolset: str | None, catalog: Catalog | None) -> list[Entry]:
    """Under the name that reading it counts under: of a template, where one stands for the URI."""
    owner = None
    if catalog is not None:
        owner = catalog.withheld_owner(toolset, uri) or catalog.owner(toolset, uri)
    return [
        replace(_entry(route, uri, "", "resource"), name=uri if owner is None else owner.name)
        for route in _routes(routes, toolset)
        if (route.names(uri, "resource") if owner is None else route.name == owner.route)
    ]


def tool(routes: Routes, name: str, toolset: str | None) -> Entry | None:
    """The tool of this public name by the rules alone, whether its backend has it or not."""
    for route in _routes(routes, toolset):
        prefix = _prefix(routes, route, toolset)
        own = name.removeprefix(prefix)
        if name.startswith(prefix) and is_valid(own) and _selected(routes, toolset, route, name, prefix):
            return _entry(route, own, prefix)
    return None


def implied(auth: Auth, scopes: frozenset[str]) -> frozenset[str]:
    """Those of these scopes that others of them include."""
    return frozenset(
        scope for scope in scopes for other in scopes - {scope} if scope in auth.expand(frozenset({other}))
    )


def why(refusal: Unauthenticated, claims: JsonObject, header: JsonObject, auth: Auth, now: float) -> str:
    """What the operator needs to know beyond the refusal's message: the value that was there and what is accepted.

    ``claims`` and ``header`` are those of the token, or empty; ``now`` is in seconds since the epoch.
    """
    issuer = next((one for one in auth.issuers if one.issuer == claims.get("iss")), None)
    if refusal.reason == "unknown_issuer":
        return f"iss is {claims.get('iss')!a}; configured: {_listed(one.issuer for one in auth.issuers)}"
    if refusal.reason == "wrong_audience" and issuer:
        accepted = f"{_listed(issuer.audience)}, or {auth.resource}/<toolset>"
        return f"aud is {claims.get('aud')!a}; accepted: {accepted}"
    if refusal.reason == "algorithm" and issuer:
        return f"alg is {header.get('alg')!a}; accepted: {_listed(issuer.algorithms)}"
    if refusal.reason == "unknown_key":
        return f"kid is {header.get('kid')!a}, alg {header.get('alg')!a}; no such key of {claims.get('iss')!a} is known"
    if refusal.reason in ("expired", "not_yet_valid"):
        times = (f"{name} {moment(claims[name])}" for name in ("iat", "nbf", "exp") if name in claims)
        return f"{', '.join(times)}; now {moment(now)}; leeway {auth.leeway:g}s"
    if refusal.reason in ("missing_claim", "invalid_claim"):
        return f"claims: {_listed(claims)}"
    if refusal.reason == "token_type":
        return f"typ is {header.get('typ')!a}; claims: {_listed(claims)}"
    return ""


def look_into(token: bytes) -> tuple[JsonObject, JsonObject]:
    """Header and claims of a JWT, not to be believed; both empty where it is none."""
    try:
        apart = tokens.take_apart(token)
    except Unauthenticated:
        return {}, {}
    return apart.header, apart.claims


def moment(value: object) -> str:
    """A NumericDate as people read it; what is none, as it stands."""
    try:
        return datetime.fromtimestamp(float(value), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return ascii(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(ascii(name)[1:-1] for name in names)


def _entry(route: Route, name: str, prefix: str, kind: Kind = "tool") -> Entry:
    public = public_name(prefix, name) if kind in ("tool", "prompt") else name
    return Entry(public, name, route.name, {}, b"", b"", route.policy_for(name, kind), kind=kind)


def _routes(routes: Routes, toolset: str | None) -> list[Route]:
    chosen = routes.toolsets[toolset].routes if toolset is not None else None
    return [route for route in routes.routes if chosen is None or route.name in chosen]


def _prefix(routes: Routes, route: Route, toolset: str | None) -> str:
    return "" if toolset is not None and routes.toolsets[toolset].names == "plain" else route.prefix


def _selected(routes: Routes, toolset: str | None, route: Route, name: str, prefix: str) -> bool:
    full = name if prefix else route.prefix + name
    return toolset is None or any(fnmatchcase(full, pattern) for pattern in routes.toolsets[toolset].tools)


def _may_be_selected(routes: Routes, toolset: str | None, route: Route, entry: Entry, prefix: str) -> bool:
    """What a pattern stands for may be; only tools are selected by their names."""
    one_tool = entry.kind == "tool" and _WILD.isdisjoint(entry.backend_name)
    return not one_tool or _selected(routes, toolset, route, entry.name, prefix)
