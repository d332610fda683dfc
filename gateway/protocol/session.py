"""Legacy sessions without a store: the session id is a sealed token that any replica opens.

It holds what ``initialize`` told, bound to the principal and to an expiry. A session id is no credential: each request
is authenticated anew and must be of the same principal
(2025-11-25, ``basic/transports`` and security best practices).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.errors import UnknownSession
from gateway.models import Principal
from gateway.protocol.sealing import Sealer, owner_of

LIFETIME = 24 * 3600.0
MAX_LENGTH = 8192

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """What a legacy client said once in ``initialize``. ``expires_at`` in seconds since the epoch.

    ``log_level`` is not sealed: it is what the client set since.
    """

    revision: str
    capabilities: Mapping[str, Any]
    client_info: Mapping[str, Any] | None
    owner: str
    expires_at: float
    log_level: str | None = None


class SessionSealer:
    """Seals sessions into ids and opens them again.

    Args:
        keys: 32 bytes each; the first seals, all open.
        now: seconds since the epoch.
    """

    def __init__(self, keys: Sequence[bytes], now: Callable[[], float]) -> None:
        self._sealer = Sealer(keys, b"session")
        self._now = now
        self._opened: OrderedDict[str, Session] = OrderedDict()

    def seal(
        self,
        principal: Principal,
        revision: str,
        capabilities: Mapping[str, Any],
        client_info: Mapping[str, Any] | None,
    ) -> str:
        """A new session id of visible ASCII for this principal."""
        expires_at = self._now() + LIFETIME
        return self._sealer.seal(
            msgspec.json.encode([revision, capabilities, client_info, owner_of(principal), expires_at])
        )

    def open(self, session_id: str, principal: Principal) -> Session:
        """The session of an id.

        Raises:
            UnknownSession: not ours, tampered with, expired, or another principal's; the client cannot tell which.
        """
        session = self._opened.get(session_id) or self._unseal(session_id)
        if session.owner != owner_of(principal) or session.expires_at <= self._now():
            raise UnknownSession
        return session

    def _unseal(self, session_id: str) -> Session:
        plain = self._sealer.open(session_id) if len(session_id) <= MAX_LENGTH else None
        if plain is None:
            raise UnknownSession
        session = Session(*msgspec.json.decode(plain))
        self._opened[session_id] = session
        if len(self._opened) > _REMEMBERED:
            self._opened.popitem(last=False)
        return session
