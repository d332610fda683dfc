"""Opens sessions with one backend, in the era it speaks, and not faster than it survives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.backends import link, verdict
from gateway.backends.backoff import Backoff
from gateway.backends.greeting import Hello
from gateway.backends.session import Hooks, Session
from gateway.backends.wire import Transport
from gateway.errors import BackendUnavailable
from gateway.models import Era, Principal

SETTLED = 30.0
"""Seconds of life after which an end counts as the first again."""


class Dialer:
    """``era`` None finds out, and remembers. ``backoff`` holds off after a failure; None where connecting is cheap.

    ``other`` is a transport to try where the first greeting was refused; of the two, the one that was taken last is
    used first. ``clock`` is in monotonic seconds.
    """

    def __init__(
        self,
        route: str,
        transport: Transport,
        *,
        other: Transport | None = None,
        era: Era | None,
        version: str,
        clock: Callable[[], float],
        backoff: Backoff | None = None,
    ) -> None:
        self._route = route
        self._transport = transport
        self._other = other
        self._pinned = era
        self._era = era
        self._version = version
        self._clock = clock
        self._backoff = backoff
        self._not_before = 0.0

    @property
    def era(self) -> Era:
        """What the backend was found to speak; legacy until then."""
        return self._era or "legacy"

    @property
    def settled(self) -> bool:
        """Whether the era is known."""
        return self._era is not None

    async def connect(
        self, hooks: Hooks, capabilities: Mapping[str, Any], principal: Principal = verdict.NOBODY
    ) -> Session:
        """A session for ``principal`` that is ready; a legacy backend is told of ``capabilities``.

        Raises:
            BackendUnavailable: there is none to be had; ``retry_after`` is set while it is held off.
        """
        wait = self._not_before - self._clock()
        if wait > 0:
            raise link.unreachable(self._route, retry_after=wait)
        try:
            session = await self._connect(hooks, capabilities, principal)
        except BackendUnavailable:
            self._hold_off()
            raise
        self._era = session.greeting.era
        return session

    def lost(self, age: float) -> None:
        """A session has ended by itself after ``age`` seconds."""
        if self._backoff is not None and age >= SETTLED:
            self._backoff.reset()
        self._hold_off()

    async def aclose(self) -> None:
        """Release what all sessions share."""
        for transport in (self._transport, self._other):
            if transport is not None:
                await transport.aclose()

    def _hold_off(self) -> None:
        if self._backoff is not None:
            self._not_before = self._clock() + self._backoff.next()

    async def _connect(self, hooks: Hooks, capabilities: Mapping[str, Any], principal: Principal) -> Session:
        used, other = self._transport, self._other
        try:
            return await self._connect_over(used.on_behalf(principal), hooks, capabilities)
        except link.HandshakeRefused as refusal:
            if other is None:
                raise
            try:
                session = await self._connect_over(other.on_behalf(principal), hooks, capabilities)
            except BackendUnavailable:
                raise refusal from None
            self._transport, self._other = other, used
            return session

    async def _connect_over(self, transport: Transport, hooks: Hooks, capabilities: Mapping[str, Any]) -> Session:
        first = self._era

        async def attempt(era: Era | None) -> Session:
            hello = Hello(self._route, era, self._version, capabilities=capabilities)
            session = Session(self._route, transport, hello, hooks)
            await session.start()
            return session

        try:
            return await attempt(first)
        except link.WrongEra:
            if self._pinned is not None:
                raise
            # Asked for the one era it may have ended; remembered as the other it may have been replaced.
            self._era = None
            return await attempt("legacy" if first is None else None)
