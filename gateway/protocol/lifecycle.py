"""What the gateway answers itself: ``initialize``, ``server/discover``, lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.protocol import jsonrpc, revisions

INSTRUCTIONS = (
    "Tools of several servers behind one address; the part of a tool's name before the double underscore tells which. "
    "A refused call says in its text what to do next."
)


def server_info(version: str) -> msgspec.Raw:
    """Our ``serverInfo``, as ready JSON."""
    return msgspec.Raw(msgspec.json.encode({"name": "mcp-gateway", "title": "MCP gateway", "version": version}))


def negotiate(message: jsonrpc.Request) -> tuple[str, Mapping[str, Any], Mapping[str, Any] | None]:
    """The revision, capabilities and client info of an ``initialize`` (2025-11-25, ``basic/lifecycle``).

    A revision that is not served, a modern one included, is answered with the latest legacy one.

    Raises:
        InvalidRequest: -32602 where a member has the wrong type.
    """
    asked = message.params.get("protocolVersion")
    capabilities = message.params.get("capabilities", {})
    client_info = message.params.get("clientInfo")
    if not isinstance(asked, str) or not isinstance(capabilities, dict):
        raise InvalidRequest(
            "initialize needs protocolVersion (a string) and capabilities (an object).", code=INVALID_PARAMS
        )
    revision = asked if asked in revisions.LEGACY else revisions.LATEST_LEGACY
    return revision, capabilities, client_info if isinstance(client_info, dict) else None


def capabilities(*, list_changed: bool) -> dict[str, Any]:
    """What we advertise: only what works for the era that asks (``server/discover`` D2)."""
    return {"tools": {"listChanged": True} if list_changed else {}}


def initialize_result(revision: str, info: msgspec.Raw) -> dict[str, Any]:
    """The answer to ``initialize``."""
    return {
        "protocolVersion": revision,
        "capabilities": capabilities(list_changed=True),
        "serverInfo": info,
        "instructions": INSTRUCTIONS,
    }


def discover_result() -> dict[str, Any]:
    """The answer to ``server/discover``; it differs by nobody, but caches nowhere either while routes may reload."""
    return {
        "supportedVersions": list(revisions.MODERN),
        "capabilities": capabilities(list_changed=False),
        "instructions": INSTRUCTIONS,
        "ttlMs": 0,
        "cacheScope": "private",
    }


def tools_result(rendered: Sequence[bytes]) -> dict[str, Any]:
    """The answer to ``tools/list`` of ready definitions."""
    members: dict[str, Any] = {
        "tools": msgspec.Raw(b"[" + b",".join(rendered) + b"]"),
        "ttlMs": 0,
        "cacheScope": "private",
    }
    return members


def refuse_cursor(params: Mapping[str, Any]) -> None:
    """Lists are served whole from the snapshot, so no cursor was ever given out."""
    if "cursor" in params:
        raise InvalidRequest("This cursor is not one of ours; list again without it.", code=INVALID_PARAMS, status=200)
