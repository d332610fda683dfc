"""A request of a session that waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import jiter
import msgspec

from gateway.models import BackendRequest, JsonObject
from gateway.ports import Notify


class Running:
    """A request that waits: its deadlines move with its progress."""

    __slots__ = ("_last", "first", "notify", "request", "scope", "token")

    def __init__(self, request: BackendRequest, notify: Notify, token: int) -> None:
        self.request = request
        self.notify = notify
        self.token = token
        self.scope: asyncio.Timeout | None = None
        self.first = min(request.timeout, request.max_timeout)
        self._last = asyncio.get_running_loop().time() + request.max_timeout

    def progressed(self, params: Mapping[str, Any]) -> None:
        """The backend is still at it: wait on, and tell who wants to know."""
        if self.scope is not None and not self.scope.expired():
            now = asyncio.get_running_loop().time()
            self.scope.reschedule(min(now + self.request.timeout, self._last))
        if self.request.wants_progress:
            self.notify("notifications/progress", {k: v for k, v in params.items() if k != "progressToken"})


def plain(params: Mapping[str, Any]) -> JsonObject:
    """Parameters that the SDK can write: bytes of the client are decoded, exactly (integers of any size)."""
    return {
        name: jiter.from_json(bytes(value)) if isinstance(value, msgspec.Raw) else value
        for name, value in params.items()
    }
