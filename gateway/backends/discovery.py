"""Keeps what is known of a backend's offer fresh: at the start, every so often, and when it says that it changed.

A failure never empties anything: the last listing is kept until there is a new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from gateway.backends.backoff import Backoff
from gateway.backends.cause import cause_of
from gateway.errors import BackendUnavailable
from gateway.models import Listing

logger = logging.getLogger(__name__)

CALM = 1.0
"""Seconds between two refreshes, however often a backend says that it changed."""

LONG_CALM = 30.0
"""The same for one that has changed ``CHANGES`` times in a row; each such time that passes gives one of them back.

Every change is built, compared, recorded and told to clients, so that a backend that flaps would cost everybody.
"""

CHANGES = 20


class Discovery:
    """Calls ``fetch`` and tells ``on_listing`` when the contents differ from the last, then ``on_fresh`` in any case.

    ``refresh`` is in seconds; each round takes up to a tenth less by ``chance``. ``clock`` gives seconds.
    """

    def __init__(
        self,
        route: str,
        fetch: Callable[[], Awaitable[Listing]],
        on_listing: Callable[[Listing], None],
        *,
        refresh: float,
        on_fresh: Callable[[], None] = lambda: None,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.listing: Listing | None = None
        self.up = False
        self.tried = asyncio.Event()
        self._route = route
        self._fetch = fetch
        self._on_listing = on_listing
        self._refresh = refresh
        self._on_fresh = on_fresh
        self._chance = chance
        self._backoff = Backoff(0.2, 30.0, chance)
        self._clock = clock
        self._calm_again = float("-inf")
        self._poked = asyncio.Event()
        self._running: asyncio.Task[float] | None = None

    @property
    def calm(self) -> float:
        """Seconds until the next refresh at the earliest."""
        return LONG_CALM if self._calm_again - self._clock() > (CHANGES - 1) * LONG_CALM else CALM

    def poke(self) -> None:
        """Refresh soon: something changed, or the connection was lost."""
        self._poked.set()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            pause = await self.now()
            calm = min(pause, self.calm)
            await asyncio.sleep(calm)
            try:
                async with asyncio.timeout(pause - calm):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def now(self) -> float:
        """Refresh, or wait for the refresh under way; never raises. Gives the seconds until the next is due."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._once(), name=f"listing of {self._route}")
        return await asyncio.shield(self._running)

    async def aclose(self) -> None:
        """End a refresh under way."""
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _once(self) -> float:
        self._poked.clear()
        try:
            listing = await self._fetch()
        except BackendUnavailable as failure:
            if self.up or not self.tried.is_set():
                cause = cause_of(failure)
                logger.warning("%s cannot be listed: %s (%s); %s", self._route, failure.outcome, cause, self._kept())
            self.up = False
            return max(self._backoff.next(), failure.retry_after or 0.0)
        finally:
            self.tried.set()
        self.up = True
        self._backoff.reset()
        self._take(listing)
        self._on_fresh()
        return self._refresh * (1 - self._chance() / 10)

    def _take(self, listing: Listing) -> None:
        last, self.listing = self.listing, listing
        if last is None or _contents(last) != _contents(listing):
            logger.info(
                "%s offers %d tools, %d prompts, %d resources, %d templates",
                self._route,
                len(listing.tools),
                len(listing.prompts),
                len(listing.resources),
                len(listing.templates),
            )
            if last is not None:
                self._calm_again = max(self._calm_again, self._clock()) + LONG_CALM
            self._on_listing(listing)

    def _kept(self) -> str:
        return "it has no listing yet" if self.listing is None else "its last listing is kept"


def _contents(listing: Listing) -> tuple[object, ...]:
    lists = listing.tools, listing.prompts, listing.resources, listing.templates
    return lists, listing.capabilities, listing.server_info
