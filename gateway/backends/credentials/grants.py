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


@dataclass(frozen=True, slots=True)
class Grant:
    """``expires_at`` is in seconds since the epoch, ``refresh_token`` None where it cannot be renewed."""

    access_token: str = field(repr=False)
    expires_at: float
    refresh_token: str | None = field(default=None, repr=False)


class Grants:
    """Those of all principals and routes. A sealed grant opens only for the route and the principal it was kept for.

    Args:
        keys: the key ring.
        vault: where they are kept.
        now: seconds since the epoch.
    """

    def __init__(self, keys: Sequence[bytes], vault: Vault, now: Callable[[], float]) -> None:
        self._sealer = Sealer(keys, b"grant")
        self._vault = vault
        self._now = now

    async def get(self, route: str, principal: Principal) -> Grant | None:
        """The present one.

        Raises:
            VaultAway: it is not known.
        """
        key = _key(route, principal)
        sealed = await self._vault.get(key)
        plain = self._sealer.open(sealed) if sealed else None
        if plain is None:
            return None
        bound_to, access_token, expires_at, refresh_token = msgspec.json.decode(plain)
        return Grant(access_token, expires_at, refresh_token) if bound_to == key else None

    async def keep(self, route: str, principal: Principal, token: Token, former: Grant | None = None) -> Grant:
        """Keep what a token endpoint gave, in place of ``former``.

        Raises:
            VaultAway: it is not kept.
        """
        refresh_token = token.refresh_token or (former.refresh_token if former else None)
        grant = Grant(token.value, self._now() + token.lifetime, refresh_token)
        key = _key(route, principal)
        plain = msgspec.json.encode([key, grant.access_token, grant.expires_at, grant.refresh_token])
        seconds = RENEWABLE if refresh_token else max(1.0, token.lifetime)
        await self._vault.put(key, self._sealer.seal(plain), seconds)
        return grant

    async def drop(self, route: str, principal: Principal) -> None:
        """It is of no more use.

        Raises:
            VaultAway: it is still there.
        """
        await self._vault.put(_key(route, principal), "-", 1.0)


def _key(route: str, principal: Principal) -> str:
    text = f"{len(route)}:{route}{owner_of(principal)}".encode()
    return "grant:" + hashlib.blake2b(text, digest_size=16).hexdigest()
