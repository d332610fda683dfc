"""What is left of limits, without taking anything: for people who ask, not for calls."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.models import LimitState
from gateway.ports import Take
from gateway.stores.limits_memory import cost_of, verdict_of
from gateway.stores.limits_script import counter_of
from gateway.stores.redis_connection import RedisAway, RedisConnection


async def peek(connection: RedisConnection, takes: Sequence[Take]) -> tuple[LimitState, ...] | None:
    """The state of each limit as Redis has it now, in order; None while Redis is away."""
    if not takes:
        return ()
    keys = [counter_of(take) for take in takes]
    try:
        seconds, microseconds = await connection.call("TIME")
        now = int(seconds) * 1_000_000 + int(microseconds)
        stored = await connection.call("MGET", *keys)
        places = {
            key: await connection.call("ZCOUNT", key, now, "+inf")
            for key, take in zip(keys, takes, strict=True)
            if take.limit.concurrent
        }
    except RedisAway:
        return None
    costs = [cost_of(take.limit) for take in takes]
    ahead = [
        places[key] if key in places else min(max(int(arrival or now) - now, 0), span)
        for key, arrival, (_cost, span) in zip(keys, stored, costs, strict=True)
    ]
    return verdict_of(takes, costs, ahead, refused=-1, wait=0).states
