"""When a failed call may be sent once more: surely not executed, or harmless to execute twice. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import jiter
import msgspec
from mcp.shared.inbound import mcp_param_headers, x_mcp_header_map
from msgspec.structs import replace

from gateway.backends.link import ConnectionLost
from gateway.errors import BackendUnavailable
from gateway.models import BackendRequest, Listing

SHARE = 0.2
"""Of all calls, at most so many are repetitions of idempotent ones (a retry budget, as Envoy has)."""

_SAVED = 10.0


class Repeats:
    """Each call earns a fifth of a repetition; a backend that is down is not also asked twice by everyone."""

    __slots__ = ("_chance", "_saved")

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._saved = _SAVED

    def earn(self) -> None:
        """A call is made."""
        if self._saved < _SAVED:
            self._saved += SHARE

    def allow(self, failure: BackendUnavailable, request: BackendRequest) -> bool:
        """Whether to send ``request`` once more after ``failure``."""
        if not isinstance(failure, ConnectionLost):
            return False
        if not failure.dispatched:
            return True
        if not request.idempotent or self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True

    def pause(self) -> float:
        """Seconds before it: by chance, so that not all come at once."""
        return self._chance() * 0.05


def with_fresh_headers(request: BackendRequest, listing: Listing | None) -> BackendRequest:
    """The request with its ``Mcp-Param-*`` headers made by the tool's present definition (SEP-2243)."""
    tools = listing.tools if listing is not None else ()
    schema = next((tool.get("inputSchema") for tool in tools if tool.get("name") == request.name), None)
    if not isinstance(schema, dict) or request.method != "tools/call":
        return request
    return replace(request, headers=mcp_param_headers(x_mcp_header_map(schema), _arguments(request.params)))


def _arguments(params: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = params.get("arguments")
    if isinstance(arguments, msgspec.Raw):
        arguments = jiter.from_json(bytes(arguments))
    return arguments if isinstance(arguments, dict) else {}
