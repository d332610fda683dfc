"""Which legacy sessions were ended by their client. Session ids are sealed tokens, so only the ended ones are kept."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from gateway.stores.redis_connection import TAG, RedisAway, RedisConnection

_MOST = 100_000


class MemorySessions:
    """``ports.Sessions`` for one process. Holds at most ``most``; beyond that the oldest is forgotten.

    ``clock`` gives seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._ended: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ended)

    async def end(self, session_id: str, seconds: float) -> None:
        """Remember for ``seconds`` that this one has ended."""
        now = self._clock()
        while self._ended and (next(iter(self._ended.values())) <= now or len(self._ended) >= self._most):
            self._ended.popitem(last=False)
        self._ended[_digest(session_id)] = now + seconds

    async def ended(self, session_id: str) -> bool:
        """Whether a client ended it."""
        return self._ended.get(_digest(session_id), 0.0) > self._clock()


class RedisSessions:
    """``ports.Sessions`` over all replicas.

    While Redis is away a replica knows only of those that were ended at itself: they stay ended there, and elsewhere
    until the sealed id expires they may be used again by the principal that owns them.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._memory = MemorySessions()

    async def end(self, session_id: str, seconds: float) -> None:
        """Remember for ``seconds`` that this one has ended."""
        await self._memory.end(session_id, seconds)
        try:
            await self._connection.call("SET", _key(session_id), "1", "PX", max(1, math.ceil(seconds * 1000)))
        except RedisAway:
            return

    async def ended(self, session_id: str) -> bool:
        """Whether a client ended it, as far as this replica can know."""
        if await self._memory.ended(session_id):
            return True
        try:
            return bool(await self._connection.call("EXISTS", _key(session_id)))
        except RedisAway:
            return False


def _digest(session_id: str) -> bytes:
    return blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(session_id: str) -> bytes:
    return TAG + b"ended:" + _digest(session_id).hex().encode()
