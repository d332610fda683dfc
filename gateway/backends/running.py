"""A request of a session that waits for its answer, and what the backend asks meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import jiter
import msgspec
from mcp.shared.exceptions import MCPError

from gateway.backends.wire import Exchange
from gateway.errors import INTERNAL_ERROR
from gateway.models import BackendRequest, JsonObject
from gateway.ports import Notify


class Question:
    """One request of the backend to the client. ``answer`` is its result, or the error that it gets."""

    __slots__ = ("answer", "method", "params")

    def __init__(self, method: str, params: Mapping[str, Any]) -> None:
        self.method = method
        self.params = params
        self.answer: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()


class Running:
    """A request that waits: its deadlines move with its progress, and rest while a question is open.

    ``may_ask``: someone answers questions. ``open`` has those that wait for it, ``news`` is set when there is one more.
    ``exchange`` is the request on its way, ``token`` what its progress is told by, ``undeclared`` what of a refused
    question its client is told.
    """

    __slots__ = (
        *("_asked", "_last", "_left", "exchange", "first", "may_ask"),
        *("news", "notify", "open", "request", "scope", "token", "undeclared"),
    )

    def __init__(self, request: BackendRequest, notify: Notify, *, may_ask: bool = False) -> None:
        self.request = request
        self.notify = notify
        self.may_ask = may_ask
        self.token = 0
        self.exchange: Exchange | None = None
        self.scope: asyncio.Timeout | None = None
        self.first = min(request.timeout, request.max_timeout)
        self.open: dict[str, Question] = {}
        self.undeclared: JsonObject | None = None
        self.news = asyncio.Event()
        self._asked = 0
        self._left = request.max_timeout
        self._last = _now() + request.max_timeout

    def progressed(self, params: Mapping[str, Any]) -> None:
        """The backend is still at it: wait on, and tell who wants to know."""
        if not self.open:
            self._postpone(min(_now() + self.request.timeout, self._last))
        if self.request.wants_progress:
            self.notify("notifications/progress", {k: v for k, v in params.items() if k != "progressToken"})

    async def ask(self, method: str, params: Mapping[str, Any]) -> JsonObject:
        """Put a question and wait for its answer.

        Raises:
            MCPError: there will be none.
        """
        self._asked += 1
        key = f"{method.partition('/')[0]}-{self._asked}"
        question = self.open[key] = Question(method, params)
        if len(self.open) == 1:
            self._left = self._last - _now()
            self._postpone(None)
        self.news.set()
        try:
            return await question.answer
        finally:
            self._close(key)

    def reply(self, key: str, answer: JsonObject) -> None:
        """Give the answer to an open question."""
        question = self.open[key]
        if not question.answer.done():
            question.answer.set_result(answer)
        self._close(key)

    def refuse(self, why: str) -> None:
        """Nobody will answer what is open."""
        for key, question in list(self.open.items()):
            if not question.answer.done():
                question.answer.set_exception(MCPError(INTERNAL_ERROR, why))
            self._close(key)

    def _close(self, key: str) -> None:
        if self.open.pop(key, None) is not None and not self.open:
            self._last = _now() + self._left
            self._postpone(min(_now() + self.request.timeout, self._last))

    def _postpone(self, end: float | None) -> None:
        if self.scope is not None and not self.scope.expired():
            self.scope.reschedule(end)


def plain(params: Mapping[str, Any]) -> JsonObject:
    """Parameters that the SDK can write: bytes of the client are decoded, exactly (integers of any size)."""
    return {
        name: jiter.from_json(bytes(value)) if isinstance(value, msgspec.Raw) else value
        for name, value in params.items()
    }


def unheard(method: str, params: Mapping[str, Any]) -> None:
    """Where nobody listens."""


def _now() -> float:
    return asyncio.get_running_loop().time()
