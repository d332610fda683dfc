"""Requests to a token endpoint: their forms, and how the gateway proves who it is. Pure but for random ids."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote_plus

import jwt

from gateway.routes import OAuthClient

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS = 60
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type

Form = dict[str, str]


def client_credentials() -> Form:
    """RFC 6749 section 4.4."""
    return {"grant_type": "client_credentials"}


def token_exchange(subject_token: str) -> Form:
    """RFC 8693 section 2.1: act for whom ``subject_token`` speaks."""
    return {
        "grant_type": _EXCHANGE,
        "subject_token": subject_token,
        "subject_token_type": _ACCESS_TOKEN,
        "requested_token_type": _ACCESS_TOKEN,
    }


def authorization_code(code: str, verifier: str, redirect_uri: str) -> Form:
    """RFC 6749 section 4.1.3 with PKCE (RFC 7636 section 4.5)."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
    }


def refresh(refresh_token: str) -> Form:
    """RFC 6749 section 6."""
    return {"grant_type": "refresh_token", "refresh_token": refresh_token}


def targeted(form: Form, client: OAuthClient, *, resource: str | None, scopes: tuple[str, ...]) -> Form:
    """The form with what it asks for: RFC 8707, RFC 8693 section 2.1, RFC 6749 section 3.3."""
    form = dict(form)
    if resource:
        form["resource"] = resource
    if client.audience:
        form["audience"] = client.audience
    if scopes:
        form["scope"] = " ".join(scopes)
    return form


def authenticated(
    form: Form, client: OAuthClient, *, audience: str, method: Literal["basic", "post"], now: float
) -> tuple[Form, Mapping[str, str]]:
    """The form and the headers with the proof of who asks (RFC 6749 section 2.3.1, RFC 7523 section 2.2).

    ``audience`` is the issuer, or the token endpoint where no issuer is known. ``now`` is in seconds since the epoch.
    """
    if client.private_key is not None:
        assertion = _assertion(client, audience, now)
        return {**form, "client_assertion_type": _ASSERTION, "client_assertion": assertion}, {}
    if client.client_secret is None:
        return {**form, "client_id": client.client_id}, {}
    secret = client.client_secret.get_secret_value()
    if method == "post":
        return {**form, "client_id": client.client_id, "client_secret": secret}, {}
    pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}".encode()
    return form, {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _assertion(client: OAuthClient, audience: str, now: float) -> str:
    """A JWT that only the holder of the key can make, for one use at one place (RFC 7523 section 3)."""
    assert client.private_key is not None
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": audience,
        "iat": int(now),
        "exp": int(now) + _ASSERTION_SECONDS,
        "jti": secrets.token_urlsafe(16),
    }
    headers = {"kid": client.key_id} if client.key_id else None
    return jwt.encode(claims, client.private_key.get_secret_value(), client.signs_with, headers=headers)
