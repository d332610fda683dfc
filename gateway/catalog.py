"""The catalogue: an immutable snapshot of everything that is exposed, and who sees what of it.

Lists and calls use the same predicate. A snapshot is built from the routes and the last listing of each backend, in
configured order and then in each backend's own, and swapped as a whole.
"""

from __future__ import annotations

import fnmatch
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp.shared.uri_template import UriTemplate

from gateway.definitions.lock import Lock
from gateway.entries import KINDS, Entries, Finding, Findings, entries_of
from gateway.models import Entry, Kind, Listing, Principal
from gateway.policy.authorize import permits
from gateway.routes import Route, Routes, Toolset

_REMEMBERED_LISTS = 256
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class Offer:
    """What one URL offers: for each kind, public names to entries in listing order; and the quarantined ones."""

    entries: Mapping[Kind, Mapping[str, Entry]]
    capabilities: Mapping[str, Any]
    routes: tuple[str, ...]
    quarantined: Mapping[Kind, Mapping[str, Entry]]


class Catalog:
    """Everything exposed: ``/mcp`` is the toolset None, ``/mcp/<name>`` a configured one.

    ``omitted`` is what backends offer and the catalogue leaves out, ``cleaned`` what it shows without a part of it,
    ``drifts`` what of it is not as pinned.
    """

    def __init__(self, offers: Mapping[str | None, Offer], findings: Findings) -> None:
        self._offers = offers
        self.omitted = tuple(findings.omitted)
        self.cleaned = tuple(findings.cleaned)
        self.drifts = tuple(findings.drifts)
        self._lists: OrderedDict[tuple[str | None, Kind, frozenset[str]], tuple[bytes, ...]] = OrderedDict()
        self._templates: dict[str, UriTemplate | None] = {}

    def has(self, toolset: str | None) -> bool:
        """Whether this toolset exists."""
        return toolset in self._offers

    def routes(self, toolset: str | None) -> Iterable[str]:
        """The routes that a toolset exposes something of, in configured order."""
        return self._offers[toolset].routes

    def reaches(self, toolset: str | None, route: str) -> bool:
        """Whether a toolset exposes anything of a route."""
        return route in self._offers[toolset].routes

    def capabilities(self, toolset: str | None) -> Mapping[str, Any]:
        """The features that some backend of a toolset has, each with the sub-features of any (``server/discover``)."""
        return self._offers[toolset].capabilities

    def differing(self, former: Catalog) -> list[Kind]:
        """The kinds of which a list may look different, to somebody, from what it was."""
        return [kind for kind in KINDS if self._look(kind) != former._look(kind)]

    def find(self, toolset: str | None, name: str, kind: Kind = "tool") -> Entry | None:
        """The entry of this public name or URI, whoever asks; None where there is none."""
        return self._offers[toolset].entries[kind].get(name)

    def quarantined(self, toolset: str | None, name: str, kind: Kind = "tool") -> Entry | None:
        """The entry that would be found under this public name or URI if its definition were the pinned one."""
        return self._offers[toolset].quarantined[kind].get(name)

    def lists(self, route: str, name: str, kind: Kind = "tool") -> bool:
        """Whether something of this backend name or URI is exposed at ``/mcp``."""
        return any(entry.route == route and entry.backend_name == name for entry in self.entries(kind=kind))

    def owner(self, toolset: str | None, uri: str) -> Entry | None:
        """Who answers for a URI: the resource listed under it, else the first template that it matches."""
        return self._owner(self._offers[toolset].entries, uri)

    def withheld_owner(self, toolset: str | None, uri: str) -> Entry | None:
        """What is quarantined and would answer for this URI: a resource, or a template where nothing else answers."""
        offer = self._offers[toolset]
        if uri in offer.entries["resource"]:
            return None
        held = self._owner(offer.quarantined, uri)
        return held if held is None or held.kind == "resource" or self.owner(toolset, uri) is None else None

    def _owner(self, entries: Mapping[Kind, Mapping[str, Entry]], uri: str) -> Entry | None:
        return entries["resource"].get(uri) or next(
            (entry for name, entry in entries["template"].items() if self._matches(name, uri)), None
        )

    def entries(self, toolset: str | None = None, kind: Kind = "tool") -> Iterable[Entry]:
        """Every entry of a toolset, in listing order."""
        return self._offers[toolset].entries[kind].values()

    def visible(self, toolset: str | None, principal: Principal, kind: Kind = "tool") -> list[Entry]:
        """What this principal may use, by the predicate that decides calls."""
        return [entry for entry in self.entries(toolset, kind) if permits(principal, entry)]

    def rendered(self, toolset: str | None, principal: Principal, kind: Kind = "tool") -> tuple[bytes, ...]:
        """``visible`` as JSON; depends on the scopes alone, so that is what it is remembered by."""
        key = (toolset, kind, principal.scopes)
        ready = self._lists.get(key)
        if ready is None:
            ready = tuple(entry.rendered for entry in self.visible(toolset, principal, kind))
            self._lists[key] = ready
            if len(self._lists) > _REMEMBERED_LISTS:
                self._lists.popitem(last=False)
        return ready

    def _look(self, kind: Kind) -> list[tuple[str | None, bytes, frozenset[str] | None]]:
        return [
            (toolset, entry.rendered, entry.policy.scopes)
            for toolset, offer in self._offers.items()
            for entry in offer.entries[kind].values()
        ]

    def _matches(self, template: str, uri: str) -> bool:
        if template not in self._templates:
            try:
                self._templates[template] = UriTemplate.parse(template)
            except ValueError:
                self._templates[template] = None
        parsed = self._templates[template]
        return parsed is not None and parsed.match(uri) is not None


