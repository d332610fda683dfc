"""Looking at limits in Redis takes nothing and sees what calls have taken."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from gateway.models import Limit
from gateway.ports import Take
from gateway.stores.limits_peek import peek
from gateway.stores.limits_redis import RedisLimits
from gateway.stores.redis_connection import RedisConnection

SLOW = Limit("slow", ("principal",), 10, 3600.0, 5)
FAST = Limit("fast", ("tool",), 100, 3600.0, 100)


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[RedisLimits]:
    limits = RedisLimits(valkey_url, on_failure="closed")
    await limits.start()
    yield limits
    await limits.aclose()


async def test_what_is_left_is_seen_and_nothing_is_taken(store: RedisLimits) -> None:
    takes = tuple(Take(limit, uuid4().hex) for limit in (SLOW, FAST))
    untouched = await peek(store.connection, takes)
    assert [state.remaining for state in untouched or ()] == [5, 100]
    assert [state.reset for state in untouched or ()] == [0.0, 0.0]
    for _ in range(5):
        await store.take(takes)
    for _ in range(3):
        seen = await peek(store.connection, takes)
        assert [state.remaining for state in seen or ()] == [0, 95]
        assert 1790 < (seen or ())[0].reset <= 1800
    assert (await store.take(takes)).refused == SLOW


async def test_places_that_are_held_are_seen(store: RedisLimits) -> None:
    takes = tuple(Take(limit, uuid4().hex) for limit in (Limit("p", ("principal",), 3, 0.0, 3, concurrent=True), SLOW))
    await store.take(takes)
    seen = await peek(store.connection, takes)
    assert [state.remaining for state in seen or ()] == [2, 4]


async def test_no_limits_need_no_redis() -> None:
    assert await peek(RedisConnection("redis://127.0.0.1:9/0"), ()) == ()


async def test_nothing_is_seen_while_redis_is_away() -> None:
    assert await peek(RedisConnection("redis://127.0.0.1:9/0"), [Take(SLOW, "k")]) is None
