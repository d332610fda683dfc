import asyncio
from collections.abc import Callable

import pytest

from gateway.backends import link
from gateway.backends.backoff import Backoff
from gateway.backends.cause import cause_of
from gateway.backends.credentials.keeping import RENEWALS, KeptToken
from gateway.backends.credentials.tokens import Token, TokenRefusedError
from gateway.egress.documents import UnusableError


class World:
    """``answers`` are given in turn: a lifetime, or a failure. The last one is given ever after."""

    def __init__(self, *answers: float | Exception, refusal: Callable[[str], link.NoCredentials] | None = None) -> None:
        self.now = 0.0
        self.answers = list(answers)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.kept = KeptToken(
            "tools", self._fetch, clock=lambda: self.now, refusal=refusal, backoff=Backoff(1.0, 4.0, lambda: 0.0)
        )

    async def _fetch(self) -> Token:
        self.asked += 1
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Token(f"t{self.asked}", self.now + answer, answer)


AWAY = UnusableError("HTTP status 503")
REFUSED = TokenRefusedError("invalid_client")


async def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    world = World(100.0)
    assert [await world.kept.get() for _ in range(3)] == ["t1"] * 3
    world.now = 89.0
    assert await world.kept.get() == "t1"
    world.now = 90.0
    assert await world.kept.get() == "t2"
    assert world.asked == 2


async def test_all_who_wait_share_one_request_and_one_that_leaves_stops_nothing() -> None:
    world = World(100.0)
    world.gate.clear()
    waiting = [asyncio.create_task(world.kept.get()) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    world.gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["t1"] * 19
    assert world.asked == 1


async def test_while_the_server_is_away_a_token_goes_on_until_its_real_end() -> None:
    world = World(100.0, AWAY)
    await world.kept.get()
    world.now = 95.0
    assert await world.kept.get() == "t1"
    world.now = 100.0
    with pytest.raises(link.NoCredentials) as caught:
        await world.kept.get()
    assert caught.value.retryable
    assert not caught.value.dispatched
    assert cause_of(caught.value) == "HTTP status 503"


async def test_after_a_failure_the_server_is_left_alone_for_longer_each_time() -> None:
    world = World(AWAY)
    waits = []
    for _ in range(4):
        with pytest.raises(link.NoCredentials) as caught:
            await world.kept.get()
        asked = world.asked
        with pytest.raises(link.NoCredentials):
            await world.kept.get()
        assert world.asked == asked
        assert caught.value.retry_after is not None
        waits.append(caught.value.retry_after)
        world.now += caught.value.retry_after
    assert waits == [1.0, 2.0, 4.0, 4.0]


async def test_a_server_that_comes_back_is_heard() -> None:
    world = World(AWAY, 100.0)
    with pytest.raises(link.NoCredentials):
        await world.kept.get()
    world.now = 1.0
    assert await world.kept.get() == "t2"


async def test_a_refusal_of_our_client_is_the_operators_matter_and_names_no_secret() -> None:
    world = World(REFUSED)
    with pytest.raises(link.NoCredentials) as caught:
        await world.kept.get()
    assert not caught.value.retryable
    assert "operator" in caught.value.hint
    assert "invalid_client" not in caught.value.message
    assert "invalid_client" in cause_of(caught.value)


async def test_a_refusal_can_mean_something_else() -> None:
    world = World(REFUSED, refusal=link.principal_refused)
    with pytest.raises(link.NoCredentials, match="not open to you"):
        await world.kept.get()


async def test_a_token_that_the_backend_does_not_accept_is_replaced_once_in_a_while() -> None:
    world = World(100.0)
    assert await world.kept.get() == "t1"
    assert world.kept.refused("t1")
    assert await world.kept.get() == "t2"
    assert not world.kept.refused("t2")
    assert await world.kept.get() == "t2"
    world.now += RENEWALS
    assert world.kept.refused("t2")
    assert await world.kept.get() == "t3"


async def test_whoever_comes_late_with_the_old_token_gets_the_new_one() -> None:
    world = World(100.0)
    await world.kept.get()
    world.kept.refused("t1")
    await world.kept.get()
    assert world.kept.refused("t1")
    assert await world.kept.get() == "t2"
    assert world.asked == 2


async def test_an_attempt_that_is_ended_refuses_whoever_waits() -> None:
    world = World(100.0)
    world.gate.clear()
    waiting = asyncio.create_task(world.kept.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.kept.close()
    with pytest.raises(link.NoCredentials):
        await waiting


async def test_a_failure_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(link.NoCredentials):
        await World(AWAY).kept.get()
    assert "tools: no token for its backend: HTTP status 503" in caplog.text
