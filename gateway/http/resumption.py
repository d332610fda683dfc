"""Streams of legacy calls that a client may leave and come back to (2025-11-25, ``basic/transports``, resumability).

A call that takes a moment opens its stream with a priming event, and a GET with ``Last-Event-ID`` gets what it missed
and the rest. A client that leaves such a stream does not cancel its call, unless it stays away. One process remembers:
where the GET reaches another one, the id is unknown there.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from gateway.http.conversations import Conversations
from gateway.http.kept import Kept, Reader, Timer
from gateway.http.responder import RawHeaders, Responder, Send, Silences
from gateway.http.shares import share
from gateway.http.streams import serve
from gateway.models import Principal
from gateway.protocol.answers import Answer

OPEN_SECONDS = 0.05
"""A call that is answered sooner is answered in JSON; a later one on a stream that can be resumed."""

MAX_OF_SESSION = 4
"""Streams, and so calls that go on without their client. A further call cannot be resumed."""

MAX_STREAMS = 4_000
MAX_ALL_BYTES = 64 * 1024 * 1024
"""Of this process, and a share of them for one principal: the oldest answers are forgotten first, the principal's own
where it has its share."""

KEPT_SECONDS = 300.0
"""How long an answer is kept after the last use."""


_Answers = OrderedDict[str, Kept]
"""Streams that have their answer, the one used longest ago first."""


@dataclass(slots=True)
class _Part:
    """What one principal has of all this."""

    streams: int = 0
    bytes: int = 0
    answered: _Answers = field(default_factory=_Answers)

    def is_full(self, whose: Principal) -> bool:
        return self.streams >= share(whose, MAX_STREAMS) or self.bytes >= share(whose, MAX_ALL_BYTES)


class Events:
    """Every stream of this process that can be resumed.

    Args:
        clock: monotonic seconds. ``call_later``: as the loop's.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = monotonic,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        self._clock = clock
        self.later = call_later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))
        self._streams: dict[str, Kept] = {}
        self._answered = _Answers()
        self._parts: dict[tuple[str, str], _Part] = {}
        self._sessions: dict[str, list[Kept]] = {}
        self._bytes = 0
        self._sweeper: Timer | None = None

    def __len__(self) -> int:
        """Streams."""
        return len(self._streams)

    def open(self, session_id: str, toolset: str | None, task: asyncio.Task[Any], whose: Principal) -> Kept | None:
        """A stream for the call that ``task`` serves; None where there is no room for one more."""
        of_session = self._sessions.get(session_id, [])
        if len(of_session) >= MAX_OF_SESSION:
            old = next((kept for kept in of_session if kept.finished), None)
            if old is None:
                return None
            self.forget(old)
        part = self._part_of(whose)
        if part.streams >= share(whose, MAX_STREAMS):
            self._forget_oldest(part.answered)
        if len(self._streams) >= MAX_STREAMS:
            self._forget_oldest(self._answered)
        if len(self._streams) >= MAX_STREAMS or self._bytes >= MAX_ALL_BYTES or part.is_full(whose):
            return None
        kept = Kept(self, (session_id, toolset), task, whose)
        part.streams += 1
        self._parts[_who(whose)] = part
        self._streams[kept.id] = kept
        self._sessions.setdefault(session_id, []).append(kept)
        return kept

    def resume(self, session_id: str, toolset: str | None, event_id: str) -> AbstractContextManager[Reader] | None:
        """The rest of a stream of this session after an event; None where the id is unknown or nothing is missed."""
        stream, _dot, number = event_id.rpartition(".")
        kept = self._streams.get(stream)
        if kept is None or kept.place != (session_id, toolset) or not _is_number(number):
            return None
        after = int(number)
        if after > kept.last or (kept.finished and after == kept.last):
            return None
        if kept.finished:
            self.finished(kept)
        return kept.resumed(after)

    def end_session(self, session_id: str) -> None:
        """The session has ended: so have those of its calls that its client had left."""
        for kept in tuple(self._sessions.get(session_id, ())):
            self.forget(kept)
            if kept.detached and not kept.finished:
                kept.cancel()

    # For ``Kept``

    def has(self, kept: Kept) -> bool:
        """Whether a stream can still be resumed."""
        return kept.id in self._streams

    def finished(self, kept: Kept) -> None:
        """A stream has its answer, or was read again."""
        if not self.has(kept):
            return
        kept.until = self._clock() + KEPT_SECONDS
        for answered in (self._answered, self._part_of(kept.whose).answered):
            answered[kept.id] = kept
            answered.move_to_end(kept.id)
        if self._sweeper is None:
            self._sweeper = self.later(KEPT_SECONDS, self._sweep)

    def grow(self, kept: Kept, change: int) -> None:
        """Bytes came or went."""
        self._bytes += change
        part = self._part_of(kept.whose)
        part.bytes += change
        while part.bytes > share(kept.whose, MAX_ALL_BYTES) and part.answered:
            self._forget_oldest(part.answered)
        while self._bytes > MAX_ALL_BYTES and self._answered:
            self._forget_oldest(self._answered)

    def forget(self, kept: Kept) -> None:
        """Nobody can resume it any more; who reads it goes on."""
        if self._streams.pop(kept.id, None) is None:
            return
        self._answered.pop(kept.id, None)
        self._bytes -= kept.size
        part = self._part_of(kept.whose)
        part.answered.pop(kept.id, None)
        part.bytes -= kept.size
        part.streams -= 1
        if not part.streams:
            del self._parts[_who(kept.whose)]
        of_session = self._sessions[kept.place[0]]
        of_session.remove(kept)
        if not of_session:
            del self._sessions[kept.place[0]]

    def _part_of(self, whose: Principal) -> _Part:
        return self._parts.get(_who(whose)) or _Part()

    def _forget_oldest(self, answered: _Answers) -> None:
        if answered:
            self.forget(next(iter(answered.values())))

    def _sweep(self) -> None:
        now = self._clock()
        while self._answered and next(iter(self._answered.values())).until <= now:
            self._forget_oldest(self._answered)
        self._sweeper = self.later(KEPT_SECONDS, self._sweep) if self._answered else None


