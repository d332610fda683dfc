"""``lock``: approve the definitions of tools as they are, into a file that is reviewed like code."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.output import NO, UNUSABLE, as_json, fail, out
from gateway.definitions.lock import Lock, Pin, pin, render
from gateway.definitions.lock_file import lock_path, read_lock, write_lock
from gateway.errors import ConfigError
from gateway.models import Listing
from gateway.routes import Routes, load

Pins = Mapping[str, Mapping[str, Pin]]


def lock(
    file: Annotated[Path | None, typer.Argument(help="Routes. Default: GATEWAY_CONFIG or config/routes.yaml.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="ROUTE or ROUTE/TOOL: approve nothing else. May be given several times.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 and show what differs.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Write tools.lock beside the routes file: the tools that the backends list now are the approved ones.

    A backend that cannot be reached keeps its entries; the exit code is 1 then.
    """
    from gateway.cli.reaching import listings_of

    path = file or Path(os.environ.get("GATEWAY_CONFIG", "config/routes.yaml"))
    target = lock_path(path)
    try:
        routes, before = load(path, os.environ), read_lock(target)
    except ConfigError as error:
        fail(str(error), UNUSABLE)
    chosen = _chosen(only or [], routes)
    listings = asyncio.run(listings_of(routes))
    unreached = [route.name for route in routes.routes if route.name not in listings and _concerns(chosen, route.name)]
    after = Lock(_merged(before.pins, _found(routes, listings), chosen, keep=set(unreached)))
    changes = list(_changes(before.pins, after.pins))
    if not check and (changes or before.missing):
        write_lock(target, after)
    if json_output:
        as_json({"file": str(target), "written": not check, "changes": changes, "unreached": unreached})
    else:
        _say(target, before, after, changes, unreached, check=check)
    raise typer.Exit(NO if unreached or (check and changes) else 0)


def _chosen(only: Iterable[str], routes: Routes) -> set[tuple[str, str]]:
    """Pairs of route and tool, the tool empty where all of the route are meant; none where everything is."""
    names = {route.name for route in routes.routes}
    pairs = {(route, tool) for route, _slash, tool in (one.partition("/") for one in only)}
    if unknown := sorted({route for route, _tool in pairs} - names):
        fail(f"there is no route {', '.join(unknown)}; routes are {', '.join(sorted(names))}", UNUSABLE)
    return pairs


def _concerns(chosen: set[tuple[str, str]], route: str, tool: str | None = None) -> bool:
    if not chosen:
        return True
    if tool is None:
        return any(route == name for name, _tool in chosen)
    return (route, "") in chosen or (route, tool) in chosen


def _found(routes: Routes, listings: Mapping[str, Listing]) -> Pins:
    """The tools that are exposed, by the definitions that their backends sent."""
    from gateway import catalog

    exposed = {(entry.route, entry.backend_name) for entry in catalog.build(routes, listings).entries()}
    found: dict[str, dict[str, Pin]] = {}
    for route, listing in listings.items():
        tools = found.setdefault(route, {})
        for definition in listing.tools:
            name = definition.get("name")
            if isinstance(name, str) and (route, name) in exposed and name not in tools:
                tools[name] = pin(definition)
    return found


def _merged(before: Pins, found: Pins, chosen: set[tuple[str, str]], *, keep: set[str]) -> Pins:
    merged: dict[str, dict[str, Pin]] = {}
    for route in {*before, *found}:
        old, new = before.get(route, {}), found.get(route, {})
        tools = {
            tool: one
            for tool in {*old, *new}
            if (one := (new if route not in keep and _concerns(chosen, route, tool) else old).get(tool)) is not None
        }
        if tools:
            merged[route] = tools
    return merged


def _changes(before: Pins, after: Pins) -> Iterable[dict[str, str]]:
    for route in sorted({*before, *after}):
        old, new = before.get(route, {}), after.get(route, {})
        for tool in sorted({*old, *new}):
            if tool not in old or tool not in new:
                yield {"route": route, "tool": tool, "change": "new" if tool in new else "gone"}
            elif old[tool].sha256 != new[tool].sha256:
                yield {"route": route, "tool": tool, "change": "changed"}


def _say(target: Path, before: Lock, after: Lock, changes: list[Any], unreached: list[str], *, check: bool) -> None:
    lines = difflib.unified_diff(
        [] if before.missing else render(before).splitlines(),
        render(after).splitlines(),
        f"{target} (approved)",
        f"{target} (listed now)",
        lineterm="",
    )
    for line in lines if check or not before.missing else ():
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out.print(Text(line, style), soft_wrap=True)
    for name in unreached:
        out.print(Text(f"{name}: not reached; its entries stay as they were", "yellow"), soft_wrap=True)
    count = sum(map(len, after.pins.values()))
    verdict = f"{len(changes)} difference(s)" if check else f"{count} tool(s) approved, {len(changes)} change(s)"
    out.print(Text(f"{target}: {verdict}."), soft_wrap=True)
