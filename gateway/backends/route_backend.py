"""The backend of one route: breaker, bulkhead, connection, and the few repetitions that do no harm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from gateway.backends import breaker as circuit
from gateway.backends import link
from gateway.backends.backoff import Backoff
from gateway.backends.breaker import Breaker
from gateway.backends.bulkhead import Bulkhead
from gateway.backends.changes import Changes
from gateway.backends.connector import Connector
from gateway.backends.credentials.opening import open_source
from gateway.backends.credentials.source import TokenSource
from gateway.backends.discovery import Discovery
from gateway.backends.link import Link
from gateway.backends.modern import EraChanged, StaleHeaders
from gateway.backends.modern_link import ModernLink
from gateway.backends.repeats import Repeats, with_fresh_headers
from gateway.errors import BackendBusy, BackendUnavailable
from gateway.models import BackendReply, BackendRequest, Change, Era, Listing
from gateway.ports import Meter, Notify
from gateway.routes import Route

_SWEEP = 30.0
"""Seconds between looks for idle sessions."""


class RouteBackend:
    """Implements ``ports.Backend`` for ``route``.

    ``on_listing`` is told each time the backend offers something else than before. ``on_change`` is told of changed
    lists, once the listing has them, and of changed resources that are watched. ``clock`` is in monotonic seconds;
    ``version`` is the gateway's own, for backends that ask who calls. ``source`` is where its tokens come from, if not
    from what the route says alone.
    """

    def __init__(
        self,
        route: Route,
        *,
        on_listing: Callable[[Listing], None],
        meter: Meter,
        version: str,
        on_change: Callable[[Change], None] = lambda _change: None,
        clock: Callable[[], float] = time.monotonic,
        max_response: int = 1 << 30,
        source: TokenSource | None = None,
    ) -> None:
        settings = route.effective
        self._identity = _identity(route)
        self._name = route.name
        self._meter = meter
        self._clock = clock
        self._list_timeout = settings.list_timeout
        self._over_http = route.backend.url is not None
        self._breaker = Breaker(clock, Backoff(1.0, 30.0))
        self._bulkhead = Bulkhead(settings.max_concurrency)
        self._repeats = Repeats()
        self._changes = Changes(route.name, on_listing, on_change)
        self._watched: frozenset[str] = frozenset()
        self._discovery = Discovery(
            route.name, self._fetch, self._changes.listed, refresh=settings.refresh, on_fresh=self._changes.fresh
        )
        self._connector = Connector(
            route,
            version=version,
            clock=clock,
            poke=self._discovery.poke,
            on_change=self._changed,
            max_response=max_response,
            source=source or open_source(route, clock=clock),
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def up(self) -> bool:
        """The last refresh succeeded, and calls get through."""
        return self._discovery.up and self._breaker.state == circuit.CLOSED

    @property
    def keeps_state(self) -> bool:
        """See ``ports.Backend``: only a modern backend over HTTP keeps nothing between requests."""
        return not isinstance(self._connector.link, ModernLink)

    @property
    def era(self) -> Era | None:
        """What the backend speaks; None until it is known."""
        connected = self._connector.link
        return connected.era if connected is not None else None

    @property
    def breaker_state(self) -> int:
        """0 closed, 1 half-open, 2 open."""
        return self._breaker.state

    @property
    def inflight(self) -> int:
        """Calls at the backend now."""
        return self._bulkhead.taken

    @property
    def listing(self) -> Listing | None:
        """The last one that was had."""
        return self._discovery.listing

    @property
    def parked(self) -> int:
        """Calls that wait for their client."""
        return self._connector.parked

    @property
    def sessions(self) -> int:
        """Open sessions with the backend."""
        return self._connector.sessions

    def start(self) -> None:
        """Begin to connect, list and keep both fresh; returns at once."""
        self._tasks = [
            asyncio.create_task(self._discovery.run(), name=f"discovery of {self._name}"),
            asyncio.create_task(self._sweep(), name=f"sessions of {self._name}"),
        ]

    async def first_attempt(self) -> None:
        """Returns when the backend was listed, or failed to be, for the first time."""
        await self._discovery.tried.wait()

    def serves(self, route: Route) -> bool:
        """Whether a reloaded route still wants exactly this backend; scopes and limits are not its matter."""
        return bool(self._identity == _identity(route))

    def watch(self, uris: frozenset[str]) -> None:
        """From now on, tell of changes of exactly these resources; holds over reconnections."""
        self._watched = uris
        if self._connector.link is not None:
            self._connector.link.watch(uris)

    async def retire(self) -> None:
        """End once the calls under way have ended; each is bounded by its own deadline."""
        for task in self._tasks:
            task.cancel()
        await self._bulkhead.idle()
        await self.aclose()

    async def aclose(self) -> None:
        """End everything of this backend. Idempotent."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._discovery.aclose()
        await self._connector.aclose()

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """See ``ports.Backend``."""
        breaker = self._breaker
        probe = breaker.state != circuit.CLOSED
        if probe and not breaker.enter():
            raise link.unreachable(self._name, retry_after=breaker.retry_after or None)
        judged = held = False
        try:
            held = self._bulkhead.take()
            if not held:
                request = await self._queue(request)
                held = True
            connected = self._connector.link
            if connected is None:
                connected, request = await self._first_link(request)
            self._repeats.earn()
            try:
                reply = await connected.request(request, notify)
            except (StaleHeaders, EraChanged, link.WrongEra, BackendUnavailable) as failure:
                reply = await self._again(connected, request, notify, failure)
            judged = True
            breaker.success(probe=probe)
        except (BackendBusy, link.NoCredentials):
            raise
        except link.AnswerTooLarge:
            judged = True
            breaker.success(probe=probe)
            raise
        except BackendUnavailable:
            judged = True
            breaker.failure(probe=probe)
            raise
        finally:
            if held:
                self._bulkhead.release()
            if not judged:
                breaker.abandon(probe=probe)
        self._meter.backend(self._name, reply.seconds)
        return reply

    async def _queue(self, request: BackendRequest) -> BackendRequest:
        """Wait for a place; the wait is taken off the time of the call."""
        since = self._clock()
        if not await self._bulkhead.wait(min(request.timeout, request.max_timeout)):
            raise link.busy(self._name)
        return self._later(request, since)

    async def _first_link(self, request: BackendRequest) -> tuple[Link, BackendRequest]:
        """Wait for the first attempt to connect, as after a reload; the wait is taken off the time of the call."""
        since = self._clock()
        self._discovery.poke()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(request.timeout, request.max_timeout)):
                await self._discovery.tried.wait()
        connected = self._connector.link
        if connected is None:
            raise link.unreachable(self._name)
        return connected, self._later(request, since)

    def _later(self, request: BackendRequest, since: float) -> BackendRequest:
        waited = self._clock() - since
        return replace(
            request,
            timeout=max(0.001, request.timeout - waited),
            max_timeout=max(0.001, request.max_timeout - waited),
        )

    async def _again(
        self, connected: Link, request: BackendRequest, notify: Notify, failure: BackendUnavailable
    ) -> BackendReply:
        """Send once more what was not executed, or may be repeated, with what is known better now."""
        if isinstance(failure, StaleHeaders):
            await self._discovery.now()
            request = with_fresh_headers(request, self._discovery.listing)
        elif isinstance(failure, EraChanged | link.WrongEra):
            connected = await self._renew(connected)
        elif self._repeats.allow(failure, request):
            await asyncio.sleep(self._repeats.pause())
        else:
            raise failure
        return await connected.request(request, notify)

    async def _renew(self, outdated: Link) -> Link:
        if self._connector.link is outdated:
            self._connector.forget()
            await self._discovery.now()
        if self._connector.link is None:
            raise link.unreachable(self._name)
        return self._connector.link

    def _changed(self, change: Change) -> None:
        if self._changes.heard(change):
            self._discovery.poke()

    async def _fetch(self) -> Listing:
        self._changes.asking()
        try:
            connected = await self._connector.connect()
            connected.watch(self._watched)
            offer = await connected.offer(self._list_timeout)
        except (EraChanged, link.WrongEra, link.HandshakeRefused):
            self._connector.forget()
            raise
        return Listing(
            self._name,
            offer.tools,
            self._clock(),
            capabilities=offer.capabilities,
            server_info=offer.server_info,
            over_http=self._over_http,
            prompts=offer.prompts,
            resources=offer.resources,
            templates=offer.templates,
        )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self._connector.sweep()


def _identity(route: Route) -> tuple[Any, ...]:
    """What of a route its connections depend on."""
    return route.backend, route.effective.model_copy(update={"pins": None})