class ResumableResponder(Responder):
    """Sends one answer to a legacy session whose client takes an event stream.

    Args:
        toolset: where the request came in; its stream is resumed there only.
    """

    def __init__(
        self,
        send: Send,
        headers: RawHeaders,
        *,
        conversations: Conversations,
        events: Events,
        toolset: str | None,
        silences: Silences | None = None,
    ) -> None:
        super().__init__(send, headers, may_stream=True, conversations=conversations, silences=silences)
        self._events = events
        self._toolset = toolset
        self._call: tuple[str, asyncio.Task[Any], Principal] | None = None
        self._kept: Kept | None = None
        self._reader: Reader | None = None
        self._opening: asyncio.TimerHandle | None = None

    def begin(self, session_id: str, request_id: str | int, whose: Principal, *, resumable: bool = False) -> None:
        """See ``ports.Channel``."""
        super().begin(session_id, request_id, whose)
        task = asyncio.current_task()
        if resumable and task is not None:
            self._call = (session_id, task, whose)

    def dispatched(self) -> None:
        """See ``ports.Channel``."""
        if self._call is None:
            super().dispatched()
        elif self._opening is None:
            self._opening = asyncio.get_running_loop().call_later(OPEN_SECONDS, self._open)

    async def finish(self, answer: Answer) -> None:
        """Send the answer, if there is one, and end the response; where the client has left, keep it.

        Raises:
            CancelledError: the client has left, or reads nothing.
        """
        if self._opening is not None:
            self._opening.cancel()
        if self._kept is None or self._pump is None:
            await super().finish(answer)
            return
        self._over()
        if answer.body:
            self._kept.finish(answer.body)
        else:
            self._kept.abandon()
        await self._pump

    def abandon(self) -> None:
        """Nothing more is sent; an answer that was given can still be fetched."""
        super().abandon()
        if self._opening is not None:
            self._opening.cancel()
        if self._kept is not None:
            self._kept.abandon()

    def left(self) -> bool:
        """The client has hung up; whether its call goes on, because it may come back."""
        if self._kept is None or self._pump is None:
            return False
        self._pump.cancel()
        return self._kept.reader is not self._reader or self._kept.leave()

    def _write(self, body: bytes) -> None:
        self._open()
        if self._kept is None:
            super()._write(body)
        else:
            self._kept.put(body)

    def _open(self) -> None:
        if self._pump is None and self._call is not None:
            session_id, task, whose = self._call
            self._kept = self._events.open(session_id, self._toolset, task, whose)
            if self._kept is not None:
                self._reader = self._kept.open()
                writing = serve(self._reader, self._send, self._headers)
                self._pump = asyncio.get_running_loop().create_task(writing)
        super()._open()


def _who(principal: Principal) -> tuple[str, str]:
    return principal.issuer, principal.subject


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9
