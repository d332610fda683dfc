"""What a client of either era can do, and how results are told to the older one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from gateway.errors import INVALID_PARAMS, InvalidRequest
from gateway.models import ClientRequest

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""RFC 5424, least severe first."""

ASKED: Mapping[str, str] = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
"""What a backend may ask a client, and the capability that the client declares for it (``basic/patterns/mrtr``)."""

LOG_LEVEL = "io.modelcontextprotocol/logLevel"

_TASKS = "io.modelcontextprotocol/tasks"


def carried_capabilities(request: ClientRequest, *, can_ask: bool, urls: bool) -> Mapping[str, Any]:
    """The capabilities that this gateway carries end to end; a backend must not ask for what would get lost.

    ``can_ask``: the client's stream takes requests of the server. ``urls``: the backend may send people to URLs.
    """
    if request.era == "modern":
        carried = request.capabilities
        if "tasks" in carried or "extensions" in carried:
            carried = _without_tasks(carried)
    else:
        carried = _of_legacy(request.revision, request.capabilities) if can_ask else {}
    return carried if urls or "elicitation" not in carried else _without_urls(carried)


def log_level_of(request: ClientRequest) -> str | None:
    """The least severe log message that a request wants.

    Raises:
        InvalidRequest: -32602 for a level there is none of.
    """
    level = request.meta.get(LOG_LEVEL)
    if level is None or level in LOG_LEVELS:
        return level
    raise unknown_level()


def unknown_level() -> InvalidRequest:
    """-32602 with the levels there are."""
    return InvalidRequest(f"The log level must be one of {', '.join(LOG_LEVELS)}.", code=INVALID_PARAMS, status=200)


def at_least(level: Any, wanted: str) -> bool:
    """Whether a message of this level is to be sent to one who wants that level."""
    return level in LOG_LEVELS and LOG_LEVELS.index(level) >= LOG_LEVELS.index(wanted)


def question(method: str, params: Mapping[str, Any], revision: str) -> Mapping[str, Any]:
    """The parameters of a server's request as this legacy revision has them."""
    if method == "elicitation/create" and params.get("mode") == "url" and "elicitationId" not in params:
        return {**params, "elicitationId": secrets.token_urlsafe(16)}
    return params


def _without_tasks(capabilities: Mapping[str, Any]) -> Mapping[str, Any]:
    """Neither the extension nor, should a client mix them, the tasks of 2025-11-25."""
    if "tasks" in capabilities:
        capabilities = {name: value for name, value in capabilities.items() if name != "tasks"}
    extensions = capabilities.get("extensions")
    if not isinstance(extensions, dict) or _TASKS not in extensions:
        return capabilities
    return {**capabilities, "extensions": {name: value for name, value in extensions.items() if name != _TASKS}}


def _without_urls(capabilities: Mapping[str, Any]) -> Mapping[str, Any]:
    """An empty object would stand for forms, so that one that had URLs alone is left out."""
    elicitation = capabilities["elicitation"]
    if not isinstance(elicitation, dict) or "url" not in elicitation:
        return capabilities
    modes = {mode: value for mode, value in elicitation.items() if mode != "url"}
    others = {name: value for name, value in capabilities.items() if name != "elicitation"}
    return {**others, "elicitation": modes} if modes else others


def _of_legacy(revision: str, capabilities: Mapping[str, Any]) -> dict[str, Any]:
    carried: dict[str, Any] = {}
    if isinstance(capabilities.get("sampling"), dict):
        carried["sampling"] = capabilities["sampling"]
    if isinstance(capabilities.get("roots"), dict):
        carried["roots"] = {}
    elicitation = capabilities.get("elicitation")
    if isinstance(elicitation, dict) and revision >= "2025-06-18":
        carried["elicitation"] = elicitation if revision >= "2025-11-25" else {}
    return carried
