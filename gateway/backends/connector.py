"""From what a route says to a link with its backend, in the era it speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.backends import link
from gateway.backends.backoff import Backoff
from gateway.backends.dialer import Dialer
from gateway.backends.http1 import HttpClient
from gateway.backends.legacy_http import LegacyHttp
from gateway.backends.link import Link
from gateway.backends.modern import ModernHttp, NotModern
from gateway.backends.probe import pinned, server_info_of
from gateway.backends.session_pool import SessionPool
from gateway.backends.stdio import Stdio
from gateway.models import BackendReply, BackendRequest, Era, JsonObject
from gateway.ports import Notify
from gateway.routes import Route


class Connector:
    """Finds out the era once and keeps the ``link``, until it is told to ``forget``.

    ``poke`` is called when a listing may be out of date.
    """

    def __init__(self, route: Route, *, version: str, clock: Callable[[], float], poke: Callable[[], None]) -> None:
        self.link: Link | None = None
        self._route = route
        self._version = version
        self._clock = clock
        self._poke = poke
        self._era = pinned(route.backend.era)
        self._client: HttpClient | None = None
        self._pool: SessionPool | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> int:
        """Open sessions."""
        return self._pool.sessions if self._pool is not None else 0

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
        if self._client is not None:
            await self._client.aclose()

    async def _over_http(self, url: str) -> Link:
        if self._era == "legacy":
            return self._legacy(url)
        modern = ModernLink(
            self._route.name, ModernHttp(self._http(url), route=self._route.name, version=self._version)
        )
        try:
            await modern.discover(self._route.effective.list_timeout)
        except NotModern:
            if self._era == "modern":
                raise link.unreachable(self._route.name) from None
            return self._legacy(url)
        return modern

    def _http(self, url: str) -> HttpClient:
        if self._client is None:
            settings = self._route.effective
            self._client = HttpClient(
                url,
                headers=self._credentials(),
                max_connections=settings.max_concurrency,
                max_response=settings.max_response,
            )
        return self._client

    def _legacy(self, url: str) -> Link:
        settings = self._route.effective
        transport = LegacyHttp(
            url,
            headers=self._credentials(),
            max_connections=settings.max_concurrency,
            max_response=settings.max_response,
        )
        dialer = Dialer(self._route.name, transport, era="legacy", version=self._version, clock=self._clock)
        return self._pooled(dialer)

    def _over_stdio(self, command: tuple[str, ...]) -> Link:
        backend = self._route.backend
        transport = Stdio(
            self._route.name,
            command,
            env=backend.env,
            cwd=backend.cwd,
            max_response=self._route.effective.max_response,
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
            on_lost=self._poke,
        )
        return self._pool

    def _credentials(self) -> tuple[tuple[str, str], ...]:
        credentials = self._route.backend.credentials
        return credentials.headers() if credentials is not None else ()


class ModernLink:
    """The modern era over HTTP; implements ``link.Link``."""

    era: Era = "modern"

    def __init__(self, route: str, http: ModernHttp) -> None:
        self._route = route
        self._http = http
        self._found: JsonObject | None = None

    async def discover(self, seconds: float) -> None:
        """Ask whether the backend is modern.

        Raises:
            NotModern: it is not.
            BackendUnavailable: nothing is known.
        """
        self._found = await self._http.discover(seconds)

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """See ``link.Link``."""
        return await self._http.request(request, notify)

    async def offer(self, seconds: float) -> link.Offer:
        """See ``link.Link``."""
        found, self._found = self._found, None
        try:
            about = found if found is not None else await self._http.discover(seconds)
        except NotModern:
            raise link.wrong_era(self._route) from None
        capabilities = about.get("capabilities")
        capabilities = capabilities if isinstance(capabilities, dict) else {}
        tools = await self._http.list_all("tools/list", "tools", seconds) if "tools" in capabilities else []
        return link.Offer(tuple(tools), capabilities, server_info_of(about))

    async def aclose(self) -> None:
        """See ``link.Link``. The client outlives it."""
