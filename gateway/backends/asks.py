"""What a backend asks of the client in mid-call, and whether the client said that it can answer.

A request that the client did not declare never reaches it (2026-07-28, ``basic/patterns/mrtr``,
``client/elicitation``, ``client/sampling``, ``client/roots``). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.errors import MISSING_CAPABILITY
from gateway.models import JsonObject

ASKING_METHODS = frozenset({"tools/call", "prompts/get", "resources/read"})
"""The only ones whose result may be ``input_required``."""


class NoQuestion(ValueError):  # noqa: N818 - says what it is
    """Not a request that a server may put to a client."""


def undeclared(requests: Iterable[Any], capabilities: Mapping[str, Any]) -> JsonObject:
    """The capabilities that ``requests`` need and ``capabilities`` lack; empty where nothing is lacking.

    Raises:
        NoQuestion: one of them is no elicitation, sampling or roots request.
    """
    lacking: JsonObject = {}
    for request in requests:
        feature, sub = _need(request)
        if not _covers(capabilities, feature, sub):
            lacking.setdefault(feature, {}).update({sub: {}} if sub else {})
    return lacking


def missing_capability(route: str, lacking: Mapping[str, Any]) -> JsonObject:
    """The error -32021 that is said in place of the question."""
    named = ", ".join(".".join((feature, *subs)) for feature, subs in lacking.items())
    return {
        "code": MISSING_CAPABILITY,
        "message": f"The {route} backend asks for what was not declared to it: {named}.",
        "data": {"requiredCapabilities": dict(lacking)},
    }


def _need(request: Any) -> tuple[str, str]:
    """The capability and sub-capability that a request needs."""
    if not isinstance(request, dict):
        raise NoQuestion
    params = request.get("params")
    params = params if isinstance(params, dict) else {}
    method = request.get("method")
    if method == "elicitation/create":
        mode = params.get("mode", "form")
        if mode not in ("form", "url"):
            raise NoQuestion
        return "elicitation", mode
    if method == "sampling/createMessage":
        tools = params.get("tools") is not None or params.get("toolChoice") is not None
        return "sampling", "tools" if tools else ""
    if method == "roots/list":
        return "roots", ""
    raise NoQuestion


def _covers(capabilities: Mapping[str, Any], feature: str, sub: str) -> bool:
    declared = capabilities.get(feature)
    if not isinstance(declared, dict):
        return False
    if sub == "form":  # an empty object, as older clients send it, means forms alone
        return not declared or declared.get("form") is not None
    return not sub or declared.get(sub) is not None
