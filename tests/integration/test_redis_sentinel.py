"""Limits, sessions and messages between replicas over a Redis that fails over under real sentinels."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import AuditEvent, Encoder
from gateway.models import Limit
from gateway.ports import Take
from gateway.relay import RelayLost
from gateway.stores.audit_reader import verify_stream
from gateway.stores.audit_redis import RedisSink
from gateway.stores.limits_redis import RedisLimits
from gateway.stores.relay_redis import RedisRelay

from .sentinels import SERVICE, Sentinels
from .valkey import until

FIVE = Take(Limit(name="x", per=("global",), limit=5, window=3600.0, burst=5), "counter")
WIDE = Take(Limit(name="wide", per=("global",), limit=10**9, window=3600.0, burst=10**9), "wide")

StartLimits = Callable[..., Awaitable[RedisLimits]]


async def started(sentinels: Sentinels) -> Sentinels:
    sentinels.start()
    await until(sentinels.ready)
    return sentinels


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[Sentinels]:
    several = Sentinels(tmp_path)
    try:
        yield await started(several)
    finally:
        several.stop()


@pytest.fixture
async def start() -> AsyncIterator[StartLimits]:
    all_limits: list[RedisLimits] = []

    async def start_limits(url: str, on_failure: str = "open", **options: Any) -> RedisLimits:
        limits = RedisLimits(url, on_failure=on_failure, **options)  # type: ignore[arg-type]
        all_limits.append(limits)
        await limits.start()
        return limits

    yield start_limits
    for limits in all_limits:
        await limits.aclose()


async def test_limits_count_on_where_they_were_when_the_primary_dies(sentinels: Sentinels, start: StartLimits) -> None:
    limits = await start(sentinels.url)
    assert [(await limits.take([FIVE])).refused for _ in range(3)] == [None] * 3
    sentinels.replicated()
    sentinels.primary().kill()
    assert (await limits.take([FIVE])).degraded
    await until(lambda: limits.up)
    verdicts = [await limits.take([FIVE]) for _ in range(3)]
    assert [verdict.refused for verdict in verdicts] == [None, None, FIVE.limit]
    assert not any(verdict.degraded for verdict in verdicts)


async def test_while_there_is_no_primary_each_replica_limits_by_itself_and_nobody_waits(
    sentinels: Sentinels, start: StartLimits
) -> None:
    changes: list[bool] = []
    limits = await start(sentinels.url, "local", on_change=changes.append)
    sentinels.primary().freeze()
    await limits.take([WIDE])  # finds it out
    times = []
    while not limits.up:
        since = time.monotonic()
        verdict = await limits.take([WIDE])
        times.append(time.monotonic() - since)
        assert verdict.degraded
        assert verdict.refused is None
        await asyncio.sleep(0)
    assert sorted(times)[-len(times) // 100] < 0.05
    assert changes == [True, False, True]


async def test_a_primary_that_is_replaced_while_it_lives_is_left_before_it_knows(
    sentinels: Sentinels, start: StartLimits
) -> None:
    limits = await start(sentinels.url)
    former = sentinels.primary()
    sentinels.fail_over()
    await until(lambda: sentinels.primary() is not former)
    await until(lambda: not limits.up)
    await until(lambda: limits.up)
    with sentinels.admin(former.port) as admin:
        assert admin.role()[0] == b"master"
    assert not (await limits.take([FIVE])).degraded
    with sentinels.admin(sentinels.primary().port) as admin:
        assert admin.exists("{mcp-gateway}:limit:counter")


async def test_a_sentinel_that_is_gone_is_passed_over(sentinels: Sentinels, start: StartLimits) -> None:
    sentinels.kill_sentinel(0)
    limits = await start(sentinels.url)
    await until(lambda: limits.up)
    assert not (await limits.take([FIVE])).degraded


@pytest.mark.parametrize("end", [lambda sentinels: sentinels.primary().kill(), Sentinels.fail_over])
async def test_replicas_reach_each_other_again_after_a_failover(
    sentinels: Sentinels, end: Callable[[Sentinels], None]
) -> None:
    async def echo(payload: bytes) -> bytes:
        return payload

    relays = [RedisRelay(sentinels.url, [b"k" * 32]) for _ in range(2)]
    try:
        for relay in relays:
            relay.serve("echo", echo)
            await relay.start()
        here, there = relays
        assert await here.ask(there.here, "echo", b"before", 5.0) == b"before"
        end(sentinels)
        await until(lambda: not (here.up and there.up))
        await until(lambda: here.up and there.up)
        assert await answered(here, there) == b"after"
    finally:
        for relay in relays:
            await relay.aclose()


async def answered(here: RedisRelay, there: RedisRelay) -> bytes:
    """What is answered once both have found the same server."""
    async with asyncio.timeout(10):
        while True:
            with suppress(RelayLost):
                return await here.ask(there.here, "echo", b"after", 1.0)


async def test_redis_and_the_sentinels_have_passwords_of_their_own_and_none_is_logged(
    tmp_path: Path, start: StartLimits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guarded = Sentinels(tmp_path, "redis-canary", "sentinel-canary")
    try:
        await started(guarded)
        right = await start(
            f"redis+sentinel://:redis-canary@{guarded.hosts}/{SERVICE}/3?sentinel_password=sentinel-canary"
        )
        await until(lambda: right.up)
        assert not (await right.take([FIVE])).degraded
        for wrong in ("sentinel_password=wrong-canary", ""):
            limits = await start(f"redis+sentinel://:redis-canary@{guarded.hosts}/{SERVICE}/3?{wrong}")
            assert (await limits.take([FIVE])).degraded
    finally:
        guarded.stop()
    assert "the sentinels name no primary" in caplog.text
    assert "canary" not in caplog.text
    assert "127.0.0.1" not in caplog.text


async def test_a_service_that_the_sentinels_do_not_know_is_said_to_be_away(
    sentinels: Sentinels, start: StartLimits, caplog: pytest.LogCaptureFixture
) -> None:
    limits = await start(f"redis+sentinel://{sentinels.hosts}/another")
    assert not limits.up
    assert "the sentinels name no primary" in caplog.text


async def test_the_audit_goes_on_in_the_stream_of_the_new_primary(sentinels: Sentinels) -> None:
    def body(name: str) -> bytes:
        return Encoder().encode(AuditEvent(name), "request", 0.0)

    def written() -> bool:
        with suppress(OSError):
            sink.write([body("after")], sync=False)
            return True
        return False

    sink = RedisSink(sentinels.url, "audit", "writer", b"k" * 32)
    sink.write([body("before")], sync=False)
    sentinels.replicated()
    sentinels.primary().kill()
    with pytest.raises(OSError, match="Redis"):
        sink.write([body("lost")], sync=False)
    await until(written)
    sink.close()
    report = verify_stream(sentinels.url, "audit", [b"k" * 32])
    assert (report.ok, report.records) == (True, 2)
