"""Who is asking? A bearer token in, a principal out, or a refusal; there is no third way.

Rules of this file (RFC 8725, RFC 9068):

- Nothing is fetched and no key is chosen because a token says so: ``iss`` selects among the configured issuers,
  ``kid`` among the keys of that issuer; ``jku``, ``x5u``, ``jwk`` and ``x5c`` are never read.
- The library checks the signature and nothing else. Every claim is checked here, with its type.
- A verified token is remembered no longer than it is valid, than ``_REMEMBERED`` and than the keys stay the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import jiter
import jwt

from gateway.errors import Unauthenticated
from gateway.models import JsonObject, Principal

if TYPE_CHECKING:
    from gateway.ports import SigningKeys
    from gateway.routes import Auth, Issuer

Reason = Literal[
    "missing_token",
    "several_tokens",
    "scheme",
    "too_large",
    "malformed",
    "algorithm",
    "token_type",
    "unknown_issuer",
    "unknown_key",
    "bad_signature",
    "missing_claim",
    "invalid_claim",
    "expired",
    "not_yet_valid",
    "wrong_audience",
]
"""Why a token is not accepted, for the audit."""

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
"""What may be configured at all: asymmetric signatures."""

MAX_TOKEN = 16 * 1024
"""Bytes of a token; a longer one is refused unread."""

_REMEMBERED = 300.0
_REFUSAL_REMEMBERED = 10.0
_MAX_VERIFIED = 10_000
_MAX_REFUSED = 1_000
_MAX_KEYS_TRIED = 8
_END_OF_TIME = 253_402_300_799
"""The last second of the year 9999. Later is a mistake (milliseconds, usually) or an attempt at an overflow."""

_TYPES = frozenset({None, "jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_NOT_ACCESS_TOKEN = ("nonce", "at_hash", "c_hash", "events")
"""Claims of ID tokens and of security events, which RFC 8725 section 3.12 tells to keep apart."""
_CLIENT_CLAIMS = ("client_id", "azp", "appid", "cid")
_MAY_CHANGE: frozenset[str] = frozenset({"unknown_key", "not_yet_valid"})
"""Refusals that time or a fetch of keys can turn into acceptance; never remembered."""

_MESSAGES: Mapping[Reason, str] = {
    "missing_token": "This gateway needs an access token; send it as 'Authorization: Bearer <token>'.",
    "several_tokens": "The request has more than one Authorization header; send one.",
    "scheme": "This gateway takes access tokens only as 'Authorization: Bearer <token>'.",
    "too_large": "The token is longer than 16 KiB.",
    "malformed": "The token is not a well-formed signed JWT.",
    "algorithm": "The token's signature algorithm is not accepted here.",
    "token_type": "This is not an access token; send the access token, not an ID token or another one.",
    "unknown_issuer": "The token's issuer is not trusted here; get a token from one of the authorization servers.",
    "unknown_key": "The token is signed with a key that its issuer does not publish; get a new one.",
    "bad_signature": "The token's signature is not valid.",
    "missing_claim": "The token lacks a claim that this gateway needs",
    "invalid_claim": "The token has a claim of the wrong type or value",
    "expired": "The token has expired; get a new one.",
    "not_yet_valid": "The token is not valid yet; check the clocks.",
    "wrong_audience": "The token is for another audience; ask for one for this gateway's resource.",
}
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


@dataclass(frozen=True, slots=True)
class _Token:
    """A token taken apart; nothing in it is to be believed before its signature is checked."""

    header: JsonObject
    claims: JsonObject
    signed: bytes
    signature: bytes


class JwtAuthenticator:
    """Implements ``ports.Authenticate`` for signed JWT access tokens.

    ``clock`` gives seconds since the epoch. One instance belongs to one configuration and one event loop.
    """

    def __init__(self, auth: Auth, keys: SigningKeys, clock: Callable[[], float] = time.time) -> None:
        self._auth = auth
        self._issuers: dict[str, Issuer] = {issuer.issuer: issuer for issuer in auth.issuers}
        self._keys = keys
        self._clock = clock
        self._generation = keys.generation
        self._verified: _Recent[Principal] = _Recent(_MAX_VERIFIED)
        self._refused: _Recent[tuple[str, str]] = _Recent(_MAX_REFUSED)

    async def __call__(self, headers: Sequence[bytes]) -> Principal:
        """The principal of a request, from all of its ``Authorization`` values.

        Raises:
            Unauthenticated: no token, more than one, or one that is not accepted.
            KeysUnavailable: the issuer's keys were never had.
        """
        if len(headers) != 1:
            raise _refusal("several_tokens") if headers else _refusal("missing_token", presented=False)
        header = headers[0]
        if self._keys.generation != self._generation:
            self._forget()
        digest = hashlib.sha256(header).digest()
        now = self._clock()
        principal = self._verified.get(digest, now)
        return principal if principal is not None else await self._judge(header, digest, now)

    async def _judge(self, header: bytes, digest: bytes, now: float) -> Principal:
        refused = self._refused.get(digest, now)
        if refused is not None:
            message, reason = refused
            raise Unauthenticated(message, token_presented=True, reason=reason)
        try:
            principal = await self._verify(_bearer(header))
        except Unauthenticated as refusal:
            if refusal.token_presented and refusal.reason not in _MAY_CHANGE:
                self._refused.put(digest, (refusal.message, refusal.reason), now + _REFUSAL_REMEMBERED)
            raise
        self._verified.put(digest, principal, min(principal.expires_at, now + _REMEMBERED))
        return principal

    async def _verify(self, text: bytes) -> Principal:
        token = _take_apart(text)
        algorithm = _algorithm(token.header)
        issuer = self._issuer(token.claims)
        if algorithm not in issuer.algorithms:
            raise _refusal("algorithm")
        keys = await self._keys.find(issuer.issuer, token.header.get("kid"), algorithm)
        if not keys:
            raise _refusal("unknown_key")
        if not any(_signed_by(key, token, algorithm) for key in keys[:_MAX_KEYS_TRIED]):
            raise _refusal("bad_signature")
        return self._principal(issuer, token.claims)

    def _issuer(self, claims: JsonObject) -> Issuer:
        issuer = self._issuers.get(_text(claims, "iss"))
        if issuer is None:
            raise _refusal("unknown_issuer")
        return issuer

    def _principal(self, issuer: Issuer, claims: JsonObject) -> Principal:
        for name in _NOT_ACCESS_TOKEN:
            if name in claims:
                raise _refusal("token_type")
        expires_at = self._check_times(claims)
        toolsets = self._toolsets(issuer, _audiences(claims))
        client = next((name for name in _CLIENT_CLAIMS if name in claims), None)
        return Principal(
            issuer=issuer.issuer,
            subject=_text(claims, issuer.subject_claim),
            client_id=_text(claims, client) if client else None,
            scopes=self._auth.expand(_scopes(claims, issuer.scope_claims)),
            expires_at=expires_at,
            toolsets=toolsets,
        )

    def _toolsets(self, issuer: Issuer, audiences: set[str]) -> frozenset[str] | None:
        """None for a token of the whole gateway, else the toolsets whose own resource it was issued for."""
        if audiences & set(issuer.audience):
            return None
        below = self._auth.resource + "/"
        named = frozenset(audience.removeprefix(below) for audience in audiences if audience.startswith(below)) - {""}
        if not named:
            raise _refusal("wrong_audience")
        return named

    def _check_times(self, claims: JsonObject) -> float:
        """Seconds since the epoch at which the token ends to be accepted: ``exp`` and the leeway."""
        now = self._clock()
        if "exp" not in claims:
            raise _refusal("missing_claim", "exp")
        expires_at: float = _date(claims, "exp") + self._auth.leeway
        for name in ("nbf", "iat"):
            if name in claims and _date(claims, name) > now + self._auth.leeway:
                raise _refusal("not_yet_valid")
        if now >= expires_at:
            raise _refusal("expired")
        return expires_at

    def _forget(self) -> None:
        self._generation = self._keys.generation
        self._verified.clear()
        self._refused.clear()


def _refusal(reason: Reason, claim: str = "", *, presented: bool = True) -> Unauthenticated:
    message = f"{_MESSAGES[reason]}: {claim}." if claim else _MESSAGES[reason]
    return Unauthenticated(message, token_presented=presented, reason=reason)


def _bearer(header: bytes) -> bytes:
    """The token of ``Bearer <token>`` (RFC 6750 section 2.1); another scheme counts as no token (section 3.1)."""
    scheme, space, token = header.partition(b" ")
    if scheme.lower() != b"bearer":
        raise _refusal("scheme", presented=False)
    if not space or not token:
        raise _refusal("malformed")
    if len(token) > MAX_TOKEN:
        raise _refusal("too_large")
    return token


def _take_apart(token: bytes) -> _Token:
    parts = token.split(b".")
    if len(parts) != 3:
        raise _refusal("malformed")
    return _Token(
        header=_json_object(parts[0]),
        claims=_json_object(parts[1]),
        signed=token[: token.rindex(b".")],
        signature=_base64url(parts[2]),
    )


def _json_object(part: bytes) -> JsonObject:
    try:
        value = jiter.from_json(_base64url(part), allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="none")
    except ValueError:
        raise _refusal("malformed") from None
    if not isinstance(value, dict):
        raise _refusal("malformed")
    return value


def _base64url(part: bytes) -> bytes:
    """Decode the one canonical spelling: no padding, no other alphabet, no loose bits at the end."""
    try:
        value = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        raise _refusal("malformed") from None
    if base64.urlsafe_b64encode(value).rstrip(b"=") != part:
        raise _refusal("malformed")
    return value


def _algorithm(header: JsonObject) -> str:
    """The algorithm, where the whole JOSE header is acceptable."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _refusal("algorithm")
    if "crit" in header or "b64" in header or not (isinstance(kid, str) or "kid" not in header):
        raise _refusal("malformed")
    if (kind is None and "typ" in header) or not isinstance(kind, str | None):
        raise _refusal("malformed")
    if (kind.lower() if kind is not None else None) not in _TYPES:
        raise _refusal("token_type")
    return algorithm


