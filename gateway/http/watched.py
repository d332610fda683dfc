"""Which resources are watched, by whom, and whose they are. Pure books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from gateway.errors import Overloaded
from gateway.http.shares import Shares
from gateway.models import Principal

MAX_WATCHED = 100_000
"""Pairs of a watcher and a resource."""

NOBODY = ""
"""The route of a resource that has no owner at present."""

W = TypeVar("W")


class Watched(Generic[W]):
    """Counts watchers of resources; ``on_wanted`` is told all URIs of a route whenever they change. ``whose`` tells
    for whom one watches."""

    def __init__(self, on_wanted: Callable[[str, frozenset[str]], None], whose: Callable[[W], Principal]) -> None:
        self._on_wanted = on_wanted
        self._whose = whose
        self._shares = Shares("subscriptions", 60.0)
        self._owners: dict[W, dict[str, str]] = {}
        self._watchers: dict[str, Counter[W]] = {}
        self._wanted: dict[str, Counter[str]] = {}
        self._count = 0

    def wanted(self, route: str) -> frozenset[str]:
        """The URIs of a route that anybody watches."""
        return frozenset(self._wanted.get(route, ()))

    def owners(self, watcher: W) -> Mapping[str, str]:
        """What this one watches: URI to route."""
        return self._owners.get(watcher, {})

    def add(self, watcher: W, owners: Mapping[str, str]) -> None:
        """Somebody watches these URIs, none of which they did before.

        Raises:
            Overloaded, RateLimited: too much is watched; nothing was added.
        """
        self.refuse_over(self._whose(watcher), len(owners))
        self._changed(watcher, len(owners))
        if owners:
            self._owners.setdefault(watcher, {}).update(owners)
        grown: set[str] = set()
        for uri, route in owners.items():
            counts = self._wanted.setdefault(route, Counter())
            if not counts[uri]:
                grown.add(route)
            counts[uri] += 1
            self._watchers.setdefault(route, Counter())[watcher] += 1
        self._tell(grown)

    def refuse_over(self, principal: Principal, more: int) -> None:
        """Whether so many more can be watched.

        Raises:
            Overloaded: all watch too much.
            RateLimited: this principal does.
        """
        if self._count + more > MAX_WATCHED:
            message = "Too many resources are watched here; try again later."
            raise Overloaded(message, retry_after=60.0, rule="overload.watched")
        self._shares.refuse_over(principal, MAX_WATCHED, more)

    def remove(self, watcher: W, uris: Iterable[str] | None = None) -> None:
        """Somebody no longer watches these URIs, or, with None, any."""
        owners = self._owners.get(watcher, {})
        shrunk: set[str] = set()
        for uri in list(owners) if uris is None else uris:
            route = owners.pop(uri, None)
            if route is None:
                continue
            self._changed(watcher, -1)
            if _less(self._wanted, route, uri):
                shrunk.add(route)
            _less(self._watchers, route, watcher)
        if not owners:
            self._owners.pop(watcher, None)
        self._tell(shrunk)

    def move(self, watcher: W, route_of: Callable[[str], str | None]) -> None:
        """Look the owners up anew; a resource without one is not watched, but looked up again next time."""
        owners = self._owners.get(watcher, {})
        now = {uri: route_of(uri) or NOBODY for uri in owners}
        moved = {uri: route for uri, route in now.items() if route != owners[uri]}
        if moved:
            self.remove(watcher, moved)
            self.add(watcher, moved)

    def concerned(self, route: str, uri: str, may_read: Callable[[W], bool]) -> list[W]:
        """Who watches this URI or what it is a part of.

        Where no URI shows of what it is a part (the backend tells only what was asked for), whoever watches something
        of the route and ``may_read`` it.
        """
        watchers = list(self._watchers.get(route, ()))
        found = [
            watcher
            for watcher in watchers
            if any(owner == route and covers(own, uri) for own, owner in self._owners[watcher].items())
        ]
        return found or [watcher for watcher in watchers if may_read(watcher)]

    def _changed(self, watcher: W, change: int) -> None:
        self._count += change
        self._shares.add(self._whose(watcher), change)

    def _tell(self, routes: Iterable[str]) -> None:
        for route in sorted(set(routes) - {NOBODY}):
            self._on_wanted(route, self.wanted(route))


T = TypeVar("T")


def _less(counts: dict[str, Counter[T]], route: str, key: T) -> bool:
    """Take one off; True when it was the last of ``key``."""
    of_route = counts[route]
    of_route[key] -= 1
    if of_route[key]:
        return False
    del of_route[key]
    if not of_route:
        del counts[route]
    return True


def covers(subscribed: str, uri: str) -> bool:
    """Whether ``uri`` is the one subscribed to, or lies below it (2026-07-28, ``server/resources``)."""
    if not uri.startswith(subscribed):
        return False
    rest = uri[len(subscribed) :]
    return not rest or subscribed.endswith("/") or rest[0] in "/?#"
