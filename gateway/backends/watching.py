"""Keeps a session of the gateway's own subscribed to what is watched, over all reconnections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.backends.listing import NotOffered
from gateway.backends.session import Session
from gateway.errors import BackendUnavailable

logger = logging.getLogger(__name__)

_STEP = 5.0
"""Seconds for one subscription."""


class Watcher:
    """``connect`` gives the session to watch with; ``on_gap`` is called when changes may have been missed.

    ``retry`` is in seconds.
    """

    def __init__(
        self, route: str, connect: Callable[[], Awaitable[Session]], on_gap: Callable[[], None], *, retry: float = 1.0
    ) -> None:
        self._route = route
        self._connect = connect
        self._on_gap = on_gap
        self._retry = retry
        self._wanted: frozenset[str] | None = None
        self._held: frozenset[str] | None = None
        self._session: Session | None = None
        self._listening: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether it needs its session."""
        return bool(self._wanted)

    def watch(self, uris: frozenset[str]) -> None:
        """Be subscribed to exactly these resources, and to the lists where that takes a subscription."""
        if uris == self._wanted:
            return
        self._wanted = uris
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"subscriptions of {self._route}")
        self._stirred.set()

    def stir(self) -> None:
        """The session has ended: look after what was subscribed in it."""
        self._stirred.set()

    async def aclose(self) -> None:
        """End. Idempotent."""
        tasks = {task for task in (self._task, self._listening) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            try:
                await self._follow(await self._connect())
            except BackendUnavailable as failure:
                self._later(failure.retry_after or 0.0)

    def _later(self, seconds: float = 0.0) -> None:
        asyncio.get_running_loop().call_later(max(self._retry, seconds), self._stirred.set)

    async def _follow(self, session: Session) -> None:
        if session is not self._session:
            if self._session is not None:
                self._on_gap()
            self._session, self._held = session, None
        wanted = self._wanted or frozenset()
        if wanted == self._held:
            return
        if session.greeting.era == "modern":
            await self._listen(session, wanted)
        else:
            await self._subscribe(session, wanted, self._held or frozenset())
        self._held = wanted

    async def _subscribe(self, session: Session, wanted: frozenset[str], held: frozenset[str]) -> None:
        resources = session.greeting.capabilities.get("resources")
        if not isinstance(resources, dict) or not resources.get("subscribe"):
            return
        steps = [("resources/subscribe", uri) for uri in sorted(wanted - held)]
        steps += [("resources/unsubscribe", uri) for uri in sorted(held - wanted)]
        for method, uri in steps:
            try:
                await session.ask(method, {"uri": uri}, _STEP)
            except BackendUnavailable:
                if not session.alive:
                    raise
                logger.debug("%s refuses %s", self._route, method)

    async def _listen(self, session: Session, wanted: frozenset[str]) -> None:
        before, acknowledged = self._listening, asyncio.Event()
        self._listening = asyncio.create_task(self._listen_until_it_ends(session, wanted, acknowledged))
        if before is None:
            return
        # The new one first, so that nothing is missed between them.
        waiting = asyncio.create_task(acknowledged.wait())
        await asyncio.wait({waiting, self._listening}, timeout=_STEP, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        before.cancel()

    async def _listen_until_it_ends(
        self, session: Session, wanted: frozenset[str], acknowledged: asyncio.Event
    ) -> None:
        try:
            await session.listen(wanted, acknowledged)
        except NotOffered:
            return
        except BackendUnavailable as failure:
            logger.debug("%s does not listen any more: %s", self._route, failure.outcome)
        if self._session is session and session.alive:
            self._session = self._held = None
            self._on_gap()
        self._later()
