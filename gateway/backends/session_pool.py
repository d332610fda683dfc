"""The sessions with one backend: who shares one, how many there are, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from gateway.backends import link
from gateway.backends.dialer import Dialer
from gateway.backends.listing import tools_of
from gateway.backends.session import Session
from gateway.models import BackendReply, BackendRequest, Era, Principal
from gateway.ports import Notify

Mode = Literal["shared", "principal", "client"]
_Key = tuple[str | None, ...]

_OWN: _Key = ()
"""The session of the gateway itself, and of everybody where it is shared."""


class SessionPool:
    """Implements ``link.Link``. Sessions are opened when they are first needed, once for all who wait.

    ``mode`` says whose calls share a session. At most ``limit`` sessions are open, and none that was not used for
    ``idle`` seconds. ``on_list_changed`` and ``on_lost`` are called for the session that listings come from.
    """

    def __init__(
        self,
        route: str,
        dialer: Dialer,
        *,
        mode: Mode,
        clock: Callable[[], float],
        on_list_changed: Callable[[], None],
        on_lost: Callable[[], None],
        limit: int = 256,
        idle: float = 600.0,
    ) -> None:
        self._route = route
        self._dialer = dialer
        self._mode = mode
        self._clock = clock
        self._on_list_changed = on_list_changed
        self._on_lost = on_lost
        self._limit = limit
        self._idle = idle
        self._slots: dict[_Key, _Slot] = {}
        self._sessions: set[Session] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def era(self) -> Era:
        """Of the backend, as it was found."""
        return self._dialer.era

    @property
    def sessions(self) -> int:
        """How many are open or being opened."""
        return len(self._slots)

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """See ``link.Link``. Repeated once when the backend has forgotten the session, for then it did nothing."""
        key = self._key(request.principal)
        session = await self._within(key, request.timeout)
        try:
            return await session.request(request, notify)
        except link.SessionEnded:
            session = await self._within(key, request.timeout)
            return await session.request(request, notify)

    async def offer(self, seconds: float) -> link.Offer:
        """See ``link.Link``."""
        session = await self._session(_OWN)
        try:
            return await self._offer(session, seconds)
        except link.SessionEnded:
            return await self._offer(await self._session(_OWN), seconds)

    def sweep(self) -> None:
        """End the sessions that nobody has used for long."""
        for slot in list(self._slots.values()):
            if slot.idle_for(self._clock()) >= self._idle:
                self._drop(slot)

    async def aclose(self) -> None:
        """See ``link.Link``."""
        self._closed = True
        for slot in list(self._slots.values()):
            slot.opening.cancel()
            self._forget(slot)
        for session in self._sessions:
            self._spawn(session.aclose())
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._dialer.aclose()

    async def _offer(self, session: Session, seconds: float) -> link.Offer:
        tools = await tools_of(self._route, session.greeting.capabilities, session.ask, seconds)
        return link.Offer(tools, session.greeting.capabilities, session.greeting.server_info)

    def _key(self, principal: Principal) -> _Key:
        if self._mode == "shared":
            return _OWN
        if self._mode == "principal":
            return (principal.issuer, principal.subject)
        return (principal.issuer, principal.subject, principal.client_id)

    async def _within(self, key: _Key, seconds: float) -> Session:
        slot = self._slots.get(key)
        if slot is not None and slot.session is not None and slot.session.alive:
            return slot.session
        try:
            async with asyncio.timeout(seconds):
                return await self._session(key)
        except TimeoutError:
            raise link.unreachable(self._route) from None

    async def _session(self, key: _Key) -> Session:
        slot = self._slots.get(key)
        if slot is not None and slot.dead:
            # It ends by itself with the calls that it still carries.
            self._lost(slot)
            slot = None
        if slot is None:
            slot = self._open(key)
        # One who leaves does not take the session from the others that wait for it.
        return slot.session if slot.session is not None else await asyncio.shield(slot.opening)

    def _open(self, key: _Key) -> _Slot:
        if self._closed:
            raise link.unreachable(self._route)
        if len(self._slots) >= self._limit:
            self._make_room()
        slot = _Slot(key, self._clock())
        slot.opening = self._spawn(self._connect(slot))
        self._slots[key] = slot
        return slot

    async def _connect(self, slot: _Slot) -> Session:
        try:
            session = await self._dialer.connect(self._list_changed(slot), lambda ended: self._ended(slot, ended))
            slot.session = session
            self._sessions.add(session)
        finally:
            if slot.session is None:
                self._forget(slot)
        return session

    def _list_changed(self, slot: _Slot) -> Callable[[], None]:
        return self._on_list_changed if slot.key == _OWN else _nothing

    def _make_room(self) -> None:
        now = self._clock()
        slot = max(self._slots.values(), key=lambda candidate: candidate.idle_for(now))
        if slot.idle_for(now) <= 0:
            raise link.busy(self._route)
        self._drop(slot)

    def _ended(self, slot: _Slot, session: Session) -> None:
        self._sessions.discard(session)
        if slot.session is session:
            self._lost(slot)

    def _lost(self, slot: _Slot) -> None:
        if not self._forget(slot):
            return
        self._dialer.lost(self._clock() - slot.born)
        if slot.key == _OWN:
            self._on_lost()

    def _forget(self, slot: _Slot) -> bool:
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            return True
        return False

    def _drop(self, slot: _Slot) -> None:
        self._forget(slot)
        if slot.session is not None:
            self._spawn(slot.session.aclose())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever waits is told; when nobody does any more, nobody needs to be.
            task.exception()


class _Slot:
    __slots__ = ("born", "key", "opening", "session")

    def __init__(self, key: _Key, born: float) -> None:
        self.key = key
        self.born = born
        self.session: Session | None = None
        self.opening: asyncio.Task[Session]

    @property
    def dead(self) -> bool:
        """Its session was open and is no more."""
        return self.session is not None and not self.session.alive

    def idle_for(self, now: float) -> float:
        """Seconds without a call; 0 while there is one, or it is being opened."""
        if self.session is None or self.session.running:
            return 0.0
        return now - self.session.used


def _nothing() -> None:
    return None
