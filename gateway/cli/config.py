"""``check`` and ``schema``: what a pull request on routes.yaml is checked with."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import catalog
from gateway.cli.output import NO, UNUSABLE, as_json, fail, out
from gateway.definitions.lock import SECTIONS, Drift, Lock
from gateway.definitions.lock_file import lock_path, read_lock
from gateway.errors import ConfigError
from gateway.models import Kind, Listing
from gateway.routes import Auth, Route, Routes, json_schema, load, markdown
from gateway.settings import Settings


def check(
    file: Annotated[Path | None, typer.Argument(help="Default: GATEWAY_CONFIG or config/routes.yaml.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Also reach every backend and issuer.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Report everything that is wrong with a routes file, with its lines."""
    path = file or Path(os.environ.get("GATEWAY_CONFIG", "config/routes.yaml"))
    try:
        routes = load(path, os.environ)
        pinned = [route.name for route in routes.routes if route.effective.pins.any]
        lock = read_lock(lock_path(path)) if pinned else None
    except ConfigError as error:
        if json_output:
            as_json({"ok": False, "problems": [_problem(item) for item in error.problems]})
            raise typer.Exit(UNUSABLE) from None
        fail(str(error), UNUSABLE)
    findings = asyncio.run(_reach(routes, lock)) if online else {}
    ok = all(finding.get("ok", True) for finding in findings.values())
    if json_output:
        as_json({"ok": ok, "routes": [route.name for route in routes.routes], "online": findings})
    else:
        _say(path, routes, findings)
        if lock is not None and lock.missing:
            said = f"{lock_path(path)} is missing: nothing of {', '.join(pinned)} is approved; run mcp-gateway lock"
            out.print(said, style="yellow", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if ok else NO)


def schema(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The reference instead.")] = False,
) -> None:
    """Print the JSON Schema of routes.yaml, for editors."""
    typer.echo(markdown(Settings) if as_markdown else json.dumps(json_schema(), indent=2))


def _problem(problem: Any) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in ("file", "line", "path", "message", "hint")}


def _called(kind: Kind, name: str) -> str:
    """A tool by its name alone, because most are; everything else with its kind."""
    return name if kind == "tool" else f"{kind} {name}"


def _pinned(drift: Drift) -> str:
    said = "quarantined" if drift.withheld else "not as pinned"
    return f"{_called(drift.kind, drift.backend_name)}: {said}, {drift}"


def _say(path: Path, routes: Routes, findings: dict[str, dict[str, Any]]) -> None:
    auth = "no auth: loopback only" if routes.auth is None else f"{len(routes.auth.issuers)} issuer(s)"
    out.print(
        f"{path}: good. {len(routes.routes)} route(s), {len(routes.toolsets)} toolset(s), {auth}.", soft_wrap=True
    )
    for name, finding in findings.items():
        mark = "[green]reached[/]" if finding["ok"] else "[red]not reached[/]"
        out.print(f"  {name}: {mark} {finding['detail']}", highlight=False, soft_wrap=True)
        for note in finding.get("notes", ()):
            out.print(f"    {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


async def _reach(routes: Routes, lock: Lock | None) -> dict[str, dict[str, Any]]:
    """Try every backend and issuer once."""
    from gateway.cli.reaching import listings_of

    listings = await listings_of(routes)
    built = catalog.build(routes, listings, lock)
    findings = {route.name: _finding(route, listings.get(route.name), built) for route in routes.routes}
    if routes.auth is not None:
        findings |= await _issuers(routes.auth)
    return findings


def _finding(route: Route, listing: Listing | None, built: catalog.Catalog) -> dict[str, Any]:
    """What a backend lists, and what of it is not exposed as it was sent."""
    counts = {section: len(getattr(listing, section)) for section in SECTIONS.values()} if listing else {}
    told = [f"{count} {section.removesuffix('s')}(s)" for section, count in counts.items() if count]
    notes = [f"{_called(it.kind, it.name)}: left out, {it.reason}" for it in built.omitted if it.route == route.name]
    notes += [f"{_called(it.kind, it.name)}: {it.reason}" for it in built.cleaned if it.route == route.name]
    notes += [_pinned(it) for it in built.drifts if it.route == route.name]
    notes += [
        f"{_called(entry.kind, entry.backend_name)}: exposed as {entry.name}, shortened to 64 characters"
        for kind in ("tool", "prompt")
        for entry in built.entries(None, kind)
        if entry.route == route.name and entry.name != route.prefix + entry.backend_name
    ]
    notes += _idle_rules(route, listing) if listing else []
    detail = ", ".join(told) or "nothing is listed"
    return {
        "ok": listing is not None,
        "detail": detail if listing else "standard error says why",
        **counts,
        "notes": notes,
    }


def _idle_rules(route: Route, listing: Listing) -> list[str]:
    """Exact names that nothing listed has: after a typing error, what is meant falls to the route's own scopes."""
    offered: dict[Kind, Any] = {"tool": listing.tools, "prompt": listing.prompts}
    return [
        f"{_called(kind, name)}: has a rule and is not listed; is the name right?"
        for kind, definitions in offered.items()
        for name in route.rules_for(kind)
        if not {"*", "?"} & set(name) and name not in {one.get("name") for one in definitions}
    ]


async def _issuers(auth: Auth) -> dict[str, dict[str, Any]]:
    """Whether each issuer's keys are to be had, and whether the one that is asked about tokens answers."""
    from gateway.errors import IssuerUnavailable
    from gateway.stores.issuers import Issuers

    issuers = Issuers(auth)
    await issuers.start()
    findings: dict[str, dict[str, Any]] = {}
    for issuer in auth.issuers:
        good = issuer.issuer not in issuers.keys.without_keys
        findings[issuer.issuer] = {"ok": good, "detail": "keys at hand" if good else "no usable keys"}
        if issuer.introspection is not None and issuers.introspector is not None:
            try:
                await issuers.introspector(b"mcp-gateway-check")
                told = {"ok": good, "detail": "introspection answers"}
            except IssuerUnavailable:
                told = {"ok": False, "detail": "introspection does not answer; the log says why"}
            findings[issuer.issuer] = told
    await issuers.aclose()
    return findings
