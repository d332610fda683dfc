"""What a client that waits for changes may hear of, by the rules as they are when something changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict

from gateway.entries import KINDS
from gateway.exchange import Exchange, Policy, Rules
from gateway.models import Entry, Principal
from gateway.policy.authorize import permits
from gateway.ports import RouteOf, Sees


class Watcher(TypedDict):
    """What the hub needs to know of one client."""

    principal: Principal
    route_of: RouteOf
    sees: Sees
    seconds: float


def as_one(exchange: Exchange, policy: Policy) -> Watcher:
    """The client of an exchange, for as long as its token is good."""
    return of_principal(exchange.principal, exchange.inbound.toolset, policy.present, policy.now())


def of_principal(principal: Principal, toolset: str | None, present: Callable[[], Rules], now: float) -> Watcher:
    """A principal at a toolset, for as long as its token is good; ``now`` in seconds since the epoch."""

    def route_of(uri: str) -> str | None:
        known = _read(present(), toolset, uri)
        return known.route if known is not None and permits(principal, known) else None

    def sees(route: str) -> bool:
        catalog = present().catalog
        if not catalog.has(toolset):
            return False
        return any(entry.route == route for kind in KINDS for entry in catalog.visible(toolset, principal, kind))

    return Watcher(principal=principal, route_of=route_of, sees=sees, seconds=principal.expires_at - now)


def _read(rules: Rules, toolset: str | None, uri: str) -> Entry | None:
    """What reading a URI is decided by: its own rule where a template stands for it; None where it is not served."""
    if not rules.catalog.has(toolset) or rules.catalog.withheld_owner(toolset, uri) is not None:
        return None
    known = rules.catalog.owner(toolset, uri)
    if known is None or known.kind == "resource":
        return known
    return replace(known, policy=rules.by_name[known.route].decide(uri, "resource"))
