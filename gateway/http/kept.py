"""The stream of one legacy call, kept so that its client may leave and come back (2025-11-25, ``basic/transports``)."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from gateway.http.responder import KEEP_ALIVE_SECONDS, event
from gateway.models import Principal

MAX_EVENTS = 100
MAX_BYTES = 1024 * 1024
"""Of one stream; its youngest event is kept whatever its size."""

AWAY_SECONDS = 60.0
"""How long a call goes on that nobody reads."""

RETRY_MILLISECONDS = 1000

_OPEN, _KEEP_ALIVE = b": open\n\n", b": keep-alive\n\n"


class Timer(Protocol):
    """What ``call_later`` gives."""

    def cancel(self) -> None:
        """Do not call."""
        ...


class Store(Protocol):
    """What a stream needs of the place where it can be found again."""

    def later(self, seconds: float, call: Callable[[], None], /) -> Timer:
        """As the loop's ``call_later``."""
        ...

    def has(self, kept: Kept) -> bool:
        """Whether it can still be resumed."""
        ...

    def finished(self, kept: Kept) -> None:
        """It has its answer."""
        ...

    def grow(self, kept: Kept, change: int) -> None:
        """Bytes came or went."""
        ...

    def forget(self, kept: Kept) -> None:
        """Nobody can resume it any more; who reads it goes on."""
        ...


class Reader:
    """One connection that a stream is written to; ``streams.serve`` writes it. ``after``: the last event it has."""

    def __init__(self, kept: Kept, after: int, first: bytes) -> None:
        self._kept = kept
        self._after = after
        self._first = first
        self.wake = asyncio.Event()

    async def next(self) -> tuple[bytes, bool]:
        """What is new, or a comment after a silence; and whether more will come, on this connection."""
        body, self._first = self._first, b""
        if not body:
            await self._quiet()
        self.wake.clear()
        if self._kept.reader is not self:
            return body, False
        body += self._kept.since(self._after)
        self._after = self._kept.last
        return body or _KEEP_ALIVE, not self._kept.finished

    async def _quiet(self) -> None:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                await self.wake.wait()
        except TimeoutError:
            pass


class Kept:
    """The events of one call. Number 0 is the priming event, which is in no ring.

    ``detached``: the connection of the call itself is no longer read. ``reader``: the youngest; no event goes to two.
    ``whose`` it is counts only for its share.
    """

    def __init__(self, store: Store, place: tuple[str, str | None], task: asyncio.Task[Any], whose: Principal) -> None:
        self.id = secrets.token_urlsafe(12)
        self.place = place
        self.whose = whose
        self.last = 0
        self.size = 0
        self.until = 0.0
        self.finished = False
        self.detached = False
        self.reader: Reader | None = None
        self._store = store
        self._task = task
        self._ring: deque[tuple[int, bytes]] = deque()
        self._away: Timer | None = None

    def put(self, body: bytes) -> None:
        """Add a message; the oldest fall out."""
        self.last += 1
        written = b"id: %s.%d\n%s" % (self.id.encode(), self.last, event(body))
        self._ring.append((self.last, written))
        self._grow(len(written))
        while len(self._ring) > 1 and (len(self._ring) > MAX_EVENTS or self.size > MAX_BYTES):
            self._grow(-len(self._ring.popleft()[1]))
        self._wake_up()

    def finish(self, body: bytes) -> None:
        """Add the answer, which ends the stream."""
        self.finished = True
        self._settle()
        self.put(body)
        self._store.finished(self)

    def since(self, number: int) -> bytes:
        """Everything after this event."""
        return b"".join(written for at, written in self._ring if at > number)

    def open(self) -> Reader:
        """The reader for the call's own connection: it begins with the priming event."""
        primed = b"%sid: %s.0\nretry: %d\ndata:\n\n" % (_OPEN, self.id.encode(), RETRY_MILLISECONDS)
        return self._read(Reader(self, 0, primed))

    @contextmanager
    def resumed(self, after: int) -> Iterator[Reader]:
        """The stream for a client that came back; a former connection ends."""
        self.detached = True
        self._settle()
        reader = self._read(Reader(self, after, _OPEN))
        try:
            yield reader
        finally:
            if self.reader is reader and not self.leave() and not self.finished:
                self.cancel()

    def leave(self) -> bool:
        """Nobody reads any more. The call goes on for a while where somebody may come back; whether it does."""
        self.reader = None
        if self.finished:
            return False
        self.detached = True
        if not self._store.has(self):
            return False
        self._settle()
        self._away = self._store.later(AWAY_SECONDS, self.cancel)
        return True

    def cancel(self) -> None:
        """End the call."""
        self._settle()
        self._task.cancel()

    def abandon(self) -> None:
        """The call has ended; without an answer there is nothing to come back for."""
        if not self.finished:
            self._settle()
            self._store.forget(self)
            self.reader, reader = None, self.reader
            if reader is not None:
                reader.wake.set()

    def _read(self, reader: Reader) -> Reader:
        self.reader, former = reader, self.reader
        if former is not None:
            former.wake.set()
        return reader

    def _wake_up(self) -> None:
        if self.reader is not None:
            self.reader.wake.set()

    def _settle(self) -> None:
        if self._away is not None:
            self._away.cancel()
            self._away = None

    def _grow(self, change: int) -> None:
        self.size += change
        if self._store.has(self):
            self._store.grow(self, change)