def _signed_by(key: Any, token: _Token, algorithm: str) -> bool:
    scheme = jwt.get_algorithm_by_name(algorithm)
    try:
        return scheme.verify(token.signed, scheme.prepare_key(key), token.signature)
    except (jwt.PyJWTError, TypeError, ValueError):  # a key of another family or curve
        return False


def _text(claims: JsonObject, name: str) -> str:
    if name not in claims:
        raise _refusal("missing_claim", name)
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise _refusal("invalid_claim", name)
    return value


def _date(claims: JsonObject, name: str) -> float:
    """A NumericDate (RFC 7519 section 2) that a calendar knows."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _END_OF_TIME:
        raise _refusal("invalid_claim", name)
    return float(value)


def _audiences(claims: JsonObject) -> set[str]:
    if "aud" not in claims:
        raise _refusal("missing_claim", "aud")
    value = claims["aud"]
    audiences = value if isinstance(value, list) else [value]
    if not all(isinstance(audience, str) for audience in audiences):
        raise _refusal("invalid_claim", "aud")
    return set(audiences)


def _scopes(claims: JsonObject, names: Sequence[str]) -> frozenset[str]:
    """The union of all scope claims: each a text with spaces between (RFC 8693 section 4.2) or a list of texts."""
    found: set[str] = set()
    for name in names:
        value = claims.get(name, "")
        scopes = value.split(" ") if isinstance(value, str) else value
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise _refusal("invalid_claim", name)
        found.update(scopes)
    return frozenset(found - {""})
