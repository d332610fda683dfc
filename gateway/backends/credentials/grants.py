"""What a principal has granted the gateway at a backend's authorization server, kept sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from gateway.backends.credentials.tokens import Token
from gateway.models import Principal
from gateway.protocol.sealing import Sealer, owner_of
from gateway.vault import Vault

RENEWABLE = 30 * 86_400.0
"""Seconds that a grant is kept which can be renewed, counted from its last renewal."""

RENEWING = 6.0
"""Seconds that one replica has to renew a grant before another may try."""


@dataclass(frozen=True, slots=True)
class Grant:
    """``expires_at`` is in seconds since the epoch, ``refresh_token`` None where it cannot be renewed.

    ``server`` is the authorization server that gave it, the only one that may be sent its refresh token. ``sealed`` is
    how it is kept, another text each time.
    """

    access_token: str = field(repr=False)
    expires_at: float
    server: str
    refresh_token: str | None = field(default=None, repr=False)
    sealed: str = field(default="", repr=False, compare=False)


class Grants:
    """Those of all principals and places. A sealed grant opens only for the place and the principal it was kept for.

    A place is a route and the backend that it had: what was granted for one backend is not sent to the next.

    Args:
        keys: the key ring.
        vault: where they are kept.
        now: seconds since the epoch.
    """

    def __init__(self, keys: Sequence[bytes], vault: Vault, now: Callable[[], float]) -> None:
        self._sealer = Sealer(keys, b"grant")
        self._vault = vault
        self._now = now

    async def get(self, place: str, principal: Principal) -> Grant | None:
        """The present one.

        Raises:
            VaultAway: it is not known.
        """
        key = _key(place, principal)
        sealed = await self._vault.get(key)
        plain = self._sealer.open(sealed) if sealed else None
        if sealed is None or plain is None:
            return None
        bound_to, *members = msgspec.json.decode(plain)
        return replace(Grant(*members), sealed=sealed) if bound_to == key else None

    async def keep(self, place: str, principal: Principal, token: Token, server: str) -> Grant:
        """Keep what the token endpoint of ``server`` gave, in place of all before.

        Raises:
            VaultAway: it is not kept.
        """
        key = _key(place, principal)
        grant = self._made(key, token, server, token.refresh_token)
        await self._vault.put(key, grant.sealed, _kept(token, grant))
        return grant

    async def renew(self, place: str, principal: Principal, token: Token, former: Grant) -> Grant | None:
        """Keep what the token endpoint gave for ``former``; None where that is not the present one, which stays.

        Raises:
            VaultAway: it is not known which one is kept.
        """
        key = _key(place, principal)
        grant = self._made(key, token, former.server, token.refresh_token or former.refresh_token)
        kept = await self._vault.replace(key, former.sealed, grant.sealed, _kept(token, grant))
        return grant if kept else None

    async def first(self, place: str, principal: Principal, grant: Grant) -> bool:
        """Whether nobody else, at any replica, is about to renew it: some servers end what is renewed twice.

        Raises:
            VaultAway: it is not known.
        """
        return await self._vault.claim(_renewal(place, principal, grant), RENEWING)

    async def done(self, place: str, principal: Principal, grant: Grant) -> None:
        """Who was first has renewed it, or has not been able to.

        Raises:
            VaultAway: others wait ``RENEWING`` for it.
        """
        await self._vault.release(_renewal(place, principal, grant))

    async def drop(self, place: str, principal: Principal, grant: Grant) -> bool:
        """It is of no more use. False where it is not the present one, which stays.

        Raises:
            VaultAway: it may still be there.
        """
        return await self._vault.forget(_key(place, principal), grant.sealed)

    def _made(self, key: str, token: Token, server: str, refresh_token: str | None) -> Grant:
        members = (token.value, self._now() + token.lifetime, server, refresh_token)
        return Grant(*members, sealed=self._sealer.seal(msgspec.json.encode([key, *members])))


def _kept(token: Token, grant: Grant) -> float:
    return RENEWABLE if grant.refresh_token else max(1.0, token.lifetime)


def _key(place: str, principal: Principal) -> str:
    text = f"{len(place)}:{place}{owner_of(principal)}".encode()
    return "grant:" + hashlib.blake2b(text, digest_size=16).hexdigest()


def _renewal(place: str, principal: Principal, grant: Grant) -> str:
    text = f"{_key(place, principal)}{grant.refresh_token}".encode()
    return "renews:" + hashlib.blake2b(text, digest_size=16).hexdigest()
