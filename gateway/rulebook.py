"""The rules as they are, and how they change: by a reload, and by what backends list.

What decides is replaced as a whole. What did not change is kept, with its connections; what is gone ends when its calls
have ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway import catalog
from gateway.backends.account_backend import AccountBackend
from gateway.backends.credentials.connecting import Connections
from gateway.backends.credentials.opening import open_account
from gateway.backends.route_backend import RouteBackend
from gateway.definitions.lock import Drift, Lock
from gateway.entries import Finding
from gateway.exchange import Rules
from gateway.http.filters import ListKind
from gateway.http.subscriptions import Subscriptions
from gateway.models import Change, Kind, Listing
from gateway.news import News, Record
from gateway.routes import Auth, Route, Routes
from gateway.stores.issuers import Issuers
from gateway.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_LISTS: Mapping[Kind, ListKind] = {
    "tool": "tools",
    "prompt": "prompts",
    "resource": "resources",
    "template": "resources",
}


class Rulebook:
    """Holds the present ``rules``.

    Args:
        routes: the first ones; ``adopt`` them once the event loop runs. ``lock`` holds the pins of what they list.
        spawn: runs something in the background.
        max_response: bytes, over what any route says.
        record: takes audit events that are no requests.

    Attributes:
        connections: where principals connect accounts; set before the first ``adopt``.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        metrics: Metrics,
        hub: Subscriptions,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        version: str,
        max_response: int,
        lock: Lock,
        record: Record,
    ) -> None:
        self.backends: dict[str, RouteBackend] = {}
        self.issuers: Issuers | None = None
        self._metrics = metrics
        self._hub = hub
        self._spawn = spawn
        self._version = version
        self._max_response = max_response
        self.connections: Connections | None = None
        self._listings: dict[str, Listing] = {}
        self.lock = lock
        self._catalogs = catalog.Builder()
        self._news = News(record, time.time)
        self.rules = self._made_of(routes, None)

    async def adopt(self, routes: Routes, lock: Lock) -> None:
        """Make these routes the rules: keep what did not change, start what is new, retire what is gone."""
        issuers = await self._issuers_of(routes.auth)
        if issuers is not None:
            issuers.authenticate.keep_tokens(kept=routes.exchange_tokens)
        old = self.backends
        self.backends = {route.name: self._backend(route, old.get(route.name)) for route in routes.routes}
        if self.connections is not None:
            self.connections.only({name for name, one in self.backends.items() if isinstance(one, AccountBackend)})
        kept = {id(backend) for backend in self.backends.values()}
        places = {route.name: route.backend for route in routes.routes}
        for name, backend in old.items():
            if places.get(name) != self.rules.by_name[name].backend:
                self._listings.pop(name, None)
            if id(backend) not in kept:
                self._spawn(backend.retire())
        self.lock = lock
        former, self.rules = self.rules, self._made_of(routes, issuers)
        self._news.tell(self.rules.catalog)
        self._hub.catalog_changed({_LISTS[kind] for kind in self.rules.catalog.differing(former.catalog)})
        for name, backend in self.backends.items():
            backend.watch(self._hub.wanted(name))
        if self.issuers is not None and self.issuers is not issuers:
            await self.issuers.aclose()
        self.issuers = issuers

    async def first_attempts(self) -> None:
        """Wait until every backend was tried once, reached or not."""
        await asyncio.gather(*(backend.first_attempt() for backend in self.backends.values()))

    def wanted(self, route: str, uris: frozenset[str]) -> None:
        """Clients watch other resources of a route than before."""
        backend = self.backends.get(route)
        if backend is not None:
            backend.watch(uris)

    def gauge(self) -> None:
        """Set the metrics that are read rather than counted."""
        metrics = self._metrics
        present = self.rules.catalog
        omitted, cleaned = _by_route(present.omitted), _by_route(present.cleaned)
        quarantined = _by_route(self._withheld())
        for name, backend in self.backends.items():
            metrics.catalog_omitted.labels(name).set(omitted[name])
            metrics.catalog_cleaned.labels(name).set(cleaned[name])
            metrics.catalog_quarantined.labels(name).set(quarantined[name])
            metrics.up.labels(name).set(int(backend.up))
            metrics.breaker.labels(name).set(backend.breaker_state)
            metrics.inflight.labels(name).set(backend.inflight)
            listing = self._listings.get(name)
            metrics.catalog_tools.labels(name).set(len(listing.tools) if listing else 0)
            if backend.listing is not None:
                metrics.catalog_age.labels(name).set(time.monotonic() - backend.listing.fetched_at)
        metrics.sessions.labels("backend").set(sum(backend.sessions for backend in self.backends.values()))
        metrics.parked.set(sum(backend.parked for backend in self.backends.values()))

    def quarantined(self) -> Mapping[tuple[str, Kind], list[str]]:
        """What is withheld of each route and kind, because it is not as pinned."""
        found: dict[tuple[str, Kind], list[str]] = {}
        for drift in self._withheld():
            found.setdefault((drift.route, drift.kind), []).append(drift.backend_name)
        return found

    def _withheld(self) -> list[Drift]:
        return [drift for drift in self.rules.catalog.drifts if drift.withheld]

    async def aclose(self) -> None:
        """End every backend and the fetching of keys."""
        await asyncio.gather(*(backend.aclose() for backend in self.backends.values()))
        if self.issuers is not None:
            await self.issuers.aclose()

    async def _issuers_of(self, auth: Auth | None) -> Issuers | None:
        if auth is None:
            return None
        if self.issuers is not None and self.rules.routes.auth == auth:
            return self.issuers
        issuers = Issuers(auth)
        await issuers.start()
        return issuers

    def _backend(self, route: Route, current: RouteBackend | None) -> RouteBackend:
        if current is not None and current.serves(route):
            return current
        common: dict[str, Any] = {
            "on_listing": self._listed,
            "on_change": self._changed,
            "meter": self._metrics,
            "version": self._version,
            "max_response": self._max_response,
        }
        credentials = route.backend.credentials
        if credentials is not None and credentials.authorization_code is not None and self.connections is not None:
            account = open_account(route, self.connections.grants)
            self.connections.register(route.name, account)
            backend: RouteBackend = AccountBackend(route, tokens=account.tokens, connections=self.connections, **common)
        else:
            backend = RouteBackend(route, **common)
        backend.start()
        return backend

    def _listed(self, listing: Listing) -> None:
        """A backend offers something else than before; one that was replaced is not asked any more."""
        current = self.backends.get(listing.route)
        if current is None or current.listing is not listing:
            return
        self._listings[listing.route] = listing
        built = self._catalogs.build(self.rules.routes, self._listings, self.lock)
        self.rules = replace(self.rules, catalog=built)
        self._news.tell(built)

    def _changed(self, change: Change) -> None:
        """A backend says that something of it changed; the catalogue already has it."""
        self._hub.changed(change)

    def _made_of(self, routes: Routes, issuers: Issuers | None) -> Rules:
        return Rules(
            authenticate=issuers.authenticate if issuers is not None else _nobody,
            routes=routes,
            catalog=self._catalogs.build(routes, self._listings, self.lock),
            backends=dict(self.backends),
            scopes={toolset: routes.initial_scopes(toolset) for toolset in (None, *routes.toolsets)},
            by_name={route.name: route for route in routes.routes},
            opening_urls=routes.opening_urls(),
            remembers=issuers.authenticate.remembers if issuers is not None else _nothing,
        )


def _by_route(findings: Iterable[Finding | Drift]) -> Counter[str]:
    return Counter(finding.route for finding in findings)


async def _nobody(headers: Sequence[bytes]) -> Any:
    """No authentication is configured; the pipeline never asks."""
    raise NotImplementedError


def _nothing(headers: Sequence[bytes]) -> bool:
    """No token is known."""
    return False
