"""``lock``: approve definitions as they are, into a file that is reviewed like code."""

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
from gateway.definitions.lock import NAMED_BY, SECTIONS, Lock, Pin, Pins, pin, render
from gateway.definitions.lock_file import lock_path, read_lock, write_lock
from gateway.errors import ConfigError
from gateway.models import Kind, Listing
from gateway.routes import Routes, load

_Key = tuple[Kind, str]
_Flat = Mapping[str, Mapping[_Key, Pin]]
"""Pins by route, and within it by kind and name."""

_Chosen = tuple[str, _Key | None]


def lock(
    file: Annotated[Path | None, typer.Argument(help="Routes. Default: GATEWAY_CONFIG or config/routes.yaml.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="ROUTE, ROUTE/TOOL or ROUTE/prompts/NAME (also resources, templates): nothing else. Repeatable."
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 and show what differs.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Write tools.lock beside the routes file: what the backends list now is approved.

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
    old = _flat(before.pins)
    new = _merged(old, _found(routes, listings), chosen, keep=set(unreached))
    after = Lock({route: _by_kind(pins) for route, pins in new.items()})
    changes = list(_changes(old, new))
    if not check and (changes or before.missing):
        write_lock(target, after)
    if json_output:
        as_json({"file": str(target), "written": not check, "changes": changes, "unreached": unreached})
    else:
        _say(target, before, after, changes, unreached, check=check)
    raise typer.Exit(NO if unreached or (check and changes) else 0)


def _chosen(only: Iterable[str], routes: Routes) -> set[_Chosen]:
    """What of which routes is meant: one entry, or with None all of a route. None at all where everything is."""
    names = {route.name for route in routes.routes}
    chosen = {_parsed(one) for one in only}
    if unknown := sorted({route for route, _key in chosen} - names):
        fail(f"there is no route {', '.join(unknown)}; routes are {', '.join(sorted(names))}", UNUSABLE)
    return chosen


def _parsed(one: str) -> _Chosen:
    route, _slash, rest = one.partition("/")
    section, slash, name = rest.partition("/")
    kind = next((kind for kind, word in SECTIONS.items() if word == section), None)
    if slash and (kind is None or not name):
        fail(f"--only takes ROUTE, ROUTE/TOOL or ROUTE/SECTION/NAME with {', '.join(SECTIONS.values())}", UNUSABLE)
    if not rest:
        return route, None
    return route, (kind, name) if kind is not None and slash else ("tool", rest)


def _concerns(chosen: set[_Chosen], route: str, key: _Key | None = None) -> bool:
    if not chosen:
        return True
    if key is None:
        return any(route == name for name, _key in chosen)
    return (route, None) in chosen or (route, key) in chosen


def _found(routes: Routes, listings: Mapping[str, Listing]) -> _Flat:
    """What is exposed, by the definitions that the backends sent."""
    from gateway import catalog

    built = catalog.build(routes, listings)
    exposed = {(entry.route, kind, entry.backend_name) for kind in SECTIONS for entry in built.entries(None, kind)}
    found: dict[str, dict[_Key, Pin]] = {}
    for route, listing in listings.items():
        pins = found.setdefault(route, {})
        for kind, definitions in _listed(listing).items():
            for definition in definitions:
                name = definition.get(NAMED_BY[kind])
                if isinstance(name, str) and (route, kind, name) in exposed and (kind, name) not in pins:
                    pins[kind, name] = pin(definition)
    return found


def _listed(listing: Listing) -> Mapping[Kind, Iterable[Mapping[str, Any]]]:
    return {
        "tool": listing.tools,
        "prompt": listing.prompts,
        "resource": listing.resources,
        "template": listing.templates,
    }


def _flat(pins: Mapping[str, Pins]) -> _Flat:
    return {
        route: {(kind, name): one for kind, named in kinds.items() for name, one in named.items()}
        for route, kinds in pins.items()
    }


def _by_kind(pins: Mapping[_Key, Pin]) -> Pins:
    kinds: dict[Kind, dict[str, Pin]] = {}
    for (kind, name), one in pins.items():
        kinds.setdefault(kind, {})[name] = one
    return kinds


def _merged(before: _Flat, found: _Flat, chosen: set[_Chosen], *, keep: set[str]) -> _Flat:
    merged: dict[str, dict[_Key, Pin]] = {}
    for route in {*before, *found}:
        old, new = before.get(route, {}), found.get(route, {})
        pins = {
            key: one
            for key in {*old, *new}
            if (one := (new if route not in keep and _concerns(chosen, route, key) else old).get(key)) is not None
        }
        if pins:
            merged[route] = pins
    return merged


def _changes(before: _Flat, after: _Flat) -> Iterable[dict[str, str]]:
    for route in sorted({*before, *after}):
        old, new = before.get(route, {}), after.get(route, {})
        for kind, name in sorted({*old, *new}, key=lambda key: (list(SECTIONS).index(key[0]), key[1])):
            key = kind, name
            if key not in old or key not in new:
                yield {"route": route, kind: name, "change": "new" if key in new else "gone"}
            elif old[key].sha256 != new[key].sha256:
                yield {"route": route, kind: name, "change": "changed"}


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
    counts = {
        section: sum(len(pins.get(kind, {})) for pins in after.pins.values()) for kind, section in SECTIONS.items()
    }
    approved = ", ".join(f"{count} {section}" for section, count in counts.items() if count) or "nothing"
    verdict = f"{len(changes)} difference(s)" if check else f"{approved} approved, {len(changes)} change(s)"
    out.print(Text(f"{target}: {verdict}."), soft_wrap=True)
