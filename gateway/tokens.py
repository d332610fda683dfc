"""A bearer token as text: taken apart, its header judged, its claims read with their types. Nothing is verified here.

RFC 6750 (the header), RFC 7515 (JWS compact form), RFC 7519 (claims), RFC 8725 (what to refuse). Whatever is wrong is
an ``Unauthenticated`` refusal with its reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import jiter

from gateway.errors import Unauthenticated
from gateway.models import JsonObject

Reason = Literal[
    "missing_token",
    "several_tokens",
    "scheme",
    "too_large",
    "malformed",
    "algorithm",
    "token_type",
    "bound",
    "unknown_issuer",
    "unknown_key",
    "bad_signature",
    "missing_claim",
    "invalid_claim",
    "expired",
    "not_yet_valid",
    "wrong_audience",
    "inactive",
]
"""Why a token is not accepted, for the audit."""

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
"""What may be configured at all: asymmetric signatures."""

MAX_TOKEN = 16 * 1024
"""Bytes of a token; a longer one is refused unread."""

_END_OF_TIME = 253_402_300_799
"""The last second of the year 9999. Later is a mistake (milliseconds, usually) or an attempt at an overflow."""

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
_TEXT = frozenset({str})
_TYPES = frozenset({None, "jwt", "at+jwt", "application/jwt", "application/at+jwt"})

MESSAGES: Mapping[Reason, str] = {
    "missing_token": "This gateway needs an access token; send it as 'Authorization: Bearer <token>'.",
    "several_tokens": "The request has more than one Authorization header; send one.",
    "scheme": "This gateway takes access tokens only as 'Authorization: Bearer <token>'.",
    "too_large": "The token is longer than 16 KiB.",
    "malformed": "The token is not a well-formed signed JWT.",
    "algorithm": "The token's signature algorithm is not accepted here.",
    "token_type": "This is not an access token; send the access token, not an ID token or another one.",
    "bound": "The token is bound to a key of its client (cnf), which cannot be checked here; ask for a bearer token.",
    "unknown_issuer": "The token's issuer is not trusted here; get a token from one of the authorization servers.",
    "unknown_key": "The token is signed with a key that its issuer does not publish; get a new one.",
    "bad_signature": "The token's signature is not valid.",
    "missing_claim": "The token lacks a claim that this gateway needs",
    "invalid_claim": "The token has a claim of the wrong type or value",
    "expired": "The token has expired; get a new one.",
    "not_yet_valid": "The token is not valid yet; check the clocks.",
    "inactive": "The token is not active: it has expired or was revoked; get a new one.",
    "wrong_audience": "The token is for another audience; ask for one for this gateway's resource.",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart; nothing in it is to be believed before its signature is checked."""

    header: JsonObject
    claims: JsonObject
    signed: bytes
    signature: bytes


class Presented(bytes):
    """An ``Authorization`` header as a client sent it; however often its connection repeats it, it is hashed once."""

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of it, under which a verdict is remembered."""
        return hashlib.sha256(self).digest()


def refusal(reason: Reason, claim: str = "", *, presented: bool = True) -> Unauthenticated:
    """The refusal for a reason. It names ``claim``, and repeats nothing of the token."""
    message = f"{MESSAGES[reason]}: {claim}." if claim else MESSAGES[reason]
    return Unauthenticated(message, token_presented=presented, reason=reason)


def bearer(header: bytes) -> bytes:
    """The token of ``Bearer <token>`` (RFC 6750 section 2.1); another scheme counts as no token (section 3.1)."""
    scheme, space, token = header.partition(b" ")
    if scheme.lower() != b"bearer":
        raise refusal("scheme", presented=False)
    if not space or not token:
        raise refusal("malformed")
    if len(token) > MAX_TOKEN:
        raise refusal("too_large")
    return token


def is_opaque(token: bytes) -> bool:
    """Whether only its issuer can read it: not three parts of which the first begins as a JSON object does.

    Raises:
        Unauthenticated: it is no token at all (RFC 6750 section 2.1).
    """
    if _TOKEN.fullmatch(token) is None:
        raise refusal("malformed")
    return not (token.startswith(b"eyJ") and token.count(b".") == 2)


def take_apart(token: bytes) -> Token:
    """The parts of a signed JWT.

    Raises:
        Unauthenticated: it is none.
    """
    parts = token.split(b".")
    if len(parts) != 3:
        raise refusal("malformed")
    return Token(
        header=_json_object(parts[0]),
        claims=_json_object(parts[1]),
        signed=token[: token.rindex(b".")],
        signature=_base64url(parts[2]),
    )


def _json_object(part: bytes) -> JsonObject:
    try:
        value = jiter.from_json(_base64url(part), allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="none")
    except ValueError:
        raise refusal("malformed") from None
    if not isinstance(value, dict):
        raise refusal("malformed")
    return value


def _base64url(part: bytes) -> bytes:
    """Decode the one canonical spelling: no padding, no other alphabet, no loose bits at the end."""
    try:
        value = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        raise refusal("malformed") from None
    if base64.urlsafe_b64encode(value).rstrip(b"=") != part:
        raise refusal("malformed")
    return value


def algorithm_of(header: JsonObject) -> str:
    """The algorithm, where the whole JOSE header is acceptable."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refusal("algorithm")
    if "crit" in header or "b64" in header or not (isinstance(kid, str) or "kid" not in header):
        raise refusal("malformed")
    if (kind is None and "typ" in header) or not isinstance(kind, str | None):
        raise refusal("malformed")
    if (kind.lower() if kind is not None else None) not in _TYPES:
        raise refusal("token_type")
    return algorithm


def text(claims: JsonObject, name: str) -> str:
    """A claim that is a text and not empty."""
    if name not in claims:
        raise refusal("missing_claim", name)
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise refusal("invalid_claim", name)
    return value


def date(claims: JsonObject, name: str) -> float:
    """A NumericDate (RFC 7519 section 2) that a calendar knows."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _END_OF_TIME:
        raise refusal("invalid_claim", name)
    return float(value)


def audiences(claims: JsonObject) -> frozenset[str]:
    """``aud``: a text or a list of texts (RFC 7519 section 4.1.3)."""
    if "aud" not in claims:
        raise refusal("missing_claim", "aud")
    value = claims["aud"]
    named = value if isinstance(value, list) else [value]
    if not _texts(named):
        raise refusal("invalid_claim", "aud")
    return frozenset(named)


def scopes(claims: JsonObject, names: Sequence[str]) -> frozenset[str]:
    """The union of all scope claims: each a text with spaces between (RFC 8693 section 4.2) or a list of texts.

    A name that no claim has is a path through objects: ``realm_access.roles``.
    """
    found: set[str] = set()
    for name in names:
        value = _claim(claims, name)
        several = value.split(" ") if isinstance(value, str) else value
        if not isinstance(several, list) or not _texts(several):
            raise refusal("invalid_claim", name)
        found.update(several)
    found.discard("")
    return frozenset(found)


def _texts(values: list[object]) -> bool:
    return set(map(type, values)) <= _TEXT  # what JSON is read as has no other types of text


def _claim(claims: JsonObject, name: str) -> object:
    """The claim of this name, else what the path leads to; an empty text where that is nothing."""
    if name in claims:
        return claims[name]
    if "." not in name:
        return ""
    value: object = claims
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return ""
        value = value[part]
    return value
