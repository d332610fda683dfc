"""What a legacy backend asks in mid-call, in the modern form, and the answers in the legacy one. Pure.

Specification: 2025-11-25 ``client/elicitation|sampling|roots``; 2026-07-28 ``basic/patterns/mrtr``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.backends import asks, link
from gateway.backends.running import plain
from gateway.errors import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY
from gateway.models import BackendReply, BackendRequest, JsonObject
from gateway.protocol.revisions import RESERVED_PREFIX
from gateway.protocol.sealing import owner_of

URL_REQUIRED = -32042
"""``URLElicitationRequiredError``, 2025-11-25 only."""

RESOURCE_NOT_FOUND = -32002

_PARTS = {"elicitation": ("form", "url"), "sampling": ("context", "tools"), "roots": ()}
_ACTIONS = ("accept", "decline", "cancel")


class Undeclared(NamedTuple):
    """Code and words for the backend, and the capabilities that the client lacks."""

    code: int
    message: str
    lacking: JsonObject


def profile_of(capabilities: Mapping[str, Any]) -> JsonObject:
    """What is announced to a legacy backend of a client with these capabilities: nothing that it did not declare."""
    profile: JsonObject = {}
    for feature, parts in _PARTS.items():
        declared = capabilities.get(feature)
        if isinstance(declared, dict):
            profile[feature] = {part: {} for part in parts if isinstance(declared.get(part), dict)}
    # An empty object stands for forms alone; one with other members for those.
    if profile.get("elicitation") == {}:
        if capabilities["elicitation"]:
            del profile["elicitation"]
        else:
            profile["elicitation"] = {"form": {}}
    return profile


def canonical(profile: JsonObject) -> str:
    """One text for one profile, empty for none."""
    return json.dumps(profile, sort_keys=True) if profile else ""


def undeclared(profile: Mapping[str, Any], method: str, params: Mapping[str, Any]) -> Undeclared | None:
    """How a question is refused that the client did not say it can answer; None where it did."""
    try:
        lacking = asks.undeclared([{"method": method, "params": params}], profile)
    except asks.NoQuestion:
        return Undeclared(METHOD_NOT_FOUND, f"{method} is not supported by this client", {})
    if not lacking:
        return None
    ((feature, parts),) = lacking.items()
    if feature not in profile:
        return Undeclared(METHOD_NOT_FOUND, f"{method} is not supported by this client", lacking)
    return Undeclared(INVALID_PARAMS, f"This client did not declare {'.'.join((feature, *parts))}", lacking)


def as_modern(method: str, params: Mapping[str, Any]) -> JsonObject:
    """A question as one of the ``inputRequests``."""
    members = {name: value for name, value in params.items() if name not in ("_meta", "task", "elicitationId")}
    meta = params.get("_meta")
    kept = {k: v for k, v in meta.items() if _crosses(k)} if isinstance(meta, dict) else {}
    if kept:
        members["_meta"] = kept
    if method == "elicitation/create":
        members.setdefault("mode", "form")
    return {"method": method, "params": members} if members or method != "roots/list" else {"method": method}


def as_legacy(method: str, answer: Any) -> JsonObject | None:
    """An answer as the result of the backend's request; None where it is not one, and is to be asked for again."""
    if not isinstance(answer, dict):
        return None
    if method == "elicitation/create":
        fits = answer.get("action") in _ACTIONS
    elif method == "roots/list":
        fits = isinstance(answer.get("roots"), list)
    else:
        fits = isinstance(answer.get("role"), str) and isinstance(answer.get("content"), dict | list)
    return {name: value for name, value in answer.items() if name != "resultType"} if fits else None


def urls_of(error: Mapping[str, Any]) -> dict[str, JsonObject]:
    """The questions that an ``URLElicitationRequiredError`` stands for; empty if it is none."""
    data = error.get("data")
    entries = data.get("elicitations") if error.get("code") == URL_REQUIRED and isinstance(data, dict) else None
    if not isinstance(entries, list):
        return {}
    usable = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("url"), str)]
    return {
        f"url-{number}": as_modern("elicitation/create", {**entry, "mode": "url"})
        for number, entry in enumerate(usable, start=1)
    }


def modern_error(error: JsonObject) -> JsonObject:
    """An error of a legacy backend in the words of 2026-07-28."""
    if error.get("code") == RESOURCE_NOT_FOUND:
        return {**error, "code": INVALID_PARAMS}
    if error.get("code") == URL_REQUIRED:
        return {
            "code": MISSING_CAPABILITY,
            "message": "This request needs a URL to be opened, which was not declared to it (elicitation.url).",
            "data": {"requiredCapabilities": {"elicitation": {"url": {}}}},
        }
    return error


def checked(route: str, request: BackendRequest, reply: BackendReply) -> BackendReply:
    """A reply of a modern backend; an error where it asks for more than the client declared (-32021).

    Raises:
        BackendUnavailable: it asks, but not for what may be asked.
    """
    result = reply.result or {}
    if result.get("resultType") != "input_required":
        return reply
    asked = result.get("inputRequests") or {}
    known = isinstance(asked, dict) and (asked or "requestState" in result)
    if request.method not in asks.ASKING_METHODS or not known:
        raise link.unusable(route)
    try:
        lacking = asks.undeclared(asked.values(), request.capabilities)
    except asks.NoQuestion:
        raise link.unusable(route) from None
    return BackendReply(None, asks.missing_capability(route, lacking), reply.seconds) if lacking else reply


def binding_of(request: BackendRequest) -> str:
    """A digest of who asks for what: a retry must have the same."""
    params = plain(request.params)
    what = [params.get("name"), params.get("uri"), params.get("arguments")]
    text = json.dumps([owner_of(request.principal), request.method, what], sort_keys=True, default=_decoded)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _decoded(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return json.loads(bytes(value))
    raise TypeError


def _crosses(key: str) -> bool:
    return key != "progressToken" and not key.startswith(RESERVED_PREFIX)
