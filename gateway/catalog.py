"""The catalogue: an immutable snapshot of everything that is exposed, and who sees what of it.

Lists and calls use the same predicate. A snapshot is built from the routes and the last listing of each backend, in
configured order and then in each backend's own, and swapped as a whole.
"""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map

from gateway.models import Listing, Principal, Tool
from gateway.policy.authorize import permits
from gateway.protocol.naming import is_valid, public_name
from gateway.protocol.strict_json import encode
from gateway.routes import Route, Routes, Toolset

MAX_DEFINITION_BYTES = 200_000
_REMEMBERED_LISTS = 256


@dataclass(frozen=True, slots=True)
class Omission:
    """A tool that a backend offers and the catalogue leaves out, and why; for logs and ``check``."""

    route: str
    tool: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What one URL offers: public names to tools, in listing order."""

    tools: Mapping[str, Tool]
    hidden: frozenset[str] = frozenset()


class Catalog:
    """Everything exposed: ``/mcp`` is the toolset None, ``/mcp/<name>`` a configured one."""

    def __init__(self, offers: Mapping[str | None, Offer], omissions: tuple[Omission, ...] = ()) -> None:
        self._offers = offers
        self.omissions = omissions
        self._lists: OrderedDict[tuple[str | None, frozenset[str]], tuple[bytes, ...]] = OrderedDict()

    def toolsets(self) -> Iterable[str | None]:
        """Every toolset that has a URL; None is all."""
        return self._offers.keys()

    def has(self, toolset: str | None) -> bool:
        """Whether this toolset exists."""
        return toolset in self._offers

    def find(self, toolset: str | None, name: str) -> Tool | None:
        """The tool of this public name, whoever asks; None where there is none."""
        return self._offers[toolset].tools.get(name)

    def tools(self, toolset: str | None = None) -> Iterable[Tool]:
        """Every tool of a toolset, in listing order."""
        return self._offers[toolset].tools.values()

    def visible(self, toolset: str | None, principal: Principal) -> list[Tool]:
        """What this principal may call, by the predicate that decides calls."""
        return [tool for tool in self.tools(toolset) if permits(principal, tool)]

    def rendered(self, toolset: str | None, principal: Principal) -> tuple[bytes, ...]:
        """``visible`` as JSON; depends on the scopes alone, so that is what it is remembered by."""
        key = (toolset, principal.scopes)
        ready = self._lists.get(key)
        if ready is None:
            ready = tuple(tool.rendered for tool in self.visible(toolset, principal))
            self._lists[key] = ready
            if len(self._lists) > _REMEMBERED_LISTS:
                self._lists.popitem(last=False)
        return ready

    def scopes(self, toolset: str | None) -> frozenset[str]:
        """Every scope that some tool of a toolset needs: ``scopes_supported`` and the hint of a challenge."""
        return frozenset().union(*(tool.policy.scopes or () for tool in self.tools(toolset)))


def build(routes: Routes, listings: Mapping[str, Listing]) -> Catalog:
    """The catalogue of these routes as their backends were last listed; a route without a listing is absent."""
    omissions: list[Omission] = []
    by_route = {
        route.name: _tools_of(route, listings[route.name], route.prefix, omissions)
        for route in routes.routes
        if route.name in listings
    }
    everything = _merge(by_route.values(), omissions)
    offers: dict[str | None, Offer] = {None: Offer(everything)}
    for name, toolset in routes.toolsets.items():
        offers[name] = Offer(_select(routes, toolset, everything, listings))
    return Catalog(offers, tuple(omissions))


def _tools_of(route: Route, listing: Listing, prefix: str, omissions: list[Omission]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for definition in listing.tools:
        tool, problem = _tool(route, listing, definition, prefix)
        if tool is None:
            omissions.append(Omission(route.name, str(definition.get("name"))[:128], problem))
        elif tool.policy.hidden or tool.policy.scopes is None:
            continue
        elif tool.name in tools:
            omissions.append(Omission(route.name, tool.backend_name, "another tool of this route has the same name"))
        else:
            tools[tool.name] = tool
    return tools


def _tool(route: Route, listing: Listing, definition: Mapping[str, Any], prefix: str) -> tuple[Tool | None, str]:
    name, schema = definition.get("name"), definition.get("inputSchema")
    if not isinstance(name, str) or not is_valid(name):
        return None, "its name is not 1-128 characters of A-Z a-z 0-9 _ . -"
    if not isinstance(schema, dict):
        return None, "it has no input schema"
    annotation_problem = find_invalid_x_mcp_header(schema)
    if annotation_problem and listing.over_http:
        return None, f"its x-mcp-header annotation is invalid: {annotation_problem}"
    public = {**definition, "name": public_name(prefix, name)}
    rendered = encode(public)
    if len(rendered) > MAX_DEFINITION_BYTES:
        return None, f"its definition is over {MAX_DEFINITION_BYTES} bytes"
    return Tool(
        name=public["name"],
        backend_name=name,
        route=route.name,
        definition=public,
        rendered=rendered,
        input_schema=encode(schema),
        policy=route.policy_for(name),
        param_headers={} if annotation_problem else x_mcp_header_map(schema),
        idempotent=route.backend.trust_annotations and _harmless(definition.get("annotations")),
    ), ""


def _harmless(annotations: Any) -> bool:
    if not isinstance(annotations, dict):
        return False
    return annotations.get("readOnlyHint") is True or annotations.get("idempotentHint") is True


def _merge(parts: Iterable[Mapping[str, Tool]], omissions: list[Omission]) -> dict[str, Tool]:
    merged: dict[str, Tool] = {}
    for tools in parts:
        for name, tool in tools.items():
            if name in merged:
                reason = f"the {merged[name].route} route already exposes {name}"
                omissions.append(Omission(tool.route, tool.backend_name, reason))
            else:
                merged[name] = tool
    return merged


def _select(
    routes: Routes, toolset: Toolset, everything: Mapping[str, Tool], listings: Mapping[str, Listing]
) -> Mapping[str, Tool]:
    if toolset.names == "plain":
        route = next(route for route in routes.routes if route.name == toolset.routes[0])
        if route.name not in listings:
            return {}
        return _tools_of(route, listings[route.name], "", [])
    of_routes = frozenset(toolset.routes)
    return {
        name: tool
        for name, tool in everything.items()
        if (not of_routes or tool.route in of_routes) and _named(toolset.tools, name)
    }


def _named(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
