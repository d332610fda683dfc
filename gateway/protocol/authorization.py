"""What a client needs to find its authorization server: the RFC 9728 document and the ``WWW-Authenticate`` challenge.

MCP ``basic/authorization``: both places of the document, ``scope`` in every challenge, all scopes of an operation at
once. Pure text; nothing here decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from gateway.errors import InsufficientScope, Unauthenticated
from gateway.models import JsonObject

if TYPE_CHECKING:
    from gateway.routes import Auth

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749 section 3.3."""
_NOT_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
"""RFC 6750 section 3: what ``error_description`` may not contain."""
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_NOT_SUPPORTED = frozenset({"offline_access"})
"""A matter between client and authorization server; a resource server does not advertise it (MCP authorization)."""


def protected_resource_metadata(auth: Auth, toolset: str | None, scopes: Iterable[str]) -> JsonObject:
    """The document of RFC 9728 section 2 for ``/mcp`` (``toolset`` is None) or ``/mcp/<toolset>``."""
    document: JsonObject = {
        "resource": _resource(auth, toolset),
        "authorization_servers": list(dict.fromkeys(issuer.issuer for issuer in auth.issuers)),
        "bearer_methods_supported": ["header"],
        "resource_name": f"mcp-gateway: {toolset}" if toolset else "mcp-gateway",
    }
    supported = _scope_tokens(scopes)
    if supported:
        document["scopes_supported"] = supported
    return document


def metadata_url(auth: Auth, toolset: str | None) -> str:
    """Where that document is: the well-known path between host and path of the resource (RFC 9728 section 3.1)."""
    parts = urlsplit(_resource(auth, toolset))
    return urlunsplit((parts.scheme, parts.netloc, _WELL_KNOWN + parts.path.rstrip("/"), parts.query, ""))


def challenge(
    refusal: Unauthenticated | InsufficientScope, auth: Auth, toolset: str | None, scopes_hint: Iterable[str]
) -> str:
    """The ``WWW-Authenticate`` value of a 401 or 403 (RFC 6750 section 3, RFC 9728 section 5.1).

    ``scopes_hint`` is what to ask for where no token came or it was not accepted; a 403 names the scopes it needs.
    Safe to send whatever the parts contain: nothing leaves its quoted string.
    """
    parameters = {"resource_metadata": metadata_url(auth, toolset)}
    if isinstance(refusal, InsufficientScope):
        parameters |= {"error": "insufficient_scope", "scope": " ".join(_scope_tokens(refusal.needed))}
    else:
        parameters["scope"] = " ".join(_scope_tokens(scopes_hint))
        if refusal.token_presented:
            parameters["error"] = "invalid_token"
    if "error" in parameters:
        parameters["error_description"] = _NOT_DESCRIPTION.sub("'", refusal.message)
    return "Bearer " + ", ".join(f"{name}={_quoted(value)}" for name, value in parameters.items() if value)


def _resource(auth: Auth, toolset: str | None) -> str:
    return f"{auth.resource.rstrip('/')}/{toolset}" if toolset else auth.resource


def _scope_tokens(scopes: Iterable[str]) -> list[str]:
    return sorted(scope for scope in set(scopes) - _NOT_SUPPORTED if _SCOPE_TOKEN.fullmatch(scope))


def _quoted(text: str) -> str:
    """A quoted-string of RFC 9110 section 5.6.4, without anything that is not printable ASCII."""
    plain = _NOT_PRINTABLE.sub("", text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
