"""Who is asking? A bearer token in, a principal out, or a refusal; there is no third way.

Rules of this file (RFC 8725, RFC 9068):

- Nothing is fetched and no key is chosen because a token says so: ``iss`` selects among the configured issuers,
  ``kid`` among the keys of that issuer; ``jku``, ``x5u``, ``jwk`` and ``x5c`` are never read.
- The library checks the signature and nothing else. Every claim is checked here, with its type.
- A verified token is remembered no longer than it is valid, than ``_REMEMBERED`` and than the keys stay the same; one
  that its issuer was asked about, no longer than ``introspection.ttl``.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from gateway import tokens
from gateway.errors import Unauthenticated
from gateway.models import JsonObject, Principal

if TYPE_CHECKING:
    from gateway.ports import Introspect, SigningKeys
    from gateway.routes import Auth, Issuer

_REMEMBERED = 300.0
_REFUSAL_REMEMBERED = 10.0
_MAX_VERIFIED = 10_000
_MAX_REFUSED = 1_000
_MAX_KEYS_TRIED = 8
_MAY_CHANGE: frozenset[str] = frozenset({"unknown_key", "not_yet_valid"})
"""Refusals that time or a fetch of keys can turn into acceptance; never remembered."""
_NOT_ACCESS_TOKEN = frozenset({"nonce", "at_hash", "c_hash", "events"})
"""Claims of ID tokens and of security events, which RFC 8725 section 3.12 tells to keep apart."""
V = TypeVar("V")


class _Recent(Generic[V]):
    """Values under digests until a time each, the least recently used of them dropped beyond ``size``."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, tuple[float, V]] = OrderedDict()

    def get(self, digest: bytes, now: float) -> V | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if now >= entry[0]:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry[1]

    def put(self, digest: bytes, value: V, until: float) -> None:
        self._entries[digest] = (until, value)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()


