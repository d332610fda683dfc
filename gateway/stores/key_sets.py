"""A JWK Set, and the metadata that says where it is, as values: which keys of it may verify which signatures. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.egress.documents import UnusableError, as_object, is_secure

_MAX_KEYS = 100
_RSA_BITS = range(2048, 8193)
_FAMILIES = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""Type and curve of a key to the algorithms it can verify (RFC 7518 section 3.1, RFC 8037)."""
_PUBLIC = ("kty", "crv", "n", "e", "x", "y")
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and what it may verify. Equal where the published key is: ``public`` is the object made of it."""

    kid: str | None
    algorithms: frozenset[str]
    encoded: bytes
    public: Any = field(compare=False)


def jwks_uri_of(text: bytes, issuer: str) -> str:
    """``jwks_uri`` of an issuer's metadata, which must name exactly that issuer (RFC 8414 section 3.3).

    Raises:
        UnusableError: it does not, or has no such address.
    """
    document = as_object(text)
    if document.get("issuer") != issuer:
        raise UnusableError("the document is another issuer's")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or not is_secure(url):
        raise UnusableError("jwks_uri is not an https URL")
    return url


def key_set(text: bytes) -> tuple[Key, ...]:
    """The usable keys of a JWK Set (RFC 7517 section 5: others are left out).

    Raises:
        UnusableError: there is none, or it is no such set.
    """
    listed = as_object(text).get("keys")
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise UnusableError("not a JWK Set")
    keys = tuple(key for key in map(_key, listed) if key is not None)
    if not keys:
        raise UnusableError("no usable key in the set")
    return keys


def _key(jwk: Any) -> Key | None:
    if not isinstance(jwk, dict) or not _is_for_verification(jwk):
        return None
    kid, only, curve = jwk.get("kid"), jwk.get("alg"), jwk.get("crv")
    if not isinstance(kid, str | None) or not isinstance(curve, str | None) or not isinstance(jwk.get("kty"), str):
        return None
    algorithms = _FAMILIES.get((jwk["kty"], curve), frozenset())
    if only is not None:
        algorithms &= {only} if isinstance(only, str) else set()
    if not algorithms:
        return None
    try:
        public = jwt.PyJWK({name: jwk[name] for name in _PUBLIC if name in jwk}).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size not in _RSA_BITS:
        return None
    return Key(kid, algorithms, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), public)


def _is_for_verification(jwk: Mapping[str, Any]) -> bool:
    """A public key that is not for encryption. One published with its private part is nobody's secret any more."""
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and _PRIVATE.isdisjoint(jwk)
    )
