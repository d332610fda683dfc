"""``lock``: approve definitions as they are, into a file that is reviewed like code."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.output import NO, UNUSABLE, as_json, fail, out, printable
from gateway.definitions.lock import NAMED_BY, SECTIONS, Lock, Pin, Pins, differing, pin, place_of, render
from gateway.definitions.lock_file import lock_path, read_lock, write_lock
from gateway.errors import ConfigError
from gateway.models import Kind, Listing
from gateway.routes import Routes, load

_Key = tuple[Kind, str]
_Flat = Mapping[str, Mapping[_Key, Pin]]
"""Pins by route, and within it by kind and name."""

_Chosen = tuple[str, _Key | None]


@dataclass(frozen=True, slots=True)
class _Change:
    """An entry that is not as the lock has it; ``fields`` are the members that differ, where both have it."""

    route: str
    kind: Kind
    name: str
    change: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.change:<7}  {place_of(self.route, self.name, self.kind)}"
        return f"{text}  ({', '.join(self.fields)})" if self.fields else text

    def as_dict(self) -> dict[str, Any]:
        told = {"route": self.route, self.kind: self.name, "change": self.change}
        return {**told, "fields": list(self.fields)} if self.fields else told


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
    old, found = _flat(before.pins), _found(routes, listings)
    _refuse_absent(chosen, old, found, unreached)
    new = _merged(old, found, chosen, keep=set(unreached))
    after = Lock({route: _by_kind(pins) for route, pins in new.items()})
    changes = list(_changes(old, new))
    if not check and (changes or before.missing):
        _write(target, after)
    if json_output:
        told = [change.as_dict() for change in changes]
        as_json({"file": str(target), "written": not check, "changes": told, "unreached": unreached})
    else:
        _say_difference(target, before, after, check=check)
        _say_changes(changes, unreached, told_each=check or not before.missing)
        _say_verdict(target, routes, after, changes, check=check)
    raise typer.Exit(NO if unreached or (check and changes) else 0)


def _write(target: Path, lock: Lock) -> None:
    try:
        write_lock(target, lock)
    except OSError as error:
        fail(f"{target} cannot be written: {error.strerror}", UNUSABLE)


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


def _refuse_absent(chosen: set[_Chosen], old: _Flat, found: _Flat, unreached: Iterable[str]) -> None:
    """End where an entry is meant that is neither listed nor approved: a typing error would pass for an approval."""
    for route, key in sorted(chosen, key=str):
        if key is not None and route not in unreached and key not in {*old.get(route, {}), *found.get(route, {})}:
            kind, name = key
            place = printable(place_of(route, name, kind))
            fail(f"{place} is neither in the lock nor exposed and pinned; mcp-gateway lock --check names what differs")


def _concerns(chosen: set[_Chosen], route: str, key: _Key | None = None) -> bool:
    if not chosen:
        return True
    if key is None:
        return any(route == name for name, _key in chosen)
    return (route, None) in chosen or (route, key) in chosen


def _found(routes: Routes, listings: Mapping[str, Listing]) -> _Flat:
    """What is exposed and pinned, by the definitions that the backends sent."""
    from gateway import catalog

    by_name = {route.name: route.effective.pins for route in routes.routes}

    built = catalog.build(routes, listings)
    exposed = {(entry.route, kind, entry.backend_name) for kind in SECTIONS for entry in built.entries(None, kind)}
    found: dict[str, dict[_Key, Pin]] = {}
    for route, listing in listings.items():
        pins = found.setdefault(route, {})
        for kind in filter(by_name[route].approves, SECTIONS):
            for definition in _listed(listing)[kind]:
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


def _changes(before: _Flat, after: _Flat) -> Iterable[_Change]:
    """In the order of the file."""
    for route in sorted({*before, *after}):
        old, new = before.get(route, {}), after.get(route, {})
        for kind, name in sorted({*old, *new}, key=lambda key: (list(SECTIONS).index(key[0]), key[1])):
            key = kind, name
            if key not in old or key not in new:
                yield _Change(route, kind, name, "new" if key in new else "gone")
            elif old[key].sha256 != new[key].sha256:
                fields = differing(old[key].definition, new[key].definition)
                yield _Change(route, kind, name, "changed", fields)


def _say_difference(target: Path, before: Lock, after: Lock, *, check: bool) -> None:
    """As a diff; of a file that is made now there is nothing to compare."""
    if before.missing and not check:
        return
    lines = difflib.unified_diff(
        [] if before.missing else render(before).splitlines(),
        render(after).splitlines(),
        f"{target} (approved)",
        f"{target} (listed now)",
        lineterm="",
    )
    for line in lines:
        _line(line, {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))


def _say_changes(changes: Iterable[_Change], unreached: Iterable[str], *, told_each: bool) -> None:
    """Each as ``--only`` takes it."""
    for change in changes if told_each else ():
        _line(printable(str(change)))
    for name in unreached:
        _line(f"{name}: not reached, and its entries stay as they were; run this again when it is", "yellow")


def _say_verdict(target: Path, routes: Routes, after: Lock, changes: list[_Change], *, check: bool) -> None:
    if check:
        advice = "Review, then mcp-gateway lock approves all, and with --only what you name." if changes else ""
        _line(f"{target}: {len(changes)} difference(s). {advice}".rstrip())
    else:
        counts = {
            section: sum(len(pins.get(kind, {})) for pins in after.pins.values()) for kind, section in SECTIONS.items()
        }
        approved = ", ".join(f"{count} {section}" for section, count in counts.items() if count) or "nothing"
        _line(f"{target}: {approved} approved, {len(changes)} change(s).")
    if not any(route.effective.pins.any for route in routes.routes):
        _line("No route says pins: warn or pins: block, so nothing is held to it yet.", "yellow")


def _line(text: str, style: str = "") -> None:
    out.print(Text(text, style), soft_wrap=True)
