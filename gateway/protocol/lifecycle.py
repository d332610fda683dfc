"""What the gateway answers itself: ``initialize``, ``server/discover``, lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.models import Kind
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
        InvalidRequest: -32602 where a member has the wrong type, or they say more than ``MAX_SAID``.
    """
    asked = message.params.get("protocolVersion")
    capabilities = message.params.get("capabilities", {})
    client_info = message.params.get("clientInfo")
    if not isinstance(asked, str) or not isinstance(capabilities, dict):
        raise InvalidRequest(
            "initialize needs protocolVersion (a string) and capabilities (an object).", code=INVALID_PARAMS
        )
    if len(str((capabilities, client_info))) > MAX_SAID:
        raise InvalidRequest(
            f"capabilities and clientInfo are over {MAX_SAID} characters together; a session has to remember them.",
            code=INVALID_PARAMS,
        )
    revision = asked if asked in revisions.LEGACY else revisions.LATEST_LEGACY
    return revision, capabilities, client_info if isinstance(client_info, dict) else None


MAX_SAID = 8192
"""Characters of what a client says of itself: the session id holds it, and has to fit the head of every request."""

WHERE_LISTED: Mapping[Kind, str] = {
    "tool": "tools/list shows what you may call.",
    "prompt": "prompts/list shows what there is.",
    "resource": "resources/list and resources/templates/list show what there is.",
    "template": "resources/templates/list shows what there is.",
}
"""What to do after asking for something that is not there."""

_CHANGING = ("tools", "prompts", "resources")


def _advertised(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """What some backend has, with ``listChanged`` where the gateway tells of changes in both eras."""
    return {
        feature: {**parts, "listChanged": True} if feature in _CHANGING else parts
        for feature, parts in capabilities.items()
    }


def initialize_result(revision: str, capabilities: Mapping[str, Any], info: msgspec.Raw) -> dict[str, Any]:
    """The answer to ``initialize``."""
    return {
        "protocolVersion": revision,
        "capabilities": _advertised(capabilities),
        "serverInfo": info,
        "instructions": INSTRUCTIONS,
    }


def discover_result(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to ``server/discover``. It is kept by nobody: routes may reload at any time."""
    return {
        "supportedVersions": list(revisions.MODERN),
        "capabilities": _advertised(capabilities),
        "instructions": INSTRUCTIONS,
        "ttlMs": 0,
        "cacheScope": "private",
    }


def list_result(member: str, rendered: Sequence[bytes], stale: Sequence[str]) -> dict[str, Any]:
    """The answer to a list request, of ready definitions. Private, because it is filtered for its caller.

    ``stale`` names the routes whose part is from before their backend was lost.
    """
    parts: dict[str, Any] = {member: msgspec.Raw(b"[" + b",".join(rendered) + b"]")}
    if stale:
        parts["_meta"] = {revisions.STALE: list(stale)}
    return {**parts, "ttlMs": 0, "cacheScope": "private"}


def with_caching_hints(result: Mapping[str, Any]) -> dict[str, Any]:
    """The hints that a modern result needs and a legacy backend does not give: kept by nobody."""
    if _is_input_required(result):
        return dict(result)
    return {"ttlMs": 0, "cacheScope": "private", **result}


def _is_input_required(result: Mapping[str, Any]) -> bool:
    kind = result.get("resultType")
    return kind == "input_required" or kind == msgspec.Raw(b'"input_required"')


def refuse_cursor(params: Mapping[str, Any]) -> None:
    """Lists are served whole from the snapshot, so no cursor was ever given out."""
    if "cursor" in params:
        raise InvalidRequest(
            "This cursor is not one of ours; list again without it.",
            code=INVALID_PARAMS,
            status=200,
            rule="protocol.cursor",
        )
