"""Limits and sessions while Redis is killed, frozen, full, read-only, restarted, or was never there."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.errors import Overloaded
from gateway.models import Limit
from gateway.ports import Take
from gateway.stores.limits_redis import RedisLimits
from gateway.stores.redis_connection import RedisConnection
from gateway.stores.sessions import RedisSessions

from .valkey import Valkey, until

ONE = Take(Limit(name="x", per=("global",), limit=10, window=3600.0, burst=10), "counter")
WIDE = Take(Limit(name="wide", per=("global",), limit=10_000, window=3600.0, burst=10_000), "wide")

StartLimits = Callable[..., Awaitable[RedisLimits]]
ends = pytest.mark.parametrize("end", [Valkey.kill, Valkey.freeze])
"""Gone with a reset, and gone without a word."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def start() -> AsyncIterator[StartLimits]:
    started: list[RedisLimits] = []

    async def start_limits(url: str, on_failure: str = "open", **options: Any) -> RedisLimits:
        limits = RedisLimits(url, on_failure=on_failure, **options)  # type: ignore[arg-type]
        started.append(limits)
        await limits.start()
        return limits

    yield start_limits
    for limits in started:
        await limits.aclose()


@ends
async def test_local_counts_with_this_replicas_share(
    valkey: Valkey, start: StartLimits, end: Callable[[Valkey], None]
) -> None:
    limits = await start(valkey.url, "local", expected_replicas=4)
    assert not (await limits.take([ONE])).degraded
    end(valkey)
    verdicts = [await limits.take([ONE]) for _ in range(4)]
    assert [verdict.refused for verdict in verdicts] == [None, None, ONE.limit, ONE.limit]
    assert all(verdict.degraded for verdict in verdicts)


@ends
async def test_open_admits_everything_and_says_that_it_was_degraded(
    valkey: Valkey, start: StartLimits, end: Callable[[Valkey], None]
) -> None:
    limits = await start(valkey.url, "open")
    end(valkey)
    verdicts = [await limits.take([ONE]) for _ in range(30)]
    assert all(verdict.refused is None and verdict.degraded for verdict in verdicts)


@ends
async def test_closed_refuses_and_says_when_to_come_back(
    valkey: Valkey, start: StartLimits, end: Callable[[Valkey], None]
) -> None:
    limits = await start(valkey.url, "closed")
    end(valkey)
    with pytest.raises(Overloaded) as refusal:
        await limits.take([ONE])
    assert (refusal.value.retryable, refusal.value.retry_after, refusal.value.dispatched) == (True, 1.0, False)


PLACES = Take(Limit("places", ("global",), 4, 0.0, 4, concurrent=True), "places")
TRIAL = Take(Limit("trial", ("global",), 1, 3600.0, 1, enforce=False), "trial")
DEAR = Take(Limit("dear", ("global",), 10, 3600.0, 10, cost=4), "dear")


@ends
async def test_local_places_are_this_replicas_share_and_what_runs_already_counts(
    valkey: Valkey, start: StartLimits, end: Callable[[Valkey], None]
) -> None:
    limits = await start(valkey.url, "local", expected_replicas=2)
    before = await limits.take([PLACES])
    end(valkey)
    during = [await limits.take([PLACES]) for _ in range(2)]
    assert [(verdict.refused, verdict.degraded) for verdict in during] == [(None, True), (PLACES.limit, True)]
    assert before.release is not None
    before.release()
    assert (await limits.take([PLACES])).refused is None


async def test_places_taken_while_redis_was_away_are_counted_when_it_is_back(
    valkey: Valkey, start: StartLimits
) -> None:
    limits, other = await start(valkey.url, "local"), await start(valkey.url, "closed")
    valkey.kill()
    held = [await limits.take([PLACES]) for _ in range(4)]
    assert [verdict.refused for verdict in held] == [None] * 4
    valkey.start()
    await until(lambda: limits.up and other.up)
    await limits.take([ONE])  # an answer that comes after the renewal
    assert (await other.take([PLACES])).refused is PLACES.limit
    for verdict in held:
        assert verdict.release is not None
        verdict.release()
    await limits.take([ONE])
    assert (await other.take([PLACES])).states[0].remaining == 3


