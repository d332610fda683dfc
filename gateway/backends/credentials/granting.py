"""A token for each principal, by the grant that it gave in a browser (OAuth authorization code)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.backends import link
from gateway.backends.cause import because
from gateway.backends.credentials import forms
from gateway.backends.credentials.endpoint import SECONDS, TokenEndpoint
from gateway.backends.credentials.grants import RENEWING, Grant, Grants
from gateway.backends.credentials.keeping import RENEWALS
from gateway.backends.credentials.source import TokenSource
from gateway.backends.credentials.tokens import Token, TokenRefusedError
from gateway.egress.documents import UnusableError
from gateway.models import Principal
from gateway.protocol.sealing import owner_of
from gateway.vault import VaultAway

EARLY = 30.0
"""Seconds before its end at which a token is renewed."""

REMEMBERED = 30.0
"""Seconds that a grant is used before it is looked at again: another replica may have renewed it."""

POLL = 0.1
"""Seconds between two looks at whether another replica has renewed a grant that cannot be used meanwhile."""

MOST = 10_000

_ENDED = "invalid_grant"
"""The one error code that means that a grant is over (RFC 6749 section 5.2); others are about the gateway, or pass."""


@dataclass(slots=True)
class _Held:
    """What is known of one principal's grant; ``bad`` is a token that the backend did not accept."""

    grant: Grant | None = None
    until: float = 0.0
    bad: str = ""
    renewed_at: float = float("-inf")
    running: asyncio.Task[Grant] | None = None


class GrantTokens:
    """Implements ``source.TokenSource``.

    Args:
        route: whose backend it is.
        endpoint: where grants are renewed.
        own: tokens for the gateway itself.
        grants: those that were given.
        now: seconds since the epoch.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        route: str,
        endpoint: TokenEndpoint,
        own: TokenSource,
        grants: Grants,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.endpoint = endpoint
        self._route = route
        self._place = f"{route} {endpoint.backend}"
        self._own = own
        self._grants = grants
        self._now = now
        self._sleep = sleep
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def token(self, principal: Principal) -> str:
        """See ``TokenSource``.

        Raises:
            NotConnected: the principal has given no grant, or took it back.
        """
        if not principal.issuer:
            return await self._own.token(principal)
        held = self._of(principal)
        now = self._now()
        grant = held.grant
        if grant is not None and now < held.until and grant.access_token != held.bad:
            return grant.access_token
        if held.running is None:
            held.running = asyncio.create_task(self._present(principal, held), name=f"grant for {self._route}")
            held.running.add_done_callback(_heard)
        return (await asyncio.shield(held.running)).access_token

    def refused(self, principal: Principal, token: str) -> bool:
        """See ``TokenSource``."""
        if not principal.issuer:
            return self._own.refused(principal, token)
        held = self._of(principal)
        if held.grant is not None and held.grant.access_token == token:
            held.bad = token
        return self._now() >= held.renewed_at + RENEWALS

    def denied(self, principal: Principal, status: int) -> link.NoCredentials | None:
        """See ``TokenSource``."""
        if not principal.issuer:
            return None
        return because(link.principal_not_admitted(self._route), f"HTTP status {status}")

    async def keep(self, principal: Principal, token: Token, server: str) -> None:
        """Use from now on what ``server`` gave for a principal.

        Raises:
            VaultAway: it is not kept.
        """
        await self._grants.keep(self._place, principal, token, server)
        self._held.pop(owner_of(principal), None)

    async def aclose(self) -> None:
        """See ``TokenSource``. What is being renewed is waited for: its former refresh token may be of no more use."""
        running = [held.running for held in self._held.values() if held.running is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=SECONDS)
            for task in late:
                task.cancel()
        await self._own.aclose()
        await self.endpoint.aclose()

    def _of(self, principal: Principal) -> _Held:
        owner = owner_of(principal)
        held = self._held.get(owner)
        if held is None:
            held = self._held[owner] = _Held()
            if len(self._held) > MOST:
                self._held.popitem(last=False)
        self._held.move_to_end(owner)
        return held

    async def _present(self, principal: Principal, held: _Held) -> Grant:
        """The grant, renewed if it is about to end or is not accepted any more."""
        try:
            grant = await self._grants.get(self._place, principal)
            if grant is None:
                raise link.not_connected(self._route)
            if grant.access_token == held.bad or self._now() >= grant.expires_at - EARLY:
                grant = await self._renewed(principal, held, grant)
        except VaultAway:
            raise because(link.no_token(self._route), "grants cannot be read: Redis is away") from None
        finally:
            held.running = None
        held.grant, held.until = grant, min(self._now() + REMEMBERED, grant.expires_at - 1.0)
        return grant

    async def _renewed(self, principal: Principal, held: _Held, grant: Grant) -> Grant:
        usable = grant.access_token != held.bad and self._now() < grant.expires_at
        try:
            if grant.refresh_token is None or (await self.endpoint.authority()).audience != grant.server:
                return grant if usable else await self._over(principal, grant)
            if not await self._grants.first(self._place, principal, grant):
                latest = grant if usable else await self._by_another(principal, grant)
                if latest is not None:
                    return latest
        except UnusableError as failure:
            if usable:
                return grant
            raise because(link.no_token(self._route), str(failure)) from None
        held.renewed_at = self._now()
        try:
            return await self._renew(principal, grant, grant.refresh_token, usable=usable)
        finally:
            if self._now() < held.renewed_at + RENEWING:
                with suppress(VaultAway):
                    await self._grants.done(self._place, principal, grant)

    async def _by_another(self, principal: Principal, grant: Grant) -> Grant | None:
        """What another replica, which is renewing this grant, gets for it; None where it failed and we are next."""
        for _ in range(math.ceil(RENEWING / POLL)):
            await self._sleep(POLL)
            latest = await self._latest(principal)
            if latest != grant:
                return latest
            if await self._grants.first(self._place, principal, grant):
                return None
        raise because(link.no_token(self._route), "another replica has not renewed the grant in time")

    async def _renew(self, principal: Principal, grant: Grant, refresh_token: str, *, usable: bool) -> Grant:
        """Ours to renew. It is looked at once more: who was first before us may be done by now."""
        latest = await self._latest(principal)
        if latest != grant:
            return latest
        try:
            token = await self.endpoint.ask(forms.refresh(refresh_token), scoped=False)
        except TokenRefusedError as refusal:
            if refusal.code != _ENDED:
                if usable:
                    return grant
                raise because(link.token_refused(self._route), str(refusal)) from None
            return await self._over(principal, grant)
        except UnusableError as failure:
            if usable:
                return grant
            raise because(link.no_token(self._route), str(failure)) from None
        renewed = await self._grants.renew(self._place, principal, token, grant)
        return renewed or await self._latest(principal)

    async def _over(self, principal: Principal, grant: Grant) -> Grant:
        await self._grants.drop(self._place, principal, grant)
        return await self._latest(principal)

    async def _latest(self, principal: Principal) -> Grant:
        """The one that took a grant's place: another replica was faster, or the account was connected anew."""
        latest = await self._grants.get(self._place, principal)
        if latest is None:
            raise link.not_connected(self._route)
        return latest


def _heard(task: asyncio.Task[Grant]) -> None:
    """Whoever waited is told; when nobody does any more, nobody needs to be."""
    if not task.cancelled():
        task.exception()
