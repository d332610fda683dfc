"""Which of the processes that somebody waits for are still there."""

from __future__ import annotations

from collections.abc import Mapping

from redis.asyncio import Redis

PRESENT = 2000
"""Milliseconds that a presence key lives."""

_COMEBACK = 1.5  # seconds that anybody may be missing after an outage
_AWAY = 3.0  # seconds of an outage that end what waits


async def missing(redis: Redis, own: bytes | None, watched: Mapping[bytes, str]) -> set[str]:
    """Renew the own presence, and look for the others: their subscription and their presence key.

    Args:
        redis: where.
        own: the name of this process, None while it hears nothing.
        watched: addresses by their names, each of a channel and of a key.

    Raises:
        RedisError: there is no answer; also ``OSError``.
    """
    pipeline = redis.pipeline(transaction=False)
    if own is not None:
        pipeline.set(own, b"1", px=PRESENT)
    if watched:
        pipeline.pubsub_numsub(*watched)
        pipeline.mget(list(watched))
    replies = await pipeline.execute()
    if not watched:
        return set()
    (*_, counts, keys) = replies
    found = zip(watched.values(), counts, keys, strict=True)
    return {address for address, (_, count), key in found if not count or key is None}


class Lookout:
    """Tells who is lost from what the looks say. Times are the loop's, in seconds."""

    def __init__(self) -> None:
        self._missed: set[str] = set()
        self._away_since: float | None = None
        self._trusted_from = 0.0

    def seen(self, missing: set[str], now: float) -> set[str]:
        """Redis answered: lost is who is missing for the second time, once everybody had time to come back."""
        lost = missing & self._missed if now >= self._trusted_from else set()
        self._missed, self._away_since = missing, None
        return lost

    def away(self, began: float, now: float) -> bool:
        """Redis did not answer the look that ``began`` then: whether that goes on for too long."""
        self.shaken(now)
        if self._away_since is None:
            self._away_since = began
        return now - self._away_since > _AWAY

    def shaken(self, now: float) -> None:
        """Redis was away or is: what is missing may only not have come back yet."""
        self._missed = set()
        self._trusted_from = now + _COMEBACK
