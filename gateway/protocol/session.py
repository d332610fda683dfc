"""Legacy sessions without a store: the session id is a sealed token that any replica opens.

AES-256-GCM over what ``initialize`` told, bound to the principal and to an expiry. The first key of the ring seals,
every key opens. A session id is no credential: each request is authenticated anew and must be of the same principal
(2025-11-25, ``basic/transports`` and security best practices).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import UnknownSession
from gateway.models import Principal

LIFETIME = 24 * 3600.0
MAX_LENGTH = 8192

_NONCE = 12
_PURPOSE = b"mcp-gateway session v1"
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """What a legacy client said once in ``initialize``. ``expires_at`` in seconds since the epoch."""

    revision: str
    capabilities: Mapping[str, Any]
    client_info: Mapping[str, Any] | None
    owner: str
    expires_at: float


def owner_of(principal: Principal) -> str:
    """A short name for a principal that tells nobody who it is."""
    text = f"{len(principal.issuer)}:{principal.issuer}{principal.subject}".encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


class SessionSealer:
    """Seals sessions into ids and opens them again.

    Args:
        keys: 32 bytes each; the first seals, all open.
        now: seconds since the epoch.
    """

    def __init__(self, keys: Sequence[bytes], now: Callable[[], float]) -> None:
        self._ciphers = tuple(AESGCM(hashlib.blake2b(key, digest_size=32, person=b"session").digest()) for key in keys)
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
        plain = msgspec.json.encode([revision, capabilities, client_info, owner_of(principal), expires_at])
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._ciphers[0].encrypt(nonce, plain, _PURPOSE)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

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
        if len(session_id) > MAX_LENGTH:
            raise UnknownSession
        try:
            sealed = base64.b64decode(session_id + "=" * (-len(session_id) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise UnknownSession from None
        if base64.urlsafe_b64encode(sealed).rstrip(b"=").decode() != session_id:
            raise UnknownSession  # one spelling for one session, or an ended one would live on under another
        session = Session(*msgspec.json.decode(self._decrypt(sealed)))
        self._opened[session_id] = session
        if len(self._opened) > _REMEMBERED:
            self._opened.popitem(last=False)
        return session

    def _decrypt(self, sealed: bytes) -> bytes:
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _PURPOSE)
            except (InvalidTag, ValueError):
                continue
        raise UnknownSession