async def test_open_gives_places_to_everybody(valkey: Valkey, start: StartLimits) -> None:
    limits = await start(valkey.url, "open")
    valkey.kill()
    verdicts = [await limits.take([PLACES]) for _ in range(9)]
    assert all(verdict.refused is None and verdict.degraded for verdict in verdicts)


async def test_closed_refuses_what_needs_a_place_and_not_what_is_only_watched(
    valkey: Valkey, start: StartLimits
) -> None:
    limits = await start(valkey.url, "closed")
    valkey.kill()
    with pytest.raises(Overloaded):
        await limits.take([PLACES, TRIAL])
    assert (await limits.take([TRIAL])).refused is None


async def test_a_share_that_is_less_than_what_a_call_costs_has_room_for_one(valkey: Valkey, start: StartLimits) -> None:
    limits = await start(valkey.url, "local", expected_replicas=5)
    valkey.kill()
    assert [(await limits.take([DEAR])).refused for _ in range(2)] == [None, DEAR.limit]


async def test_a_frozen_server_delays_only_the_calls_that_were_under_way(valkey: Valkey, start: StartLimits) -> None:
    limits = await start(valkey.url)
    valkey.freeze()
    since = time.monotonic()
    under_way = await asyncio.gather(*(limits.take([ONE]) for _ in range(20)))
    later = [await limits.take([ONE]) for _ in range(20)]
    assert time.monotonic() - since < 1.0
    assert all(verdict.degraded for verdict in under_way + later)


@ends
async def test_it_heals_by_itself_and_tells_of_each_change(
    valkey: Valkey, start: StartLimits, end: Callable[[Valkey], None]
) -> None:
    changes: list[bool] = []
    limits = await start(valkey.url, on_change=changes.append)
    end(valkey)
    assert (await limits.take([ONE])).degraded
    assert not limits.up
    if end is Valkey.kill:
        valkey.start()
    else:
        valkey.thaw()
    await until(lambda: limits.up)
    verdict = await limits.take([ONE])
    assert (verdict.degraded, verdict.refused) == (False, None)
    assert changes == [True, False, True]


async def test_a_server_that_dies_unnoticed_is_found_out_without_a_call(valkey: Valkey, start: StartLimits) -> None:
    limits = await start(valkey.url)
    valkey.freeze()
    await until(lambda: not limits.up)


async def test_a_gateway_that_starts_before_redis_finds_it_later(valkey: Valkey, start: StartLimits) -> None:
    changes: list[bool] = []
    valkey.kill()
    limits = await start(valkey.url, on_change=changes.append)
    assert (await limits.take([ONE])).degraded
    valkey.start()
    await until(lambda: limits.up)
    assert not (await limits.take([ONE])).degraded
    assert changes == [False, True]


def make_full(admin: "redis.Redis[bytes]") -> None:
    admin.config_set("maxmemory", "1")


def make_roomy(admin: "redis.Redis[bytes]") -> None:
    admin.config_set("maxmemory", "0")


def make_replica(admin: "redis.Redis[bytes]") -> None:
    admin.replicaof("127.0.0.1", 1)


def make_primary(admin: "redis.Redis[bytes]") -> None:
    admin.replicaof("NO", "ONE")


@pytest.mark.parametrize(("harm", "cure"), [(make_full, make_roomy), (make_replica, make_primary)])
async def test_a_server_that_cannot_write_is_away_until_it_can(
    valkey: Valkey, start: StartLimits, harm: Callable[[Any], None], cure: Callable[[Any], None]
) -> None:
    limits = await start(valkey.url)
    with redis.Redis.from_url(valkey.url) as admin:
        harm(admin)
        assert (await limits.take([ONE])).degraded
        replies = admin.info("stats")["total_error_replies"]
        await until(lambda: admin.info("stats")["total_error_replies"] > replies)  # a probe met the same
        assert not limits.up
        cure(admin)
    await until(lambda: limits.up)
    assert not (await limits.take([ONE])).degraded


