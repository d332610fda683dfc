"""At most so many calls at one backend, so that a slow one cannot take what the others need."""

from __future__ import annotations

import asyncio
from collections import deque


class Bulkhead:
    """``limit`` calls at once; up to ``queue`` more wait for at most ``patience`` seconds, first come first served.

    ``take`` is the whole cost while there is room. Each successful ``take`` or ``wait`` needs one ``release``.
    """

    __slots__ = ("_emptied", "_free", "_limit", "_patience", "_queue", "_waiting")

    def __init__(self, limit: int, *, queue: int = 100, patience: float = 1.0) -> None:
        self._limit = self._free = limit
        self._emptied: asyncio.Future[None] | None = None
        self._queue = queue
        self._patience = patience
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @property
    def taken(self) -> int:
        """Places that are held."""
        return self._limit - self._free

    def take(self) -> bool:
        """Take a place if there is one and nobody waits for it."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return True
        return False

    async def wait(self, seconds: float) -> bool:
        """Wait for a place, at most ``seconds``; false when none came or the queue is full."""
        if len(self._waiting) >= self._queue:
            return False
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(min(seconds, self._patience), self._give_up, place)
        self._waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            self._leave(place)
            raise
        finally:
            timer.cancel()

    def release(self) -> None:
        """Give the place to the first who waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(True)
                return
        self._free += 1
        if self._free == self._limit and self._emptied is not None:
            self._emptied.set_result(None)
            self._emptied = None

    async def idle(self) -> None:
        """Wait until no call holds a place. For one waiter, once nothing new comes."""
        if self._free < self._limit:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    def _give_up(self, place: asyncio.Future[bool]) -> None:
        if not place.done():
            self._waiting.remove(place)
            place.set_result(False)

    def _leave(self, place: asyncio.Future[bool]) -> None:
        # A future that was cancelled while it waited is still in line; one that was served gives its place on.
        if place in self._waiting:
            self._waiting.remove(place)
        elif not place.cancelled() and place.result():
            self.release()
