"""Calls of legacy backends that wait while their client is asked.

A question of the backend in mid-call ends the client's request with ``input_required``; the backend's call stays open
in a task of its own until the retry brings the answers (2026-07-28, ``basic/patterns/mrtr``). Handles are unguessable,
used once, and good only for the principal and the request that they were given to.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from gateway.backends import link, questions
from gateway.backends.running import Running, plain, unheard
from gateway.errors import INVALID_PARAMS, INVALID_REQUEST, InvalidRequest
from gateway.models import BackendReply, BackendRequest, JsonObject
from gateway.ports import Notify

logger = logging.getLogger(__name__)

TOGETHER = 0.02
"""Seconds in which further questions are put in the same round."""

Send = Callable[[Running], Awaitable[BackendReply]]
Again = Callable[[BackendRequest, Notify], Awaitable[BackendReply]]


@dataclass(slots=True)
class _Call:
    """A call that the backend still works on, or that has ended meanwhile."""

    running: Running
    task: asyncio.Task[BackendReply]
    binding: str = ""
    expires: float = 0.0


@dataclass(slots=True)
class _Urls:
    """A call that the backend refused until these URLs were opened."""

    asked: dict[str, JsonObject]
    binding: str
    expires: float = 0.0


class Parking:
    """The calls of one route. ``ttl`` is in seconds of ``clock``; at most ``limit`` calls are parked at a time."""

    def __init__(self, route: str, *, clock: Callable[[], float], ttl: float = 600.0, limit: int = 1_000) -> None:
        self._route = route
        self._clock = clock
        self._ttl = ttl
        self._limit = limit
        self._parked: dict[str, _Call | _Urls] = {}
        self._tasks: set[asyncio.Task[BackendReply]] = set()

    def __len__(self) -> int:
        return len(self._parked)

    async def carry(self, running: Running, send: Send) -> BackendReply:
        """The backend's answer, or its first questions. Cancelling it before cancels the call."""
        task = asyncio.ensure_future(_run(send, running))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._done(ended, running))
        return await self._wait(_Call(running, task))

    async def resume(self, request: BackendRequest, notify: Notify, again: Again) -> BackendReply:
        """Go on with the parked call whose handle ``request.state`` is; ``again`` makes a call anew.

        Raises:
            InvalidRequest: the handle is unknown, used, expired or another's.
        """
        parked = self._take(request)
        answers = plain(request.answers or {})
        if isinstance(parked, _Urls):
            return await self._opened(parked, answers, request, notify, again)
        running = parked.running
        running.request = replace(running.request, wants_progress=request.wants_progress, log_level=request.log_level)
        running.notify = notify
        for key, question in list(running.open.items()):
            answer = questions.as_legacy(question.method, answers.get(key))
            if answer is not None:
                running.reply(key, answer)
        if running.open:
            running.news.set()
        return await self._wait(parked)

    def sweep(self) -> None:
        """Cancel the calls whose clients did not come back."""
        now = self._clock()
        for handle, parked in list(self._parked.items()):
            if parked.expires <= now:
                self._drop(handle)

    async def aclose(self) -> None:
        """Cancel all."""
        self._parked.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _wait(self, call: _Call) -> BackendReply:
        running, started = call.running, _now()
        try:
            while not call.task.done():
                await running.news.wait()
                running.news.clear()
                if not call.task.done():
                    await asyncio.wait({call.task}, timeout=TOGETHER)
                if running.open and not call.task.done():
                    if self._has_room():
                        asked = {key: questions.as_modern(q.method, q.params) for key, q in running.open.items()}
                        return self._park(call, asked, _now() - started)
                    running.refuse("Too many calls wait for their clients; try again later")
        except asyncio.CancelledError:
            call.task.cancel()
            raise
        return self._ended(call)

    def _ended(self, call: _Call) -> BackendReply:
        if call.task.cancelled():
            raise link.broken(self._route)
        reply, request = call.task.result(), call.running.request
        urls = questions.urls_of(reply.error or {})
        if not urls or "url" not in questions.profile_of(request.capabilities).get("elicitation", {}):
            return reply
        if not self._has_room():
            raise link.busy(self._route)
        return self._park(_Urls(urls, questions.binding_of(request)), urls, reply.seconds)

    def _has_room(self) -> bool:
        if len(self._parked) >= self._limit:
            self.sweep()
        return len(self._parked) < self._limit

    def _park(self, parked: _Call | _Urls, asked: Mapping[str, JsonObject], seconds: float) -> BackendReply:
        if isinstance(parked, _Call):
            parked.running.notify = unheard
            parked.binding = parked.binding or questions.binding_of(parked.running.request)
        parked.expires = self._clock() + self._ttl
        handle = secrets.token_urlsafe(24)
        self._parked[handle] = parked
        result = {"resultType": "input_required", "inputRequests": dict(asked), "requestState": handle}
        return BackendReply(result, None, seconds)

    def _take(self, request: BackendRequest) -> _Call | _Urls:
        handle = request.state or ""
        parked = self._parked.get(handle)
        if parked is not None and parked.expires <= self._clock():
            self._drop(handle)
            parked = None
        # Who shows another's handle does not use it up.
        if parked is None or parked.binding != questions.binding_of(request):
            raise InvalidRequest(
                "This requestState is not known any more; send the request again without it.",
                code=INVALID_PARAMS,
                status=200,
                rule="protocol.request_state",
            )
        del self._parked[handle]
        return parked

    async def _opened(
        self, parked: _Urls, answers: Mapping[str, Any], request: BackendRequest, notify: Notify, again: Again
    ) -> BackendReply:
        given = {key: questions.as_legacy("elicitation/create", answers.get(key)) for key in parked.asked}
        if any(answer is not None and answer["action"] != "accept" for answer in given.values()):
            message = "This request needs a URL to be opened, and that was declined; nothing was executed."
            return BackendReply(None, {"code": INVALID_REQUEST, "message": message}, 0.0)
        missing = {key: asked for key, asked in parked.asked.items() if given[key] is None}
        if missing:
            if not self._has_room():
                raise link.busy(self._route)
            return self._park(_Urls(missing, parked.binding), missing, 0.0)
        return await again(replace(request, state=None, answers=None), notify)

    def _drop(self, handle: str) -> None:
        parked = self._parked.pop(handle)
        if isinstance(parked, _Call):
            parked.task.cancel()

    def _done(self, task: asyncio.Task[BackendReply], running: Running) -> None:
        self._tasks.discard(task)
        running.news.set()
        if not task.cancelled():
            # Whoever comes back for it is told; it may be nobody.
            task.exception()


async def _run(send: Send, running: Running) -> BackendReply:
    return await send(running)


def _now() -> float:
    return asyncio.get_running_loop().time()
