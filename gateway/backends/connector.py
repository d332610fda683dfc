"""From what a route says to a link with its backend, in the era it speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypedDict

from gateway.backends import link
from gateway.backends.backoff import Backoff
from gateway.backends.cause import because
from gateway.backends.credentials.bearing import BearingHttp, bearing
from gateway.backends.credentials.source import TokenSource
from gateway.backends.dialer import Dialer
from gateway.backends.http1 import HttpClient
from gateway.backends.legacy_http import LegacyHttp
from gateway.backends.legacy_sse import LegacySse
from gateway.backends.link import Link
from gateway.backends.listen import Listener
from gateway.backends.modern import ModernHttp, NotModern
from gateway.backends.modern_link import ModernLink
from gateway.backends.probe import pinned
from gateway.backends.session_pool import SessionPool
from gateway.backends.stdio import Stdio
from gateway.backends.wire import Transport, Wrap
from gateway.egress.addresses import Reach
from gateway.models import Change
from gateway.routes import Route

MAX_EVENT = 2**20
"""Most bytes of one event of a ``subscriptions/listen`` stream."""


class _HttpOptions(TypedDict, total=False):
    headers: tuple[tuple[str, str], ...]
    max_connections: int
    max_response: int
    reach: Reach
    wrap: Wrap


class Connector:
    """Finds out the era once and keeps the ``link``, until it is told to ``forget``.

    ``max_response`` is in bytes, over what the route says. ``poke`` is called when a listing may be out of date,
    ``on_change`` when the backend says that something changed.
    """

    def __init__(
        self,
        route: Route,
        *,
        version: str,
        clock: Callable[[], float],
        poke: Callable[[], None],
        on_change: Callable[[Change], None],
        max_response: int,
        source: TokenSource | None = None,
    ) -> None:
        self.link: Link | None = None
        self._route = route
        self._version = version
        self._clock = clock
        self._poke = poke
        self._on_change = on_change
        self._max_response = max_response
        self._era = pinned(route.backend.era)
        self._reach: Reach = "anywhere" if route.backend.allow_link_local else "configured"
        self._source = source
        self._client: HttpClient | None = None
        self._streams: HttpClient | None = None
        self._pool: SessionPool | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> int:
        """Open sessions."""
        return self._pool.sessions if self._pool is not None else 0

    @property
    def parked(self) -> int:
        """Calls that wait for their client."""
        return self._pool.parked if self._pool is not None else 0

    async def connect(self) -> Link:
        """The link there is, or a new one.

        Raises:
            BackendUnavailable: the backend does not say what it speaks.
        """
        if self.link is None:
            if self._route.backend.command is not None:
                self.link = self._over_stdio(self._route.backend.command)
            else:
                self.link = await self._over_http(str(self._route.backend.url))
        return self.link

    def forget(self) -> None:
        """The backend speaks something else now: find out anew."""
        outdated, self.link, self._pool = self.link, None, None
        if outdated is not None:
            task = asyncio.create_task(outdated.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def sweep(self) -> None:
        """End idle sessions."""
        if self._pool is not None:
            self._pool.sweep()

    async def aclose(self) -> None:
        """End all connections and processes."""
        self.forget()
        while self._closing:
            await asyncio.wait(self._closing)
        for client in (self._client, self._streams):
            if client is not None:
                await client.aclose()
        if self._source is not None:
            await self._source.aclose()

    async def _over_http(self, url: str) -> Link:
        if self._era == "legacy" or self._route.backend.transport == "sse":
            return self._legacy(url)
        modern = self._modern(url)
        try:
            await modern.discover(self._route.effective.list_timeout)
        except NotModern:
            if self._era == "modern":
                raise because(link.unreachable(self._route.name), "it does not speak the modern era") from None
            return self._legacy(url)
        return modern

    def _modern(self, url: str) -> ModernLink:
        name, settings = self._route.name, self._route.effective
        if self._client is None:
            self._client = HttpClient(
                url,
                headers=self._credentials(),
                max_connections=settings.max_concurrency,
                max_response=min(settings.max_response, self._max_response),
                reach=self._reach,
            )
        if self._streams is None:
            self._streams = HttpClient(
                url, headers=self._credentials(), max_connections=2, max_response=MAX_EVENT, reach=self._reach
            )
        listener = Listener(
            name,
            self._spoken_by(self._streams).listen,
            on_change=self._on_change,
            on_gap=self._poke,
        )
        return ModernLink(name, self._spoken_by(self._client), listener)

    def _spoken_by(self, client: HttpClient) -> ModernHttp:
        name, version = self._route.name, self._version
        if self._source is None:
            return ModernHttp(client, route=name, version=version)
        return BearingHttp(client, self._source, route=name, version=version)

    def _legacy(self, url: str) -> Link:
        first, other = self._legacy_transports(url)
        dialer = Dialer(self._route.name, first, other=other, era="legacy", version=self._version, clock=self._clock)
        return self._pooled(dialer)

    def _legacy_transports(self, url: str) -> tuple[Transport, Transport | None]:
        """Streamable HTTP first, and where that is not served the transport before it (2025-11-25, ``transports``)."""
        settings = self._route.effective
        common: _HttpOptions = {
            "headers": self._credentials(),
            "max_connections": settings.max_concurrency,
            "max_response": min(settings.max_response, self._max_response),
            "reach": self._reach,
        }
        if self._source is not None:
            common["wrap"] = bearing(self._source)
        wanted = self._route.backend.transport
        if wanted == "streamable_http":
            return LegacyHttp(url, **common), None
        over_sse = LegacySse(self._route.name, url, **common)
        return (over_sse, None) if wanted == "sse" else (LegacyHttp(url, **common), over_sse)

    def _over_stdio(self, command: tuple[str, ...]) -> Link:
        backend = self._route.backend
        transport = Stdio(
            self._route.name,
            command,
            env=backend.env,
            cwd=backend.cwd,
            max_response=min(self._route.effective.max_response, self._max_response),
        )
        dialer = Dialer(
            self._route.name,
            transport,
            era=self._era,
            version=self._version,
            clock=self._clock,
            backoff=Backoff(0.2, 30.0),
        )
        return self._pooled(dialer)

    def _pooled(self, dialer: Dialer) -> Link:
        self._pool = SessionPool(
            self._route.name,
            dialer,
            mode=self._route.backend.session,
            clock=self._clock,
            on_list_changed=self._poke,
            on_change=self._on_change,
            on_lost=self._poke,
        )
        return self._pool

    def _credentials(self) -> tuple[tuple[str, str], ...]:
        credentials = self._route.backend.credentials
        return credentials.headers() if credentials is not None else ()