class TokenAuthenticator:
    """Implements ``ports.Authenticate`` for signed JWTs, and for opaque tokens where an issuer has ``introspect``.

    ``clock`` gives seconds since the epoch. One instance belongs to one configuration and one event loop.
    """

    def __init__(
        self,
        auth: Auth,
        keys: SigningKeys,
        clock: Callable[[], float] = time.time,
        *,
        introspect: Introspect | None = None,
    ) -> None:
        self._auth = auth
        self._issuers: dict[str, Issuer] = {issuer.issuer: issuer for issuer in auth.issuers}
        self._keys = keys
        self._introspect = introspect
        self._keep_tokens = False
        self._clock = clock
        self._generation = keys.generation
        self._verified: _Recent[Principal] = _Recent(_MAX_VERIFIED)
        self._refused: _Recent[tuple[str, str]] = _Recent(_MAX_REFUSED)
        self._heard: _Recent[bool] = _Recent(_MAX_VERIFIED)

    async def __call__(self, headers: Sequence[bytes]) -> Principal:
        """The principal of a request, from all of its ``Authorization`` values.

        Raises:
            Unauthenticated: no token, more than one, or one that is not accepted.
            IssuerUnavailable: the issuer's keys were never had.
        """
        if len(headers) != 1:
            raise tokens.refusal("several_tokens") if headers else tokens.refusal("missing_token", presented=False)
        header = headers[0]
        if self._keys.generation != self._generation:
            self._forget()
        digest = _digest_of(header)
        now = self._clock()
        principal = self._verified.get(digest, now)
        return principal if principal is not None else await self._judge(header, digest, now)

    def keep_tokens(self, *, kept: bool) -> None:
        """Whether a principal comes with its token, to be exchanged."""
        if kept != self._keep_tokens:
            self._keep_tokens = kept
            self._verified.clear()

    def remembers(self, headers: Sequence[bytes]) -> bool:
        """Whether this token was accepted before and has not expired: it is worth judging, whoever else sends what."""
        return len(headers) == 1 and self._heard.get(_digest_of(headers[0]), self._clock()) is not None

    async def _judge(self, header: bytes, digest: bytes, now: float) -> Principal:
        refused = self._refused.get(digest, now)
        if refused is not None:
            message, reason = refused
            raise Unauthenticated(message, token_presented=True, reason=reason)
        try:
            text = tokens.bearer(header)
            principal, seconds = await self._verify(text, digest)
        except Unauthenticated as refusal:
            if refusal.token_presented and refusal.reason not in _MAY_CHANGE:
                self._refused.put(digest, (refusal.message, refusal.reason), now + _REFUSAL_REMEMBERED)
            raise
        if self._keep_tokens:
            principal = replace(principal, token=text)
        self._verified.put(digest, principal, min(principal.expires_at, now + seconds))
        self._heard.put(digest, True, principal.expires_at)  # noqa: FBT003 - a set with an end for each
        return principal

    async def _verify(self, text: bytes, digest: bytes) -> tuple[Principal, float]:
        """Whose token it is, and for how many seconds that may be remembered."""
        if self._introspect is not None:
            issuer = self._asked_about(text)
            if issuer is not None:
                known = self._heard.get(digest, self._clock()) is not None
                return await self._ask(issuer, self._introspect(text, known=known))
        token = tokens.take_apart(text)
        return await self._signed(token), _REMEMBERED

    async def _signed(self, token: tokens.Token) -> Principal:
        algorithm = tokens.algorithm_of(token.header)
        issuer = self._issuer(token.claims)
        if algorithm not in issuer.algorithms:
            raise tokens.refusal("algorithm")
        keys = await self._keys.find(issuer.issuer, token.header.get("kid"), algorithm)
        if not keys:
            raise tokens.refusal("unknown_key")
        if not any(signed_by(key, token, algorithm) for key in keys[:_MAX_KEYS_TRIED]):
            raise tokens.refusal("bad_signature")
        return self._principal(issuer, token.claims)

    def _asked_about(self, text: bytes) -> Issuer | None:
        """The issuer that has to be asked about this token; None where keys decide."""
        if tokens.is_opaque(text):
            return self._auth.introspecting
        named = self._issuer(tokens.take_apart(text).claims)
        return None if named.has_keys else named

    async def _ask(self, issuer: Issuer, answer: Awaitable[JsonObject | None]) -> tuple[Principal, float]:
        """RFC 7662 section 2.2: everything but ``active`` may lack; what names an issuer has to name this one."""
        asked_at, claims = self._clock(), await answer
        if claims is None:
            raise tokens.refusal("inactive")
        if claims.get("iss", issuer.issuer) != issuer.issuer:
            raise tokens.refusal("unknown_issuer")
        seconds = issuer.introspection.ttl if issuer.introspection else 0.0
        return self._principal(issuer, {"exp": asked_at + seconds, **claims}), seconds

    def of_claims(self, claims: JsonObject) -> Principal:
        """The principal of claims that somebody else has verified, or that are to be explained.

        Raises:
            Unauthenticated: a token with these claims is not accepted, whoever signed it.
        """
        return self._principal(self._issuer(claims), claims)

    def _issuer(self, claims: JsonObject) -> Issuer:
        issuer = self._issuers.get(tokens.text(claims, "iss"))
        if issuer is None:
            raise tokens.refusal("unknown_issuer")
        return issuer

    def _principal(self, issuer: Issuer, claims: JsonObject) -> Principal:
        if not _NOT_ACCESS_TOKEN.isdisjoint(claims):
            raise tokens.refusal("token_type")
        if "cnf" in claims:  # RFC 7800, RFC 8705, RFC 9449: as a mere bearer token it would be good for a thief
            raise tokens.refusal("bound")
        expires_at = self._check_times(claims)
        toolsets = self._toolsets(issuer, tokens.audiences(claims))
        client = next((name for name in issuer.client_claims if name in claims), None)
        return Principal(
            issuer=issuer.issuer,
            subject=tokens.text(claims, issuer.subject_claim),
            client_id=tokens.text(claims, client) if client else None,
            scopes=self._auth.expand(tokens.scopes(claims, issuer.scope_claims)),
            expires_at=expires_at,
            toolsets=toolsets,
        )

    def _toolsets(self, issuer: Issuer, audiences: frozenset[str]) -> frozenset[str] | None:
        """None for a token of the whole gateway, else the toolsets whose own resource it was issued for."""
        if not audiences.isdisjoint(issuer.audience):
            return None
        below = self._auth.resource + "/"
        named = frozenset(audience.removeprefix(below) for audience in audiences if audience.startswith(below)) - {""}
        if not named:
            raise tokens.refusal("wrong_audience")
        return named

    def _check_times(self, claims: JsonObject) -> float:
        """Seconds since the epoch at which the token ends to be accepted: ``exp`` and the leeway."""
        now = self._clock()
        if "exp" not in claims:
            raise tokens.refusal("missing_claim", "exp")
        expires_at: float = tokens.date(claims, "exp") + self._auth.leeway
        for name in ("nbf", "iat"):
            if name in claims and tokens.date(claims, name) > now + self._auth.leeway:
                raise tokens.refusal("not_yet_valid")
        if now >= expires_at:
            raise tokens.refusal("expired")
        return expires_at

    def _forget(self) -> None:
        self._generation = self._keys.generation
        self._verified.clear()
        self._refused.clear()


def _digest_of(header: bytes) -> bytes:
    return header.digest if isinstance(header, tokens.Presented) else hashlib.sha256(header).digest()


def signed_by(key: Any, token: tokens.Token, algorithm: str) -> bool:
    """Whether the signature is this key's (RFC 7515 section 5.2, RFC 8037 for Ed25519)."""
    try:
        if algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey):
            VerifyKey(key.public_bytes_raw()).verify(token.signed, token.signature)
            return True
        scheme = jwt.get_algorithm_by_name(algorithm)
        return scheme.verify(token.signed, scheme.prepare_key(key), token.signature)
    except (jwt.PyJWTError, CryptoError, TypeError, ValueError):  # a key of another family or curve
        return False
