"""Protections that know no MCP: who may reach the endpoint from a browser, and what is no request at all."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from gateway.errors import Forbidden, InvalidRequest

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_LOOPBACK_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@/\\ ]+))(?::[0-9]{0,5})?")
_FRAMING = frozenset({"content-length", "content-type", "transfer-encoding"})
_SENT = ("application/json", "text/event-stream")
_CORS_METHODS = "GET, POST, DELETE"
_CORS_HEADERS = (
    "authorization, content-type, accept, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name, last-event-id"
)
_MIRROR = re.compile(r"mcp-param-[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
_CORS_EXPOSED = "mcp-session-id, www-authenticate, retry-after, ratelimit, ratelimit-policy, x-request-id"


class BrowserGuard:
    """Host and Origin lists, on by default (specification, ``basic/transports``: DNS rebinding).

    Args:
        host: the address the gateway listens on; on a loopback one only loopback names are accepted as Host.
        allowed_hosts: names accepted as Host, with or without a port; empty on a public address accepts all.
        allowed_origins: origins accepted besides loopback ones, for browsers.
    """

    def __init__(self, host: str, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]) -> None:
        self._local = is_loopback(host)
        self._hosts = frozenset(name.lower() for name in allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        self._known_hosts: set[str] = set()

    def check(self, headers: Mapping[str, str], repeated: frozenset[str]) -> None:
        """Refuse a foreign Host or Origin.

        Raises:
            Forbidden: 403 for a foreign Origin, 421 for a foreign Host.
            InvalidRequest: no Host, or several.
        """
        host = headers.get("host")
        if host is None or "host" in repeated:
            raise InvalidRequest("A request needs exactly one Host header.", rule="guard.host")
        if host not in self._known_hosts:
            self._check_host(host)
        origin = headers.get("origin")
        if origin is not None and ("origin" in repeated or not self.allows_origin(origin)):
            raise Forbidden("Requests from this web origin are not allowed here.")

    def allows_origin(self, origin: str) -> bool:
        """Whether a web page of this origin may use the gateway."""
        if origin.lower() in self._origins:
            return True
        return self._local and _LOOPBACK_ORIGIN.fullmatch(origin) is not None

    def cors(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """What an allowed browser must be told to hand the answer to its page."""
        if origin is None or not self.allows_origin(origin):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _CORS_EXPOSED.encode()),
            (b"vary", b"origin"),
        ]

    def preflight(self, origin: str, asked: str = "") -> list[tuple[bytes, bytes]]:
        """The answer to a browser's question before its first request; ``asked`` are the headers that it names.

        The mirrors of arguments (``Mcp-Param-*``) have names that only tools know: those asked for are allowed.
        """
        mirrors = [name for part in asked.lower().split(",") if _MIRROR.fullmatch(name := part.strip())]
        return [
            *self.cors(origin),
            (b"access-control-allow-methods", _CORS_METHODS.encode()),
            (b"access-control-allow-headers", ", ".join((_CORS_HEADERS, *mirrors)).encode()),
            (b"access-control-max-age", b"600"),
        ]

    def _check_host(self, host: str) -> None:
        name = _name_of(host)
        allowed = host.lower() in self._hosts or name in self._hosts
        if not allowed and self._local:
            allowed = name in _LOOPBACK_NAMES
        elif not allowed and not self._hosts:
            allowed = True
        if not allowed:
            raise InvalidRequest("This Host is not served here.", status=421, rule="guard.host")
        if len(self._known_hosts) < 256 and len(host) < 256:
            self._known_hosts.add(host)


def check_framing(headers: Mapping[str, str], repeated: frozenset[str], max_body: int) -> None:
    """Refuse a body that is not plain JSON of a bounded length, before any of it is read.

    Raises:
        InvalidRequest: 400, 413 or 415.
    """
    if repeated and repeated & _FRAMING:
        raise InvalidRequest("A header that describes the body appears more than once.", rule="guard.framing")
    if "content-encoding" in headers:
        raise InvalidRequest(
            "Content-Encoding is not supported; send the body plain.", status=415, rule="guard.content_encoding"
        )
    media_type = headers.get("content-type", "")
    if media_type != "application/json" and media_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest("The Content-Type must be application/json.", status=415, rule="guard.media_type")
    length = headers.get("content-length")
    if length is not None:
        if "transfer-encoding" in headers or not length.isascii() or not length.isdigit():
            raise InvalidRequest("The length of the body is not clear.", rule="guard.framing")
        if len(length) > len(str(max_body)) + 20 or int(length) > max_body:
            raise too_large(max_body)


def accepts(headers: Mapping[str, str], media_type: str) -> bool:
    """Whether the client takes this type; a missing Accept takes everything (RFC 9110, 12.5.1)."""
    accept = headers.get("accept")
    return accept is None or media_type in _accepted(accept[:1024])


def too_large(max_body: int) -> InvalidRequest:
    """413 with the bound."""
    return InvalidRequest(f"The body is over {max_body} bytes.", status=413, rule="guard.body_size")


@lru_cache(maxsize=256)
def _accepted(accept: str) -> frozenset[str]:
    """Which of the media types that the gateway sends an Accept header takes."""
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return frozenset(name for name in _SENT if ranges & {name, name.partition("/")[0] + "/*", "*/*"})


def is_loopback(host: str) -> bool:
    """Whether an address or name reaches this machine only."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """The name of a Host without its port; empty where it is none."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""
