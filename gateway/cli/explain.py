"""``explain``: who a token is, and for each tool which rule allows or denies it. Decides with what serves requests."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import catalog, explanation
from gateway.catalog import Catalog
from gateway.cli.output import NO, UNUSABLE, as_json, err, fail, out
from gateway.cli.tokens import DemoIssuer
from gateway.definitions.lock import SECTIONS, Lock
from gateway.definitions.lock_file import lock_path, read_lock
from gateway.errors import ConfigError, Refusal, Unauthenticated
from gateway.explanation import Decision
from gateway.models import ANONYMOUS, Entry, JsonObject, Limit, LimitState, Principal
from gateway.ports import Take
from gateway.routes import Auth, Routes, load
from gateway.routes.places import Places
from gateway.routes.units import format_duration

_NOT_ASKED = "no backend was asked what it has, and no counter what is left"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be explained, and from which file."""

    file: Path
    routes: Routes
    places: Places
    lock: Lock
    token: str | None
    claims: JsonObject | None
    tool: str | None
    toolset: str | None
    offline: bool


def explain(
    tool: Annotated[str | None, typer.Argument(help="Public name of a tool or prompt, or a URI. Default: all.")] = None,
    token: Annotated[str | None, typer.Option(help="Access token; - reads it. Default: MCP_GATEWAY_TOKEN.")] = None,
    claims: Annotated[str | None, typer.Option(help="Claims in place of a token: JSON, or a file with it.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Routes file. Default: GATEWAY_CONFIG or config/routes.yaml.")
    ] = None,
    toolset: Annotated[str | None, typer.Option(help="As at /mcp/<toolset>. Default: /mcp.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no backend and no issuer: the rules alone.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say who a token is, which rule allows or denies each tool, prompt and resource, and what is left of its limits.

    Exit 0: the token is accepted, and may use what is named, if anything is. Exit 1: not. Nothing is called or counted.
    """
    asked = _asked(tool, token, claims, config, toolset, offline)
    told = asyncio.run(_explained(asked))
    if json_output:
        as_json(told)
    else:
        _say(told, asked)
    refused = not told["token"]["accepted"] or (tool is not None and not all(it["allowed"] for it in _entries_of(told)))
    raise typer.Exit(NO if refused else 0)


def _asked(
    tool: str | None, token: str | None, claims: str | None, config: Path | None, toolset: str | None, offline: bool
) -> _Asked:
    file = config or Path(os.environ.get("GATEWAY_CONFIG", "config/routes.yaml"))
    try:
        routes, places, lock = load(file, os.environ), Places.of(file), read_lock(lock_path(file))
    except ConfigError as error:
        fail(str(error), UNUSABLE)
    demo = DemoIssuer.load()
    if routes.auth is None and demo is not None:
        routes = demo.within(routes)
    if toolset is not None and toolset not in routes.toolsets:
        fail(f"there is no toolset {toolset}; there are: {', '.join(routes.toolsets) or 'none'}", UNUSABLE)
    if token is not None and claims is not None:
        fail("give --token or --claims, not both", UNUSABLE)
    if claims is None:
        token = sys.stdin.read().strip() if token == "-" else token or os.environ.get("MCP_GATEWAY_TOKEN")  # noqa: S105 - the dash, not a password
        if not token and routes.auth is not None:
            beside = "; mcp-gateway token --scopes … makes one for the demo" if demo is not None else ""
            fail(f"give --token or --claims{beside}", UNUSABLE)
    return _Asked(file, routes, places, lock, token, _claims(claims), tool, toolset, offline)


def _claims(given: str | None) -> JsonObject | None:
    if given is None:
        return None
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
        claims = json.loads(text)
    except (OSError, ValueError) as error:
        fail(f"the claims cannot be read: {error}", UNUSABLE)
    if not isinstance(claims, dict):
        fail("the claims must be a JSON object", UNUSABLE)
    return claims


async def _explained(asked: _Asked) -> dict[str, Any]:
    auth = asked.routes.auth
    header, claims = explanation.look_into(_bytes_of(asked.token))
    claims = asked.claims or claims
    told: dict[str, Any] = {
        "token": {"accepted": False},
        "toolset": asked.toolset,
        "offline": asked.offline,
        **{section: [] for section in SECTIONS.values()},
    }
    try:
        principal = ANONYMOUS if auth is None else await _authenticated(asked, auth, claims)
        if principal.toolsets is not None and asked.toolset not in principal.toolsets:
            told["token"] |= _who(principal, auth)
            raise Unauthenticated(
                f"The token is for {', '.join(f'/mcp/{name}' for name in sorted(principal.toolsets))} alone.",
                token_presented=True,
                reason="wrong_audience",
            )
    except Unauthenticated as refusal:
        detail = explanation.why(refusal, claims, header, auth, time.time()) if auth else ""
        told["token"] |= {"refusal": refusal.rule, "message": refusal.message, "detail": detail}
        return told
    except Refusal as refusal:
        told["token"] |= {"refusal": refusal.outcome, "message": refusal.message, "detail": ""}
        return told
    told["token"] = {"accepted": True, **_who(principal, auth)}
    for decision in await _decisions(asked, principal):
        told[SECTIONS[decision.entry.kind]].append(_told(decision, asked, principal))
    return told


async def _authenticated(asked: _Asked, auth: Auth, claims: JsonObject) -> Principal:
    from gateway.stores.issuers import Issuers

    issuers = Issuers(auth)
    if asked.claims is not None or asked.offline:
        if not claims:
            fail("the token is no JWT: only its issuer can say what it is; leave out --offline", UNUSABLE)
        return issuers.authenticate.of_claims(claims)
    await issuers.start()
    try:
        return await issuers.authenticate([b"Bearer " + _bytes_of(asked.token)])
    finally:
        await issuers.aclose()


def _bytes_of(token: str | None) -> bytes:
    """As they stood on the command line, text or not."""
    return (token or "").encode("utf-8", "surrogateescape")


def _who(principal: Principal, auth: Auth | None) -> dict[str, Any]:
    return {
        "issuer": principal.issuer,
        "subject": principal.subject,
        "client_id": principal.client_id,
        "scopes": sorted(principal.scopes),
        "scopes_implied": sorted(explanation.implied(auth, principal.scopes)) if auth else [],
        "accepted_until": None if principal.expires_at == float("inf") else explanation.moment(principal.expires_at),
        "toolsets": sorted(principal.toolsets) if principal.toolsets is not None else None,
    }


async def _decisions(asked: _Asked, principal: Principal) -> list[Decision]:
    entries, exposed = await _entries(asked)
    async with _counters(asked) as peek:
        return [await explanation.decide(principal, entry, asked.toolset, peek, exposed) for entry in entries]


async def _entries(asked: _Asked) -> tuple[list[Entry], Catalog | None]:
    """What is to be explained, and the catalogue unless ``offline``."""
    routes, toolset, name = asked.routes, asked.toolset, asked.tool
    exposed = None
    if asked.offline:
        found = explanation.rules(routes, toolset)
    else:
        from gateway.cli.reaching import listings_of

        listings = await listings_of(routes)
        for route in routes.routes:
            if route.name not in listings:
                err.print(f"the {route.name} backend was not reached; what it has is judged by name", style="yellow")
        exposed = catalog.build(routes, listings, asked.lock)
        found = [one for kind in SECTIONS for one in explanation.tools(routes, exposed, listings, toolset, kind)]
    if name is None:
        return found, exposed
    of_this_name = [entry for entry in found if entry.name == name] or explanation.named(routes, name, toolset, exposed)
    if not of_this_name:
        fail(_nothing_called(name, asked))
    return of_this_name, exposed


def _nothing_called(name: str, asked: _Asked) -> str:
    prefixes = ", ".join(route.prefix for route in asked.routes.routes)
    told = f"no route has anything called {name}: public names begin with {prefixes}"
    if ":" not in name:
        return told
    return f"{told}; whose a URI is that no rule names " + (
        "is not known offline" if asked.offline else "is known only where a backend lists it or a template of it"
    )


@asynccontextmanager
async def _counters(asked: _Asked) -> AsyncIterator[explanation.Peek]:
    """The counters that replicas share. Those of a gateway without Redis are seen in its own process alone."""
    url = os.environ.get("GATEWAY_REDIS_URL")
    if asked.offline or not url:
        yield _unseen
        return
    from gateway.stores.limits_peek import peek
    from gateway.stores.redis_connection import RedisConnection

    try:
        connection = RedisConnection(url)
    except ValueError as error:
        fail(f"GATEWAY_REDIS_URL: {error}", UNUSABLE)
    await connection.start()
    try:
        yield partial(peek, connection)
    finally:
        await connection.aclose()


async def _unseen(_takes: Sequence[Take]) -> None:
    return None


def _told(decision: Decision, asked: _Asked, principal: Principal) -> dict[str, Any]:
    policy = decision.entry.policy
    states = decision.states or (None,) * len(policy.limits)
    entry = decision.entry
    return {
        entry.kind: entry.backend_name if entry.kind == "resource" else entry.name,
        "route": decision.entry.route,
        "allowed": decision.allowed,
        "reason": decision.reason,
        **_place(policy.rule, asked),
        "scopes_needed": sorted(policy.scopes or ()),
        "scopes_missing": sorted(decision.missing),
        "limits": [_limit(limit, state, asked) for limit, state in zip(policy.limits, states, strict=True)],
        "principal_concurrency": policy.principal_concurrency if principal is not ANONYMOUS else None,
    }


def _place(rule: str, asked: _Asked) -> dict[str, Any]:
    return {"rule": rule, "file": str(asked.file), "line": asked.places.line_of(rule)}


def _limit(limit: Limit, state: LimitState | None, asked: _Asked) -> dict[str, Any]:
    """``remaining`` and ``reset_seconds`` are None where the counters cannot be seen."""
    return {
        **_place(limit.name, asked),
        "per": list(limit.per),
        "limit": limit.limit,
        "window_seconds": limit.window,
        "burst": limit.burst,
        "cost": limit.cost,
        "concurrent": limit.concurrent,
        "enforce": limit.enforce,
        "remaining": state.remaining if state else None,
        "reset_seconds": state.reset if state else None,
    }


# For people


def _say(told: dict[str, Any], asked: _Asked) -> None:
    _say_token(told["token"], asked)
    if asked.tool is not None:
        for entry in _entries_of(told):
            _say_tool(entry)
    elif _entries_of(told):
        _say_tools(_entries_of(told))
    if _entries_of(told) and asked.offline:
        _line(f"By the rules alone; {_NOT_ASKED}.", "yellow")


def _entries_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for section in SECTIONS.values() for entry in told[section]]


def _name(entry: dict[str, Any]) -> str:
    kind = next(kind for kind in SECTIONS if kind in entry)
    return str(entry[kind]) if kind == "tool" else f"{kind} {entry[kind]}"


def _say_token(token: dict[str, Any], asked: _Asked) -> None:
    if not token["accepted"]:
        _line(f"refused: {token['refusal']}. {token['message']}", "red")
        if token["detail"]:
            _line(f"  {token['detail']}")
        return
    if not token["issuer"]:
        _line("There is no auth: everybody is anonymous, on this machine only.", "yellow")
        return
    implied = set(token["scopes_implied"])
    scopes = (f"{scope} (implied)" if scope in implied else scope for scope in token["scopes"])
    _line(f"issuer   {token['issuer']}")
    _line(f"subject  {token['subject']}")
    _line(f"client   {token['client_id'] or 'not named'}")
    _line(f"scopes   {', '.join(scopes) or 'none'}")
    _line(f"until    {token['accepted_until']}")
    if token["toolsets"] is not None:
        _line(f"toolsets {', '.join(token['toolsets'])}: the token is for these alone")
    if asked.offline or asked.claims is not None:
        _line("The signature was not checked.", "yellow")
    _line("")


def _say_tool(tool: dict[str, Any]) -> None:
    verdict = "allowed" if tool["allowed"] else f"denied: {_reason(tool)}"
    _line(f"{_name(tool)}: {verdict}", "green" if tool["allowed"] else "red")
    _line(f"  rule   {_where(tool)}")
    _line(f"  scopes {', '.join(tool['scopes_needed']) or 'none needed'}")
    for limit in tool["limits"]:
        _line(f"  limit  {_where(limit)}")
        _line(f"         {_left(limit)}")
    if tool["principal_concurrency"] is not None:
        _line("  limit  principal_concurrency")
        _line(f"         {tool['principal_concurrency']} calls of one principal at the same time in each process")


def _say_tools(tools: list[dict[str, Any]]) -> None:
    """A line a tool, never cut, so that it can be searched."""
    verdicts = ["allowed" if tool["allowed"] else _reason(tool) for tool in tools]
    first, second = max(len(_name(tool)) for tool in tools), max(map(len, verdicts))
    for tool, verdict in zip(tools, verdicts, strict=True):
        spent = ", ".join(limit["rule"] for limit in tool["limits"] if limit["remaining"] == 0)
        note = f"; used up: {spent}" if spent else ""
        text = f"{_name(tool):<{first}}  {verdict:<{second}}  {_where(tool)}{note}"
        _line(text, "green" if tool["allowed"] else "red")


def _reason(tool: dict[str, Any]) -> str:
    return f"lacks {', '.join(tool['scopes_missing'])}" if tool["scopes_missing"] else str(tool["reason"])


def _where(place: dict[str, Any]) -> str:
    line = f":{place['line']}" if place["line"] is not None else ""
    return f"{place['file']}{line} {place['rule']}"


def _left(limit: dict[str, Any]) -> str:
    rate = f"{limit['limit']} in {format_duration(limit['window_seconds'])}, {limit['burst']} at once"
    said = f"{limit['limit']} at the same time" if limit["concurrent"] else rate
    said += f", per {' and '.join(limit['per'])}"
    said += f", each counts as {limit['cost']}" if limit["cost"] > 1 else ""
    said += "" if limit["enforce"] else ", not enforced"
    if limit["remaining"] is None:
        return f"{said}; what is left is known to the gateway's process alone"
    until = "" if limit["concurrent"] else f", whole again in {limit['reset_seconds']:.1f}s"
    return f"{said}; {limit['remaining']} left{until}"


def _line(text: str, style: str | None = None) -> None:
    """A line without anything that a terminal would obey: claims come from outside."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
