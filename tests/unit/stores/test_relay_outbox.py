import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from gateway.stores.relay_outbox import Outbox


class FakeRedis:
    """Fails as often as told, then counts ``listeners`` for each frame."""

    def __init__(self) -> None:
        self.failures = 0
        self.listeners: Any = 1
        self.got: list[bytes] = []
        self.writes = 0
        self.tried = asyncio.Event()

    def pipeline(self, *, transaction: bool) -> "FakePipeline":
        assert not transaction
        return FakePipeline(self)


class FakePipeline:
    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._frames: list[bytes] = []

    def publish(self, channel: bytes, frame: bytes) -> None:
        self._frames.append(frame)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        self._redis.writes += 1
        self._redis.tried.set()
        if self._redis.failures:
            self._redis.failures -= 1
            raise RedisConnectionError
        self._redis.got += self._frames
        return [self._redis.listeners] * len(self._frames)


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
async def outbox(redis: FakeRedis) -> AsyncIterator[Outbox]:
    opened = Outbox(redis, 1000)  # type: ignore[arg-type]
    sending = asyncio.create_task(opened.run())
    yield opened
    sending.cancel()
    await asyncio.wait([sending])


FRAMES = [b"%d" % number for number in range(10)]


async def test_frames_of_one_turn_leave_in_one_write_and_in_order(redis: FakeRedis, outbox: Outbox) -> None:
    parcels = [outbox.put(b"c", frame, 1.0) for frame in FRAMES]
    assert await asyncio.gather(*(parcel.sent for parcel in parcels)) == ["taken"] * 10
    assert (redis.got, redis.writes) == (FRAMES, 1)


async def test_what_fails_is_tried_again_in_the_same_order(redis: FakeRedis, outbox: Outbox) -> None:
    redis.failures = 1
    parcels = [outbox.put(b"c", frame, 10.0) for frame in FRAMES]
    assert await asyncio.gather(*(parcel.sent for parcel in parcels)) == ["taken"] * 10
    assert redis.got == FRAMES


async def test_what_could_not_be_sent_in_its_time_has_an_unknown_fate(redis: FakeRedis, outbox: Outbox) -> None:
    redis.failures = 10**9
    assert await outbox.put(b"c", b"x", 0.15).sent == "unknown"


async def test_a_listener_that_comes_in_time_is_waited_for_and_no_longer(redis: FakeRedis, outbox: Outbox) -> None:
    redis.listeners = 0
    assert await outbox.put(b"c", b"x", 0.15).sent == "nobody"
    late = outbox.put(b"c", b"y", 10.0)
    redis.tried.clear()
    await redis.tried.wait()
    redis.listeners = 1
    assert await late.sent == "taken"


async def test_what_nobody_wants_any_more_is_not_sent(redis: FakeRedis, outbox: Outbox) -> None:
    first, second = outbox.put(b"c", b"1", 1.0), outbox.put(b"c", b"2", 1.0)
    first.sent.cancel()
    assert await second.sent == "taken"
    assert redis.got == [b"2"]


async def test_its_bytes_are_bounded_and_given_back(redis: FakeRedis, outbox: Outbox) -> None:
    assert outbox.takes(1000)
    parcel = outbox.put(b"c", b"x" * 600, 1.0)
    assert not outbox.takes(401)
    await parcel.sent
    await outbox.flush(1.0)
    assert outbox.takes(1000)


async def test_what_redis_forbids_is_said_once(
    redis: FakeRedis, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    redis.listeners = NoPermissionError("NOPERM no channel")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await outbox.put(b"c", b"x", 1.0).sent == "unknown"
    assert caplog.text.count("refuses") == 1
