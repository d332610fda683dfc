"""What backends and authorization servers publish about themselves: where tokens are had (RFC 9728, RFC 8414). Pure.

Nothing of it is believed beyond what it is for: a document must name the one it was asked for, and URLs in it must be
https, or loopback where the operator allows private addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.egress.documents import UnusableError, is_secure, metadata_urls, origin_of

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_PARAMETER = re.compile(r'(?<![A-Za-z0-9_-])([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

_PLAIN = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+([/?][!\x24-~]*)?")
"""A URL that browsers are led to: its host stands in a header of ours, and parameters go to its end, so that it has no
fragment (RFC 6749 section 3.1)."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 of a backend says: where its metadata is, and which scopes it wants."""

    metadata_url: str | None = None
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Protected:
    """A backend's metadata (RFC 9728): its identifier, whose tokens it takes, and which scopes there are."""

    resource: str
    issuer: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """An authorization server's metadata (RFC 8414), as far as it is used."""

    token_url: str
    authorization_url: str | None = None
    methods: tuple[str, ...] = ()
    challenges: tuple[str, ...] = ()
    names_issuer: bool = False


def challenge_of(header: str) -> Challenge:
    """The parameters of a ``WWW-Authenticate`` (RFC 9110 section 11.6.1); what is no challenge of ours says nothing."""
    if not header.lower().startswith("bearer"):
        return Challenge()
    found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(header[6:8192])}
    return Challenge(found.get("resource_metadata") or None, tuple(found.get("scope", "").split()))


def protected_resource_urls(backend: str) -> tuple[str, ...]:
    """Where a backend publishes its metadata: its path inserted, then none (RFC 9728 section 3.1)."""
    parts = urlsplit(backend)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return tuple(dict.fromkeys((f"{host}{_WELL_KNOWN}{path}", f"{host}{_WELL_KNOWN}")))


def authorization_server_urls(issuer: str) -> tuple[str, ...]:
    """Where an issuer publishes its metadata, in the order of ``authorization-server-discovery`` (2026-07-28)."""
    oauth, openid = metadata_urls(issuer)
    parts = urlsplit(issuer)
    inserted = f"{parts.scheme}://{parts.netloc}/.well-known/openid-configuration{parts.path.rstrip('/')}"
    return tuple(dict.fromkeys((oauth, inserted, openid)))


def protected_of(document: Mapping[str, Any], backend: str) -> Protected:
    """A backend's metadata, if it is this one's.

    Raises:
        UnusableError: it is another's, or names no authorization server.
    """
    resource, servers = document.get("resource"), document.get("authorization_servers")
    if not isinstance(resource, str) or not _covers(resource, backend):
        raise UnusableError("the backend's metadata is of another resource")
    if not isinstance(servers, list) or not servers or not isinstance(servers[0], str) or not is_secure(servers[0]):
        raise UnusableError("the backend's metadata names no authorization server with an https URL")
    return Protected(resource, servers[0], _texts(document.get("scopes_supported")))


def server_of(document: Mapping[str, Any], issuer: str) -> Server:
    """An authorization server's metadata, if it is this one's (RFC 8414 section 3.3).

    Raises:
        UnusableError: it is another's, or names no token endpoint.
    """
    if document.get("issuer") != issuer:
        raise UnusableError("the metadata is another issuer's")
    token_url, authorization_url = document.get("token_endpoint"), document.get("authorization_endpoint")
    if not isinstance(token_url, str) or not is_secure(token_url):
        raise UnusableError("the issuer's metadata names no token_endpoint with an https URL")
    usable = isinstance(authorization_url, str) and _is_plain(authorization_url) and is_secure(authorization_url)
    return Server(
        token_url,
        authorization_url if usable else None,
        _texts(document.get("token_endpoint_auth_methods_supported")),
        _texts(document.get("code_challenge_methods_supported")),
        document.get("authorization_response_iss_parameter_supported") is True,
    )


def only_post(methods: Iterable[str]) -> bool:
    """Whether a server takes the client's secret in the form alone."""
    return "client_secret_post" in methods and "client_secret_basic" not in methods


def _covers(resource: str, backend: str) -> bool:
    """Whether the identifier is the backend's URL or one above it."""
    try:
        same = origin_of(resource) == origin_of(backend)
        above, path = urlsplit(resource).path.rstrip("/"), urlsplit(backend).path.rstrip("/")
    except ValueError:
        return False
    return same and (path == above or path.startswith(above + "/"))


def _is_plain(url: str) -> bool:
    return _PLAIN.fullmatch(url) is not None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
