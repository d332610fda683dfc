"""What a client that waits for changes may hear of, by the rules as they are when something changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from gateway.entries import KINDS
from gateway.exchange import Exchange, Policy, Rules
from gateway.models import Principal
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
        rules = present()
        known = rules.catalog.owner(toolset, uri) if rules.catalog.has(toolset) else None
        if known is None or not permits(principal, known):
            return None
        return known.route

    def sees(route: str) -> bool:
        catalog = present().catalog
        if not catalog.has(toolset):
            return False
        return any(entry.route == route for kind in KINDS for entry in catalog.visible(toolset, principal, kind))

    return Watcher(principal=principal, route_of=route_of, sees=sees, seconds=principal.expires_at - now)
