"""Small JSON documents over HTTP: key sets, metadata of authorization servers, answers of token endpoints.

No redirect is followed, no cookie kept, no compression accepted, and the environment names no proxy. What comes is
bounded in size and time, and read strictly.
"""

from __future__ import annotations

import asyncio
import http.cookiejar
import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jiter

from gateway.egress.addresses import Reach
from gateway.egress.guarded import GuardedTransport

MAX_DOCUMENT = 512 * 1024
"""Bytes of a document."""

FETCH_TIMEOUT = 3.0
"""Seconds for one document, in all."""


class UnusableError(Exception):
    """What came is not what was asked for, or nothing came. The text is for the operator and names no secret."""


def document_client(reach: Reach, transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """A client for ``exchange``. ``transport`` is for tests."""
    limits = httpx2.Limits(max_connections=10, max_keepalive_connections=0)
    return httpx2.AsyncClient(
        transport=transport or GuardedTransport(reach, limits=limits),
        follow_redirects=False,
        trust_env=False,
        timeout=FETCH_TIMEOUT,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
    )


async def fetch(client: httpx2.AsyncClient, url: str, *, timeout: float = FETCH_TIMEOUT) -> bytes:  # noqa: ASYNC109
    """GET a document, within ``timeout`` seconds.

    Raises:
        UnusableError: there is none.
    """
    status, body = await exchange(client, "GET", url, timeout=timeout)
    if status != 200:
        raise UnusableError(f"HTTP status {status}")
    return body


async def exchange(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    timeout: float = FETCH_TIMEOUT,  # noqa: ASYNC109 - seconds, in all
    **request: Any,
) -> tuple[int, bytes]:
    """The status and the body of an answer. ``request`` goes to the client.

    Raises:
        UnusableError: there was no answer, or one that is compressed or too long.
    """
    try:
        async with asyncio.timeout(timeout), client.stream(method, url, **request) as response:
            return response.status_code, await _body(response)
    except TimeoutError:
        raise UnusableError(f"no answer within {timeout:g} s") from None
    except httpx2.ConnectError as error:
        raise UnusableError(f"request failed: {error or type(error).__name__}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
        raise UnusableError(f"request failed: {type(error).__name__}") from error


def as_object(text: bytes) -> Mapping[str, Any]:
    """The JSON object of a document.

    Raises:
        UnusableError: it is none.
    """
    try:
        value = jiter.from_json(text, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="none")
    except ValueError as error:
        raise UnusableError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnusableError("not a JSON object")
    return value


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where an issuer publishes its metadata: RFC 8414 section 3.1, then OpenID Connect Discovery section 4."""
    parts = urlsplit(issuer)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return f"{host}/.well-known/oauth-authorization-server{path}", f"{host}{path}/.well-known/openid-configuration"


def is_secure(url: str) -> bool:
    """An https URL, or one of this machine's loopback, without a user name in it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        loopback = host == "localhost" or (parts.scheme == "http" and ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False
    return bool(host) and "@" not in parts.netloc and (parts.scheme == "https" or (parts.scheme == "http" and loopback))


def reach_of(url: str, configured: str) -> Reach:
    """How far a URL may lead that was found in a document of ``configured``: only to the public, unless it is there."""
    return "configured" if origin_of(url) == origin_of(configured) else "public"


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port."""
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


async def _body(response: httpx2.Response) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnusableError("the answer is compressed")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_DOCUMENT:
            raise UnusableError(f"longer than {MAX_DOCUMENT} bytes")
    return bytes(body)
