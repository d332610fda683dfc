"""A throw-away issuer for the demo, for development tokens and for tests. Nothing that serves requests uses it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

Algorithm = Literal["EdDSA", "ES256", "RS256"]
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class DevIssuer:
    """An issuer that is a key and a name. ``kid`` is the key's thumbprint (RFC 7638)."""

    issuer: str
    key: PrivateKey
    algorithm: Algorithm
    kid: str
    clock: Callable[[], float] = time.time

    @classmethod
    def create(
        cls,
        issuer_url: str,
        key_path: Path | None = None,
        *,
        algorithm: Algorithm = "EdDSA",
        clock: Callable[[], float] = time.time,
    ) -> DevIssuer:
        """An issuer with a new key, or with the PEM key of ``key_path``, which is made (mode 0600) where it is not.

        Raises:
            ValueError: the file has no private key of a kind that is used here.
            OSError: it cannot be read or written.
        """
        if key_path is None:
            key = _new_key(algorithm)
        else:
            key = _load(key_path) if key_path.exists() else _save(key_path, _new_key(algorithm))
        return cls(issuer_url, key, _algorithm_of(key), _thumbprint(_public_jwk(key)), clock)

    def jwks(self) -> dict[str, Any]:
        """The JWK Set to publish: the public key alone."""
        return {"keys": [{**_public_jwk(self.key), "kid": self.kid, "use": "sig", "alg": self.algorithm}]}

    def mint(
        self,
        subject: str,
        scopes: Iterable[str],
        audience: str | Sequence[str],
        client_id: str = "dev",
        lifetime: float = 3600.0,
        **claims: Any,
    ) -> str:
        """A signed access token (RFC 9068) for ``lifetime`` seconds; ``claims`` are added or replace others."""
        now = int(self.clock())
        payload = {
            "iss": self.issuer,
            "sub": subject,
            "aud": audience if isinstance(audience, str) else list(audience),
            "client_id": client_id,
            "scope": " ".join(sorted(scopes)),
            "iat": now,
            "exp": int(now + lifetime),
            "jti": secrets.token_hex(8),
        }
        return jwt.encode(payload | claims, self.key, self.algorithm, headers={"kid": self.kid, "typ": "at+jwt"})


def _new_key(algorithm: Algorithm) -> PrivateKey:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _algorithm_of(key: PrivateKey) -> Algorithm:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "EdDSA"
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"


def _load(path: Path) -> PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"{path} has a key of a curve other than P-256")
    if not isinstance(key, PrivateKey):
        raise ValueError(f"{path} has no Ed25519, P-256 or RSA private key")
    return key


def _save(path: Path, key: PrivateKey) -> PrivateKey:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _public_jwk(key: PrivateKey) -> dict[str, str]:
    scheme = jwt.get_algorithm_by_name(_algorithm_of(key))
    jwk = scheme.to_jwk(key.public_key(), as_dict=True)
    return {name: value for name, value in jwk.items() if name in {"kty", "crv", "x", "y", "n", "e"}}


def _thumbprint(jwk: dict[str, str]) -> str:
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
