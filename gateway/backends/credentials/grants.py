"""What a principal has granted the gateway at a backend's authorization server, kept sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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

    ``server`` is the authorization server that gave it, the only one that may be sent its refresh token.
    """

    access_token: str = field(repr=False)
    expires_at: float
    server: str
    refresh_token: str | None = field(default=None, repr=False)


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
        if plain is None:
            return None
        bound_to, *members = msgspec.json.decode(plain)
        return Grant(*members) if bound_to == key else None

    async def keep(
        self, place: str, principal: Principal, token: Token, server: str, former: Grant | None = None
    ) -> Grant:
        """Keep what the token endpoint of ``server`` gave, in place of ``former``.

        Raises:
            VaultAway: it is not kept.
        """
        refresh_token = token.refresh_token or (former.refresh_token if former else None)
        grant = Grant(token.value, self._now() + token.lifetime, server, refresh_token)
        key = _key(place, principal)
        plain = msgspec.json.encode([key, grant.access_token, grant.expires_at, grant.server, grant.refresh_token])
        seconds = RENEWABLE if refresh_token else max(1.0, token.lifetime)
        await self._vault.put(key, self._sealer.seal(plain), seconds)
        return grant

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

    async def drop(self, place: str, principal: Principal) -> None:
        """It is of no more use.

        Raises:
            VaultAway: it is still there.
        """
        await self._vault.put(_key(place, principal), "-", 1.0)


def _key(place: str, principal: Principal) -> str:
    text = f"{len(place)}:{place}{owner_of(principal)}".encode()
    return "grant:" + hashlib.blake2b(text, digest_size=16).hexdigest()


def _renewal(place: str, principal: Principal, grant: Grant) -> str:
    text = f"{_key(place, principal)}{grant.refresh_token}".encode()
    return "renews:" + hashlib.blake2b(text, digest_size=16).hexdigest()
