"""What every ``Sessions`` promises: one process's memory, and Redis over replicas."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from gateway.ports import Sessions, SessionState
from gateway.stores.redis_connection import RedisConnection
from gateway.stores.sessions import MemorySessions, RedisSessions

DAY = 86_400.0


class Counted(RedisConnection):
    commands = 0

    async def call(self, *arguments: bytes | str | int) -> Any:
        self.commands += 1
        return await super().call(*arguments)


@pytest.fixture
async def connection(valkey_url: str) -> AsyncIterator[Counted]:
    opened = Counted(valkey_url)
    await opened.start()
    yield opened
    await opened.aclose()


@pytest.fixture(params=["memory", "redis"])
def sessions(request: pytest.FixtureRequest, connection: Counted) -> Sessions:
    return MemorySessions() if request.param == "memory" else RedisSessions(connection)


@pytest.fixture
def session_id() -> str:
    return uuid4().hex


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5.0):
        while not await condition():  # noqa: ASYNC110 - the store's clock tells nobody
            await asyncio.sleep(0.005)


async def test_of_a_session_that_nobody_touched_nothing_is_remembered(sessions: Sessions, session_id: str) -> None:
    assert await sessions.state(session_id) == SessionState(ended=False, log_level=None)
    assert not await sessions.ended(session_id)


async def test_an_ended_session_is_ended_however_it_is_asked_for(sessions: Sessions, session_id: str) -> None:
    await sessions.end(session_id, DAY)
    assert (await sessions.state(session_id)).ended
    assert await sessions.ended(session_id)
    assert not await sessions.ended(session_id + "x")


async def test_the_last_log_level_holds_and_ends_nothing(sessions: Sessions, session_id: str) -> None:
    await sessions.set_log_level(session_id, "debug", DAY)
    await sessions.set_log_level(session_id, "error", DAY)
    assert await sessions.state(session_id) == SessionState(ended=False, log_level="error")
    assert await sessions.state(session_id + "x") == SessionState()


async def test_both_are_forgotten_after_their_time(sessions: Sessions, session_id: str) -> None:
    await sessions.end(session_id, 0.4)
    await sessions.set_log_level(session_id, "debug", 0.4)
    assert await sessions.state(session_id) == SessionState(ended=True, log_level="debug")

    async def forgotten() -> bool:
        return await sessions.state(session_id) == SessionState()

    await until(forgotten)


async def test_a_replica_knows_what_another_was_told(connection: Counted, session_id: str) -> None:
    here, there = RedisSessions(connection), RedisSessions(connection)
    await here.set_log_level(session_id, "debug", DAY)
    await there.set_log_level(session_id, "warning", DAY)
    await there.end(session_id, DAY)
    assert await here.state(session_id) == SessionState(ended=True, log_level="warning")


async def test_a_state_costs_one_round_trip(connection: Counted, session_id: str) -> None:
    sessions = RedisSessions(connection)
    await sessions.state(session_id)
    assert connection.commands == 1


async def test_without_redis_a_replica_goes_by_what_it_was_told_itself(valkey_url: str, session_id: str) -> None:
    sessions = RedisSessions(RedisConnection(valkey_url))
    await sessions.end(session_id, DAY)
    await sessions.set_log_level(session_id, "debug", DAY)
    assert await sessions.state(session_id) == SessionState(ended=True, log_level="debug")
