"""What is remembered of legacy sessions: which were ended, and log levels. The rest is sealed in their ids."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from gateway.ports import SessionState
from gateway.stores.redis_connection import TAG, RedisAway, RedisConnection

_MOST = 100_000


class MemorySessions:
    """``ports.Sessions`` for one process. Holds at most ``most`` of each kind; beyond that the oldest is forgotten.

    ``clock`` gives seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most: int = _MOST) -> None:
        self._ended = _Expiring(clock, most)
        self._levels = _Expiring(clock, most)

    def __len__(self) -> int:
        return len(self._ended.values) + len(self._levels.values)

    async def end(self, session_id: str, seconds: float) -> None:
        """Remember for ``seconds`` that this one has ended."""
        self._ended.put(_digest(session_id), "1", seconds)

    async def ended(self, session_id: str) -> bool:
        """Whether a client ended it."""
        return self._ended.get(_digest(session_id)) is not None

    async def set_log_level(self, session_id: str, level: str, seconds: float) -> None:
        """Remember for ``seconds`` the least severe log message that the client wants."""
        self._levels.put(_digest(session_id), level, seconds)

    async def state(self, session_id: str) -> SessionState:
        """Everything that is remembered of it."""
        digest = _digest(session_id)
        return SessionState(self._ended.get(digest) is not None, self._levels.get(digest))


class RedisSessions:
    """``ports.Sessions`` over all replicas.

    While Redis is away a replica knows only what it was told itself: sessions ended at it stay ended there, and
    elsewhere until the sealed id expires they may be used again by the principal that owns them.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._memory = MemorySessions()

    async def end(self, session_id: str, seconds: float) -> None:
        """Remember for ``seconds`` that this one has ended."""
        await self._memory.end(session_id, seconds)
        await self._set(_key(b"ended:", session_id), "1", seconds)

    async def ended(self, session_id: str) -> bool:
        """Whether a client ended it, as far as this replica can know."""
        return (await self.state(session_id)).ended

    async def set_log_level(self, session_id: str, level: str, seconds: float) -> None:
        """Remember for ``seconds`` the least severe log message that the client wants."""
        await self._memory.set_log_level(session_id, level, seconds)
        await self._set(_key(b"level:", session_id), level, seconds)

    async def state(self, session_id: str) -> SessionState:
        """Everything that is remembered of it, as far as this replica can know."""
        own = await self._memory.state(session_id)
        try:
            ended, level = await self._connection.call("MGET", _key(b"ended:", session_id), _key(b"level:", session_id))
        except RedisAway:
            return own
        return SessionState(
            own.ended or ended is not None, level.decode("ascii", "replace") if level else own.log_level
        )

    async def _set(self, key: bytes, value: str, seconds: float) -> None:
        try:
            await self._connection.call("SET", key, value, "PX", max(1, math.ceil(seconds * 1000)))
        except RedisAway:
            return


class _Expiring:
    """Values that are forgotten after their time; lifetimes of one kind are alike, so the oldest goes first."""

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        self._clock = clock
        self._most = most
        self.values: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def put(self, key: bytes, value: str, seconds: float) -> None:
        now = self._clock()
        self.values.pop(key, None)
        while self.values and (next(iter(self.values.values()))[0] <= now or len(self.values) >= self._most):
            self.values.popitem(last=False)
        self.values[key] = (now + seconds, value)

    def get(self, key: bytes) -> str | None:
        until, value = self.values.get(key, (0.0, ""))
        return value if until > self._clock() else None


def _digest(session_id: str) -> bytes:
    return blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(kind: bytes, session_id: str) -> bytes:
    return TAG + kind + _digest(session_id).hex().encode()
