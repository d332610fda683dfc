"""Which backend asks: a client has to show it (``client/elicitation``), and would say that it is the gateway.

The name of the route stands in ``_meta`` of each question. Whatever else is the gateway's to say there is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.protocol import revisions
from gateway.protocol.strict_json import members


def by(route: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """An ``input_required`` result whose requests say that this route asks; what has another shape stays as it is."""
    requests = _members(result.get("inputRequests"))
    if requests is None:
        return dict(result)
    return {**result, "inputRequests": {key: _request(route, request) for key, request in requests.items()}}


def named(route: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a question, which say that this route asks."""
    meta = _members(params.get("_meta")) or {}
    kept = {key: value for key, value in meta.items() if not key.startswith(revisions.VENDOR_PREFIX)}
    return {**params, "_meta": {**kept, revisions.ROUTE: route}}


def _request(route: str, request: Any) -> Any:
    parts = _members(request)
    if parts is None:
        return request
    params = _members(parts.get("params", {}))
    return request if params is None else {**parts, "params": named(route, params)}


def _members(value: Any) -> dict[str, Any] | None:
    """The members of an object; None where it is none."""
    if isinstance(value, msgspec.Raw):
        return dict(members(value)) if bytes(value).lstrip()[:1] == b"{" else None
    return dict(value) if isinstance(value, Mapping) else None
