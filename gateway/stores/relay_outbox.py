"""Frames on their way to Redis: in order, several in one write, tried again while their addressee may come back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

_AGAIN = 0.1  # seconds
_BATCH_FRAMES = 64
_BATCH_BYTES = 2**20

Delivery = Literal["taken", "nobody", "unknown"]
"""What Redis said: somebody listens, nobody does, or nothing that could be understood."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Parcel:
    """A frame for a channel. Not tried again after ``until`` (the loop's time), nor when ``sent`` is cancelled."""

    channel: bytes
    frame: bytes
    until: float
    sent: asyncio.Future[Delivery]

    def settle(self, delivery: Delivery) -> None:
        """Tell who waits, if somebody does."""
        if not self.sent.done():
            self.sent.set_result(delivery)


class Outbox:
    """Holds at most about ``most`` bytes."""

    def __init__(self, redis: Redis, most: int) -> None:
        self._redis = redis
        self._most = most
        self._parcels: deque[Parcel] = deque()
        self._open = 0
        self._bytes = 0
        self._complained = False
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def takes(self, size: int) -> bool:
        """Whether so many bytes more are taken."""
        return self._bytes + size <= self._most

    def put(self, channel: bytes, frame: bytes, patience: float) -> Parcel:
        """Queue a frame; the parcel's ``sent`` tells what became of it."""
        loop = asyncio.get_running_loop()
        parcel = Parcel(channel, frame, loop.time() + patience, loop.create_future())
        self._bytes += len(frame)
        self._open += 1
        self._empty.clear()
        parcel.sent.add_done_callback(lambda _sent: self._settled(parcel))
        self._queue(parcel)
        return parcel

    async def flush(self, seconds: float) -> None:
        """Wait until everything has gone, but not longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._filled.wait()
            batch = self._next()
            if batch and not await self._publish(batch):
                await asyncio.sleep(_AGAIN)

    def _queue(self, parcel: Parcel) -> None:
        self._parcels.append(parcel)
        self._filled.set()

    def _settled(self, parcel: Parcel) -> None:
        self._bytes -= len(parcel.frame)
        self._open -= 1
        if not self._open:
            self._empty.set()

    def _next(self) -> list[Parcel]:
        """What goes in the next write; nothing of what nobody wants any more."""
        batch: list[Parcel] = []
        size = 0
        while self._parcels and len(batch) < _BATCH_FRAMES and size < _BATCH_BYTES:
            parcel = self._parcels.popleft()
            if not parcel.sent.done():
                batch.append(parcel)
                size += len(parcel.frame)
        if not self._parcels:
            self._filled.clear()
        return batch

    async def _publish(self, batch: list[Parcel]) -> bool:
        """Whether Redis took it; what it did not take stays first in line until its time is over."""
        pipeline = self._redis.pipeline(transaction=False)
        for parcel in batch:
            pipeline.publish(parcel.channel, parcel.frame)
        try:
            counts = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            log.debug("relayed messages could not be sent: %s", type(error).__name__)
            self._keep(batch)
            return False
        for parcel, count in zip(batch, counts, strict=True):
            self._counted(parcel, count)
        return True

    def _keep(self, batch: list[Parcel]) -> None:
        now = asyncio.get_running_loop().time()
        for parcel in reversed(batch):
            if parcel.until > now:
                self._parcels.appendleft(parcel)
                self._filled.set()
            else:
                parcel.settle("unknown")

    def _counted(self, parcel: Parcel, count: object) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(count, int):
            self._complain(str(count).split(" ", 1)[0])
            parcel.settle("unknown")
        elif count:
            parcel.settle("taken")
        elif loop.time() + _AGAIN < parcel.until:
            loop.call_later(_AGAIN, self._queue, parcel)
        else:
            parcel.settle("nobody")

    def _complain(self, reason: str) -> None:
        """Once: what Redis forbids it forbids every time."""
        if not self._complained:
            self._complained = True
            log.warning("Redis refuses messages between the processes: %s", reason)
