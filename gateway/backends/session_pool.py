"""The sessions with one backend: who shares one, how many there are, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from gateway.backends import link, questions
from gateway.backends.asks import ASKING_METHODS
from gateway.backends.dialer import Dialer
from gateway.backends.listing import offer_of
from gateway.backends.parking import Parking
from gateway.backends.running import Running
from gateway.backends.session import Hooks, Session
from gateway.backends.verdict import NOBODY
from gateway.backends.watching import Watcher
from gateway.models import BackendReply, BackendRequest, Change, Era, Principal
from gateway.ports import Notify

Mode = Literal["shared", "principal", "client"]
_Key = tuple[str | int | None, ...]

_OWN: _Key = ("", 0)
"""The session of the gateway itself, and of everybody where it is shared by clients that cannot be asked."""

_ALONE = 8
"""Sessions of one key at most, where each call that may be asked has one for itself."""


def _unheard(change: Change) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Bounds:
    """At most ``sessions`` are open, and none that was not used for ``idle`` seconds; at most ``parked`` calls wait
    for the answers of their clients, for ``answer`` seconds each.
    """

    sessions: int = 256
    idle: float = 600.0
    parked: int = 1_000
    answer: float = 600.0


_BOUNDS = Bounds()


class SessionPool:
    """Implements ``link.Link``. Sessions are opened when they are first needed, once for all who wait.

    A session is for one ``mode`` of sharing and one profile of what clients can be asked. ``on_list_changed``,
    ``on_change`` and ``on_lost`` are called for the session that listings come from.
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
        on_change: Callable[[Change], None] = _unheard,
        bounds: Bounds = _BOUNDS,
    ) -> None:
        self._route = route
        self._dialer = dialer
        self._mode = mode
        self._clock = clock
        self._on_list_changed = on_list_changed
        self._on_change = on_change
        self._on_lost = on_lost
        self._bounds = bounds
        self._slots: dict[_Key, _Slot] = {}
        self._sessions: set[Session] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._unclear = False
        self._parking = Parking(route, clock=clock, ttl=bounds.answer, limit=bounds.parked)
        self._watcher = Watcher(route, lambda: self._session(_OWN, {}), self._missed)

    @property
    def era(self) -> Era:
        """Of the backend, as it was found."""
        return self._dialer.era

    @property
    def sessions(self) -> int:
        """How many are open or being opened."""
        return len(self._slots)

    @property
    def parked(self) -> int:
        """Calls whose clients are being asked."""
        return len(self._parking)

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """See ``link.Link``. Repeated once when the backend has forgotten the session, for then it did nothing."""
        if not self._dialer.settled:
            await self._within(_OWN, {}, request.timeout)
        if self.era == "modern":
            return questions.checked(self._route, request, await self._send(Running(request, notify)))
        if request.state is not None:
            reply = await self._parking.resume(request, notify, self.request)
        elif request.method in ASKING_METHODS and questions.profile_of(request.capabilities):
            reply = await self._parking.carry(Running(request, notify, may_ask=True), self._send)
        else:
            reply = await self._send(Running(request, notify))
        if reply.error is None:
            return reply
        return BackendReply(None, questions.modern_error(reply.error), reply.seconds, reply.undeclared)

    async def offer(self, seconds: float) -> link.Offer:
        """See ``link.Link``."""
        session = await self._session(_OWN, {})
        try:
            return await self._offer(session, seconds)
        except link.SessionEnded:
            return await self._offer(await self._session(_OWN, {}), seconds)

    def watch(self, uris: frozenset[str]) -> None:
        """See ``link.Link``."""
        if not self._closed:
            self._watcher.watch(uris)

    def sweep(self) -> None:
        """End the sessions that nobody has used for long, and the calls whose clients did not come back."""
        self._parking.sweep()
        for slot in list(self._slots.values()):
            if slot.idle_for(self._clock()) >= self._bounds.idle and not self._watches(slot):
                self._drop(slot)

    async def aclose(self) -> None:
        """See ``link.Link``."""
        self._closed = True
        await self._watcher.aclose()
        await self._parking.aclose()
        for slot in list(self._slots.values()):
            slot.opening.cancel()
            self._forget(slot)
        for session in self._sessions:
            self._spawn(session.aclose())
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._dialer.aclose()

    async def _send(self, running: Running) -> BackendReply:
        request = running.request
        profile = questions.profile_of(request.capabilities) if self.era == "legacy" else {}
        key = self._choose((questions.canonical(profile), *self._owner(request.principal)), alone=running.may_ask)
        session = await self._within(key, profile, request.timeout, request.principal)
        try:
            return await session.request(running)
        except link.SessionEnded:
            session = await self._within(key, profile, request.timeout, request.principal)
            return await session.request(running)

    async def _offer(self, session: Session, seconds: float) -> link.Offer:
        greeting = session.greeting
        offer = await offer_of(self._route, greeting.capabilities, greeting.server_info, session.ask, seconds)
        return offer if greeting.era == "modern" else without_tasks(offer)

    def _owner(self, principal: Principal) -> tuple[str | None, ...]:
        if self._mode == "shared":
            return ()
        if self._mode == "principal":
            return (principal.issuer, principal.subject)
        return (principal.issuer, principal.subject, principal.client_id)

    def _choose(self, whose: _Key, *, alone: bool) -> _Key:
        """The first session, or one without a call if this backend asks without saying in which call."""
        keys = [(*whose, number) for number in range(_ALONE if alone and self._unclear else 1)]
        return next((key for key in keys if key not in self._slots or self._slots[key].free), keys[0])

    async def _within(
        self, key: _Key, profile: Mapping[str, Any], seconds: float, principal: Principal = NOBODY
    ) -> Session:
        slot = self._slots.get(key)
        if slot is not None and slot.session is not None and slot.session.alive:
            return slot.session
        try:
            async with asyncio.timeout(seconds):
                return await self._session(key, profile, principal)
        except TimeoutError:
            raise link.unreachable(self._route) from None

    async def _session(self, key: _Key, profile: Mapping[str, Any], principal: Principal = NOBODY) -> Session:
        slot = self._slots.get(key)
        if slot is not None and slot.dead:
            # It ends by itself with the calls that it still carries.
            self._lost(slot)
            slot = None
        if slot is None:
            slot = self._open(key, profile, principal)
        # One who leaves does not take the session from the others that wait for it.
        return slot.session if slot.session is not None else await asyncio.shield(slot.opening)

    def _open(self, key: _Key, profile: Mapping[str, Any], principal: Principal) -> _Slot:
        if self._closed:
            raise link.unreachable(self._route)
        if len(self._slots) >= self._bounds.sessions:
            self._make_room()
        slot = _Slot(key, self._clock())
        slot.opening = self._spawn(self._connect(slot, profile, principal))
        self._slots[key] = slot
        return slot

    async def _connect(self, slot: _Slot, profile: Mapping[str, Any], principal: Principal) -> Session:
        try:
            session = await self._dialer.connect(self._hooks(slot), profile, principal)
            slot.session = session
            self._sessions.add(session)
        finally:
            if slot.session is None:
                self._forget(slot)
        return session

    def _hooks(self, slot: _Slot) -> Hooks:
        def ended(session: Session) -> None:
            self._ended(slot, session)

        if slot.key == _OWN:
            return Hooks(ended, on_change=self._changed, on_gap=self._missed, on_unclear=self._on_unclear)
        return Hooks(ended, on_unclear=self._on_unclear)

    def _on_unclear(self) -> None:
        self._unclear = True

    def _changed(self, kind: Any, uri: str) -> None:
        if kind != "resource":
            self._on_list_changed()
        self._on_change(Change(self._route, kind, uri))

    def _missed(self) -> None:
        for kind in ("tools", "prompts", "resources"):
            self._changed(kind, "")

    def _watches(self, slot: _Slot) -> bool:
        return slot.key == _OWN and self._watcher.busy

    def _make_room(self) -> None:
        now = self._clock()
        candidates = [slot for slot in self._slots.values() if not self._watches(slot)]
        slot = max(candidates, key=lambda candidate: candidate.idle_for(now), default=None)
        if slot is None or slot.idle_for(now) <= 0:
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
            self._watcher.stir()
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

    @property
    def free(self) -> bool:
        """Nobody waits for it, and it carries no call."""
        return self.session is not None and not self.session.running

    def idle_for(self, now: float) -> float:
        """Seconds without a call; 0 while there is one, or it is being opened."""
        if self.session is None or self.session.running:
            return 0.0
        return now - self.session.used


def without_tasks(offer: link.Offer) -> link.Offer:
    """Without the tools that run only as tasks of 2025-11-25, and without that word in the others."""
    tools = tuple(
        {name: value for name, value in tool.items() if name != "execution"}
        for tool in offer.tools
        if not _is_task(tool.get("execution"))
    )
    return replace(offer, tools=tools)


def _is_task(execution: Any) -> bool:
    return isinstance(execution, dict) and execution.get("taskSupport") == "required"