def build(routes: Routes, listings: Mapping[str, Listing], lock: Lock | None = None) -> Catalog:
    """The catalogue of these routes as their backends were last listed; a route without a listing is absent.

    Definitions are held to ``lock`` as their routes say; without one nobody looks at pins.
    """
    return Builder().build(routes, listings, lock)


class Builder:
    """Builds one catalogue after the other; what did not change since the last one is not looked at again."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], _Made] = {}

    def build(self, routes: Routes, listings: Mapping[str, Listing], lock: Lock | None) -> Catalog:
        """See ``build``."""
        former, self._made = self._made, {}
        listed = [route for route in routes.routes if route.name in listings]
        made = [self._of(route, listings[route.name], route.prefix, lock, former) for route in listed]
        findings = _together(one.findings for one in made)
        several = len(routes.routes) > 1
        everything = Offer(
            {kind: _merge(kind, [one.entries for one in made], findings, several=several) for kind in KINDS},
            _united(listings[route.name].capabilities for route in listed),
            tuple(route.name for route in listed),
            {kind: _held(kind, [one.entries for one in made]) for kind in KINDS},
        )
        offers: dict[str | None, Offer] = {None: everything}
        for name, toolset in routes.toolsets.items():
            chosen = [route for route in listed if route.name in toolset.routes]
            plain = toolset.names == "plain" and chosen
            own = self._of(chosen[0], listings[chosen[0].name], "", lock, former).entries if plain else None
            offers[name] = _selected(toolset, chosen, everything, listings, own)
        return Catalog(offers, findings)

    def _of(
        self, route: Route, listing: Listing, prefix: str, lock: Lock | None, former: Mapping[tuple[str, str], _Made]
    ) -> _Made:
        """The entries of a route; those of the last catalogue where they were made of the very same."""
        key = (route.name, prefix)
        made = former.get(key)
        if made is None or made.route is not route or made.listing is not listing or made.lock is not lock:
            findings = Findings()
            made = _Made(route, listing, lock, entries_of(route, listing, prefix, findings, lock), findings)
        self._made[key] = made
        return made


@dataclass(frozen=True, slots=True)
class _Made:
    """Entries, what was found while they were made, and what they were made of."""

    route: Route
    listing: Listing
    lock: Lock | None
    entries: Entries
    findings: Findings


def _together(parts: Iterable[Findings]) -> Findings:
    whole = Findings()
    for part in parts:
        whole.omitted += part.omitted
        whole.cleaned += part.cleaned
        whole.drifts += part.drifts
    return whole


def _merge(kind: Kind, parts: Iterable[Entries], findings: Findings, *, several: bool) -> dict[str, Entry]:
    """What all routes expose; ``several``: there is more than one, reached or not. What one of them has in quarantine
    no later one takes over.
    """
    merged: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    for part in parts:
        for name, entry in part.shown[kind].items():
            reason = ""
            if name in owners:
                reason = f"the {owners[name]} route already exposes {name[:128]}"
            elif entry.kind == "template" and several and _SCHEME.match(name) is None:
                reason = "it names no scheme, so it would claim the URIs of other routes"
            if reason:
                findings.omitted.append(Finding(entry.route, entry.kind, entry.backend_name, reason))
            else:
                merged[name], owners[name] = entry, entry.route
        for name, entry in part.quarantined[kind].items():
            owners.setdefault(name, entry.route)
    return merged


def _held(kind: Kind, parts: Iterable[Entries]) -> dict[str, Entry]:
    """What is quarantined of all routes; of several with one name the first."""
    held: dict[str, Entry] = {}
    for part in parts:
        for name, entry in part.quarantined[kind].items():
            held.setdefault(name, entry)
    return held


def _selected(
    toolset: Toolset, chosen: list[Route], everything: Offer, listings: Mapping[str, Listing], own: Entries | None
) -> Offer:
    """What a toolset offers of the routes ``chosen``; with plain names, ``own`` are the entries of the only one."""
    names = tuple(route.name for route in chosen)
    capabilities = _united(listings[name].capabilities for name in names)
    if own is not None:
        prefix = chosen[0].prefix

        def named(entries: Mapping[Kind, Mapping[str, Entry]]) -> dict[Kind, Mapping[str, Entry]]:
            tools = {name: tool for name, tool in entries["tool"].items() if _named(toolset, prefix + name)}
            return {**entries, "tool": tools}

        return Offer(named(own.shown), capabilities, names, named(own.quarantined))
    of_routes = frozenset(toolset.routes)

    def selected(entries: Mapping[Kind, Mapping[str, Entry]]) -> dict[Kind, Mapping[str, Entry]]:
        return {
            kind: {
                name: entry
                for name, entry in entries[kind].items()
                if entry.route in of_routes and (kind != "tool" or _named(toolset, name))
            }
            for kind in KINDS
        }

    return Offer(selected(everything.entries), capabilities, names, selected(everything.quarantined))


def _named(toolset: Toolset, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in toolset.tools)


def _united(all_capabilities: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What any backend has of what the gateway carries; tools always, so that an empty gateway answers its list."""
    united: dict[str, Any] = {"tools": {}}
    for capabilities in all_capabilities:
        for feature in ("prompts", "resources", "completions", "logging"):
            has = capabilities.get(feature)
            if isinstance(has, dict):
                united.setdefault(feature, {})
                if feature == "resources" and has.get("subscribe") is True:
                    united[feature]["subscribe"] = True
    return united
