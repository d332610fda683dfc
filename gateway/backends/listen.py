"""What a modern backend says has changed: one ``subscriptions/listen`` stream, open for as long as somebody cares.

Rules of this file
- The filter of a stream is fixed, so a larger one is opened before the smaller is closed (2026-07-28,
  ``basic/patterns/subscriptions``). A filter that is larger than needed is kept; what nobody wants is not told.
- A stream counts once it is acknowledged. There is no replay: after a time without a stream everything it would have
  told may have changed.
- A backend that does not serve the method is polled as all are, and asked again much later.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

from gateway.backends.backoff import Backoff
from gateway.backends.cause import cause_of
from gateway.errors import METHOD_NOT_FOUND, BackendUnavailable
from gateway.models import BackendReply, Change
from gateway.ports import Notify

logger = logging.getLogger(__name__)

IDLE = 420.0
"""Seconds of silence that a stream may have; comments that keep it alive are bytes too."""

RENEW = 1800.0
"""Seconds after which a stream is replaced, up to a quarter less by chance: its peer may be gone without a word."""

ACKNOWLEDGED_WITHIN = 10.0
SETTLED = 30.0
"""Seconds of life after which an end counts as the first again."""

CALM = 0.25
"""Seconds between two streams, however fast the wishes grow."""

ListKind = Literal["tools", "prompts", "resources"]
_LISTS: tuple[tuple[ListKind, str], ...] = (
    ("tools", "toolsListChanged"),
    ("prompts", "promptsListChanged"),
    ("resources", "resourcesListChanged"),
)
_CHANGED: Mapping[str, ListKind] = {f"notifications/{kind}/list_changed": kind for kind, _ in _LISTS}


class Open(Protocol):
    """Opens a stream and holds it: ``ModernHttp.listen``."""

    def __call__(
        self, wanted: Mapping[str, Any], notify: Notify, *, idle: float, longest: float
    ) -> Awaitable[BackendReply]:
        """Returns when the backend ends the stream."""
        ...


class Listener:
    """Keeps the stream. ``on_change`` is told what the backend says; ``on_gap`` that lists may have changed unsaid."""

    def __init__(
        self,
        route: str,
        opener: Open,
        *,
        on_change: Callable[[Change], None],
        on_gap: Callable[[], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._route = route
        self._opener = opener
        self._on_change = on_change
        self._on_gap = on_gap
        self._chance = chance
        self._lists: frozenset[ListKind] = frozenset()
        self._takes_uris = False
        self._uris: frozenset[str] = frozenset()
        self._stream: _Stream | None = None
        self._missed = False
        self._held_until = 0.0
        self._backoff = Backoff(0.5, 60.0, chance)
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None

    def watch(self, uris: frozenset[str]) -> None:
        """From now on these resources are wanted, and no others."""
        self._uris = uris
        self._wake.set()

    async def advertised(self, capabilities: Mapping[str, Any], seconds: float) -> None:
        """Listen to what a backend of these capabilities tells; waits at most ``seconds`` for the first stream."""
        lists = frozenset(kind for kind, _ in _LISTS if _has(capabilities, kind, "listChanged"))
        takes_uris = _has(capabilities, "resources", "subscribe")
        if (lists, takes_uris) != (self._lists, self._takes_uris):
            self._lists, self._takes_uris, self._held_until = lists, takes_uris, 0.0
            self._wake.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name=f"changes of {self._route}")
        if lists and not self._tried.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._tried.wait()
            except TimeoutError:
                self._missed = True

    async def aclose(self) -> None:
        """End the stream. Idempotent."""
        tasks = {*self._tasks, *([self._runner] if self._runner is not None else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            pause = await self._settle()
            self._tried.set()
            await self._next(pause)

    async def _next(self, pause: float) -> None:
        """Wait until there may be something to do."""
        await asyncio.sleep(min(pause, CALM))
        waker = asyncio.ensure_future(self._wake.wait())
        try:
            ends: set[asyncio.Future[Any]] = {waker} if self._stream is None else {waker, self._stream.task}
            await asyncio.wait(ends, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waker.cancel()

    async def _settle(self) -> float:
        """Bring the stream to what is wanted; gives the seconds after which to look again."""
        if self._stream is not None and self._stream.ended:
            self._lost(self._stream)
            self._stream = None
        stream = self._stream
        if not self._lists and not self._wanted_uris():
            if stream is not None:
                stream.close()
                self._stream = None
            return RENEW
        if stream is not None and stream.covers(self._lists, self._wanted_uris()) and stream.age < stream.renewed_at:
            return max(CALM, stream.renewed_at - stream.age)
        held = self._held_until - asyncio.get_running_loop().time()
        return held if held > 0 else await self._open(stream)

    async def _open(self, former: _Stream | None) -> float:
        fresh = _Stream(self._lists, self._wanted_uris(), self._told, RENEW * (1 - self._chance() / 4))
        fresh.start(self._opener, self._route)
        self._tasks.add(fresh.task)
        fresh.task.add_done_callback(self._tasks.discard)
        if not await fresh.ready(ACKNOWLEDGED_WITHIN):
            fresh.close()
            self._missed = self._missed or former is None
            return self._hold_off(fresh)
        self._stream = fresh
        if former is not None:
            former.close()
        self._caught_up(fresh, former)
        return max(CALM, fresh.renewed_at - fresh.age)

    def _hold_off(self, stream: _Stream) -> float:
        seconds = RENEW if stream.unserved else self._backoff.next()
        self._held_until = asyncio.get_running_loop().time() + seconds
        return seconds

    def _lost(self, stream: _Stream) -> None:
        self._missed = True
        if stream.age >= SETTLED:
            self._backoff.reset()
        self._hold_off(stream)
        self._on_gap()  # the backend may be gone

    def _caught_up(self, fresh: _Stream, former: _Stream | None) -> None:
        """Tell what may have changed while nobody told us."""
        missed, self._missed = self._missed, False
        if missed:
            self._on_gap()
        known = frozenset() if missed or former is None else former.uris
        for uri in sorted(fresh.uris - known):
            self._told(fresh, "notifications/resources/updated", {"uri": uri})

    def _told(self, stream: _Stream, method: str, params: Mapping[str, Any]) -> None:
        if method in _CHANGED and _CHANGED[method] in stream.lists:
            self._on_change(Change(self._route, _CHANGED[method]))
        elif method == "notifications/resources/updated" and self._uris:
            uri = params.get("uri")
            if isinstance(uri, str) and (uri in self._uris or uri not in stream.uris):  # else it was wanted once
                self._on_change(Change(self._route, "resource", uri))

    def _wanted_uris(self) -> frozenset[str]:
        return self._uris if self._takes_uris else frozenset()


class _Stream:
    """One ``subscriptions/listen`` request, to be replaced at the age of ``renewed_at`` seconds."""

    def __init__(
        self,
        lists: frozenset[ListKind],
        uris: frozenset[str],
        told: Callable[[_Stream, str, Mapping[str, Any]], None],
        renewed_at: float,
    ) -> None:
        self.lists = lists
        self.uris = uris
        self.unserved = False
        self.renewed_at = renewed_at
        self.task: asyncio.Task[None]
        self._told = told
        self._acknowledged = asyncio.Event()
        self._born = asyncio.get_running_loop().time()

    @property
    def age(self) -> float:
        """Seconds since it was asked for."""
        return asyncio.get_running_loop().time() - self._born

    @property
    def ended(self) -> bool:
        """No more comes."""
        return self.task.done()

    def covers(self, lists: frozenset[ListKind], uris: frozenset[str]) -> bool:
        """Whether it tells all of this."""
        return lists <= self.lists and uris <= self.uris

    def start(self, opener: Open, route: str) -> None:
        """Ask for it."""
        self.task = asyncio.create_task(self._hold(opener, route), name=f"listen to {route}")

    async def ready(self, seconds: float) -> bool:
        """Whether it is acknowledged within ``seconds``."""
        waiter = asyncio.ensure_future(self._acknowledged.wait())
        try:
            await asyncio.wait({waiter, self.task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        return self._acknowledged.is_set() and not self.ended

    def close(self) -> None:
        """End it; closing is cancelling in this era."""
        self.task.cancel()

    async def _hold(self, opener: Open, route: str) -> None:
        try:
            reply = await opener(self._filter(), self._notified, idle=IDLE, longest=RENEW * 2)
        except BackendUnavailable as failure:
            logger.debug("the listen stream of %s ended: %s", route, cause_of(failure))
            return
        self.unserved = reply.error is not None and reply.error.get("code") == METHOD_NOT_FOUND

    def _filter(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {member: True for kind, member in _LISTS if kind in self.lists}
        if self.uris:
            wanted["resourceSubscriptions"] = sorted(self.uris)
        return wanted

    def _notified(self, method: str, params: Mapping[str, Any]) -> None:
        if method == "notifications/subscriptions/acknowledged":
            self._acknowledged.set()
        elif self._acknowledged.is_set() and not self.ended:
            self._told(self, method, params)


def _has(capabilities: Mapping[str, Any], feature: str, sub: str) -> bool:
    declared = capabilities.get(feature)
    return isinstance(declared, dict) and declared.get(sub) is True
