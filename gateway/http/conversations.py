"""Requests of legacy clients that run, and what they are asked meanwhile: who may cancel what, who answers what.

A client's answer comes in a POST of its own. The id of a question says which process waits for it.

Requests that run at the same time must have different ids (2025-11-25, ``basic/index``). Where a client breaks that, a
cancellation means all that have the id: which of them cannot be known, and no replica sees the requests of another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import ClientSilent

_Key = tuple[str, str | int]


@dataclass(slots=True, eq=False)
class Running:
    """A request that runs; ``task`` serves it. ``cancelled``: by its client, which then wants no answer."""

    session_id: str
    request_id: str | int
    task: asyncio.Task[Any] | None
    cancelled: bool = False


class Conversations:
    """Implements ``ports.Conversations`` for this process. ``here`` is its address among the replicas."""

    def __init__(self, here: str) -> None:
        self._here = here
        self._numbers = itertools.count(1)
        self._running: dict[_Key, list[Running]] = {}
        self._waiting: dict[_Key, asyncio.Future[Mapping[str, Any]]] = {}

    def begin(self, session_id: str, request_id: str | int) -> Running:
        """The current task serves this request of the session."""
        running = Running(session_id, request_id, asyncio.current_task())
        self._running.setdefault((session_id, request_id), []).append(running)
        return running

    def end(self, running: Running) -> None:
        """The request has ended. Idempotent."""
        key = running.session_id, running.request_id
        alike = self._running.get(key, [])
        if running in alike:
            alike.remove(running)
            if not alike:
                del self._running[key]

    def cancel(self, session_id: str, request_id: Any) -> None:
        """See ``ports.Conversations``."""
        if isinstance(request_id, str | int) and not isinstance(request_id, bool):
            for running in self._running.pop((session_id, request_id), ()):
                if running.task is not None:
                    running.cancelled = True
                    running.task.cancel()

    def question(self, session_id: str) -> tuple[str, asyncio.Future[Mapping[str, Any]]]:
        """A new id to ask under, and the answer to come."""
        number = f"{self._here}.{next(self._numbers)}"
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[(session_id, number)] = waiting
        return number, waiting

    async def answer(
        self, session_id: str, number: str, waiting: asyncio.Future[Mapping[str, Any]], seconds: float
    ) -> Mapping[str, Any]:
        """Wait for the client's result.

        Raises:
            ClientSilent: it answered with an error, or not in time.
        """
        try:
            async with asyncio.timeout(seconds):
                response = await waiting
        except TimeoutError:
            raise ClientSilent("The client did not answer a question of the backend in time.") from None
        finally:
            self._waiting.pop((session_id, number), None)
        result = response.get("result")
        if not isinstance(result, dict):
            raise ClientSilent("The client refused to answer a question of the backend.")
        return result

    def deliver(self, session_id: str, response: Mapping[str, Any]) -> None:
        """See ``ports.Conversations``."""
        waiting = self._waiting.pop((session_id, response["id"]), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(response)
