"""``check`` and ``schema``: what a pull request on routes.yaml is checked with."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.output import NO, UNUSABLE, as_json, fail, out
from gateway.definitions.lock import Drift, Lock
from gateway.definitions.lock_file import lock_path, read_lock
from gateway.errors import ConfigError
from gateway.routes import Auth, Routes, json_schema, load, markdown
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


def _pinned(drift: Drift) -> str:
    kind = "" if drift.kind == "tool" else f"{drift.kind} "
    return f"{kind}{drift.backend_name}: {'quarantined' if drift.withheld else 'not as pinned'}, {drift}"


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
    from gateway import catalog
    from gateway.cli.reaching import listings_of

    listings = await listings_of(routes)
    built = catalog.build(routes, listings, lock)
    findings: dict[str, dict[str, Any]] = {}
    for route in routes.routes:
        listing = listings.get(route.name)
        notes = [f"{item.name}: left out, {item.reason}" for item in built.omitted if item.route == route.name]
        notes += [f"{item.name}: {item.reason}" for item in built.cleaned if item.route == route.name]
        notes += [_pinned(item) for item in built.drifts if item.route == route.name]
        notes += [
            f"{tool.backend_name}: exposed as {tool.name}, shortened to 64 characters"
            for tool in built.entries()
            if tool.route == route.name and tool.name != route.prefix + tool.backend_name
        ]
        detail = f"{len(listing.tools)} tool(s)" if listing else "see the log of the gateway for the reason"
        findings[route.name] = {"ok": listing is not None, "detail": detail, "notes": notes}
    if routes.auth is not None:
        findings |= await _issuers(routes.auth)
    return findings


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