class Answering:
    """A server that says one thing to everybody and counts who came."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._answer:
            await reader.read(1)
            writer.write(self._answer)
            await reader.read()
        writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING the dataset is being loaded\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n+OK\r\n+OK\r\n",
        b"",
    ],
)
async def test_what_is_not_a_usable_server_is_away_and_is_not_asked_again_by_each_call(
    start: StartLimits, answer: bytes
) -> None:
    peer = Answering(answer)
    async with await asyncio.start_server(peer, "127.0.0.1", 0) as server:
        limits = await start(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        verdicts = [await limits.take([ONE]) for _ in range(200)]
        assert all(verdict.degraded for verdict in verdicts)
        assert peer.connections <= 2
        await limits.aclose()


async def test_the_password_and_database_of_the_url_are_used_and_no_part_of_it_is_logged(
    valkey: Valkey, start: StartLimits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with redis.Redis.from_url(valkey.url) as admin:
        admin.config_set("requirepass", "s3cret-canary")
    right = await start(f"redis://:s3cret-canary@127.0.0.1:{valkey.port}/3")
    wrong = await start(f"redis://:wr0ng-canary@127.0.0.1:{valkey.port}/3")
    assert not (await right.take([ONE])).degraded
    assert (await wrong.take([ONE])).degraded
    with redis.Redis(port=valkey.port, password="s3cret-canary", db=3) as admin:
        assert admin.exists("{mcp-gateway}:limit:counter")
    valkey.kill()
    await until(lambda: not right.up)
    assert "WRONGPASS" in caplog.text
    assert "canary" not in caplog.text
    assert "127.0.0.1" not in caplog.text


async def test_a_unix_socket_is_a_place_too(tmp_path: Path, start: StartLimits) -> None:
    server = Valkey(tmp_path, unixsocket=str(tmp_path / "valkey.sock"))
    server.start()
    try:
        limits = await start(f"unix://{tmp_path / 'valkey.sock'}?db=1")
        assert not (await limits.take([ONE])).degraded
    finally:
        server.kill()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://h?no_such=1", "rediss://h?ssl_ca_certs=/no/such"])
def test_a_url_that_cannot_work_is_an_error_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL"):
        RedisConnection(url)


async def test_closing_answers_the_calls_that_are_under_way(valkey: Valkey, start: StartLimits) -> None:
    limits = await start(valkey.url)
    valkey.freeze()
    calls = [asyncio.create_task(limits.take([ONE])) for _ in range(5)]
    await asyncio.sleep(0)
    await limits.aclose()
    assert all(verdict.degraded for verdict in await asyncio.gather(*calls))


async def test_no_call_is_lost_while_the_server_comes_and_goes(valkey: Valkey, start: StartLimits) -> None:
    limits = await start(valkey.url)
    ended = asyncio.Event()

    async def calling() -> int:
        answered = 0
        while not ended.is_set():
            answered += (await limits.take([WIDE])).refused is None
            await asyncio.sleep(0)
        return answered

    callers = [asyncio.create_task(calling()) for _ in range(8)]
    for _ in range(2):
        valkey.kill()
        await until(lambda: not limits.up)
        valkey.start()
        await until(lambda: limits.up)
    ended.set()
    assert min(await asyncio.gather(*callers)) > 0


async def test_an_ended_session_is_ended_at_every_replica(valkey: Valkey) -> None:
    here, there = RedisConnection(valkey.url), RedisConnection(valkey.url)
    await asyncio.gather(here.start(), there.start())
    await RedisSessions(here).end("sealed-id", 60.0)
    assert await RedisSessions(there).ended("sealed-id")
    assert not await RedisSessions(there).ended("another")
    with redis.Redis.from_url(valkey.url) as admin:
        (name,) = admin.scan_iter("{mcp-gateway}:ended:*")
        assert b"sealed-id" not in name
        assert 50_000 < admin.pttl(name) <= 60_000
    await asyncio.gather(here.aclose(), there.aclose())


@ends
async def test_without_redis_a_session_that_ended_here_is_still_ended(
    valkey: Valkey, end: Callable[[Valkey], None]
) -> None:
    connection = RedisConnection(valkey.url)
    await connection.start()
    sessions = RedisSessions(connection)
    await sessions.end("before", 60.0)
    end(valkey)
    await sessions.end("during", 60.0)
    assert await sessions.ended("before")
    assert await sessions.ended("during")
    assert not await sessions.ended("another")
    await connection.aclose()
