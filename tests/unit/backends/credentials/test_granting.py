import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.backends.credentials.granting import GrantTokens
from gateway.backends.credentials.grants import RENEWING, Grant, Grants
from gateway.backends.credentials.keeping import RENEWALS
from gateway.backends.credentials.service import StaticToken
from gateway.backends.credentials.tokens import Token
from gateway.backends.link import NoCredentials, NotConnected
from gateway.backends.verdict import NOBODY
from gateway.models import Principal
from gateway.stores.vault import MemoryVault
from gateway.vault import VaultAway

from .provider import ISSUER, Provider

ALICE, BOB = Principal("https://idp", "alice"), Principal("https://idp", "bob")
PLACE = "tools https://tools.example/mcp"


class Vault(MemoryVault):
    away = False

    async def get(self, key: str) -> str | None:
        if self.away:
            raise VaultAway
        return await super().get(key)


class World:
    def __init__(self) -> None:
        self.provider = Provider()
        self.provider.now = 1000.0
        self.vault = Vault(lambda: self.provider.now)
        self.grants = Grants((b"k" * 32,), self.vault, lambda: self.provider.now)
        self.tokens = self.replica()

    def replica(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> GrantTokens:
        endpoint = self.provider.endpoint("authorization_code", issuer=ISSUER)
        own = StaticToken("own")
        return GrantTokens("tools", endpoint, own, self.grants, now=lambda: self.provider.now, sleep=sleep)

    async def connect(self, principal: Principal = ALICE, *, refresh: str | None = "r0") -> None:
        await self.grants.keep(PLACE, principal, Token("granted", 0.0, 600.0, refresh), ISSUER)


async def test_who_granted_nothing_is_not_connected_and_nothing_is_sent() -> None:
    world = World()
    with pytest.raises(NotConnected) as caught:
        await world.tokens.token(ALICE)
    assert not caught.value.dispatched
    assert world.provider.requests == []
    await world.tokens.aclose()


async def test_a_grant_is_used_for_its_principal_alone() -> None:
    world = World()
    await world.connect()
    assert await world.tokens.token(ALICE) == "granted"
    with pytest.raises(NotConnected):
        await world.tokens.token(BOB)
    assert await world.tokens.token(NOBODY) == "own"


async def test_it_is_renewed_shortly_before_its_end_once_for_all_calls() -> None:
    world = World()
    await world.connect()
    await world.tokens.token(ALICE)
    world.provider.now += 575.0
    assert set(await asyncio.gather(*(world.tokens.token(ALICE) for _ in range(10)))) == {"t1"}
    assert world.provider.forms == [
        {"grant_type": "refresh_token", "refresh_token": "r0", "resource": "https://tools.example/mcp"}
    ]


async def test_a_refresh_token_that_was_replaced_is_used_next() -> None:
    world = World()
    await world.connect()
    answer = {"access_token": "a1", "token_type": "Bearer", "expires_in": 600, "refresh_token": "r1"}
    world.provider.answers = [(200, answer)]
    for _ in range(2):
        world.provider.now += 590.0
        await world.tokens.token(ALICE)
    assert [form["refresh_token"] for form in world.provider.forms] == ["r0", "r1"]


async def test_a_grant_that_was_taken_back_is_forgotten() -> None:
    world = World()
    await world.connect()
    world.provider.now += 590.0
    world.provider.answers = [(400, {"error": "invalid_grant"})]
    for _ in range(2):
        with pytest.raises(NotConnected):
            await world.tokens.token(ALICE)
    assert len(world.provider.forms) == 1


async def test_of_two_replicas_that_renew_at_once_the_slower_takes_what_the_faster_got() -> None:
    world = World()
    await world.connect()
    slow = world.replica()
    world.provider.now += 590.0
    faster = Token("by-the-other", 0.0, 600.0, "r1")

    async def refuse(*_: object, **__: object) -> Token:
        from gateway.backends.credentials.tokens import TokenRefusedError

        await world.grants.keep(PLACE, ALICE, faster, ISSUER)
        raise TokenRefusedError("invalid_grant")

    slow.endpoint.ask = refuse  # type: ignore[method-assign]
    assert await slow.token(ALICE) == "by-the-other"


async def test_a_late_refusal_of_a_former_token_takes_nobody_the_grant_that_replaced_it() -> None:
    """The account was connected anew between the last look and the drop."""
    world = World()
    await world.connect()
    world.provider.now += 700.0
    world.provider.answers = [(400, {"error": "invalid_grant"})]
    drop = world.grants.drop

    async def late(place: str, principal: Principal, grant: Grant) -> bool:
        await world.grants.keep(place, principal, Token("connected-anew", 0.0, 600.0, "r9"), ISSUER)
        return await drop(place, principal, grant)

    world.grants.drop = late  # type: ignore[method-assign]
    assert await world.tokens.token(ALICE) == "connected-anew"
    assert await world.replica().token(ALICE) == "connected-anew"


async def test_an_account_that_is_connected_anew_while_the_former_is_renewed_is_the_one_that_stays() -> None:
    world = World()
    await world.connect()
    world.provider.now += 700.0
    ask = world.tokens.endpoint.ask

    async def meanwhile(*arguments: Any, **more: Any) -> Token:
        await world.tokens.keep(ALICE, Token("another-account", 0.0, 600.0, "r9"), ISSUER)
        return await ask(*arguments, **more)

    world.tokens.endpoint.ask = meanwhile  # type: ignore[method-assign]
    assert await world.tokens.token(ALICE) == "another-account"
    assert await world.replica().token(ALICE) == "another-account"


async def test_while_the_server_is_away_a_token_goes_on_until_its_end() -> None:
    world = World()
    await world.connect()
    world.provider.answers = [(503, {})] * 2
    world.provider.now += 580.0
    assert await world.tokens.token(ALICE) == "granted"
    world.provider.now += 20.0
    with pytest.raises(NoCredentials) as caught:
        await world.tokens.token(ALICE)
    assert not isinstance(caught.value, NotConnected)


async def test_a_grant_without_a_refresh_token_ends() -> None:
    world = World()
    await world.connect(refresh=None)
    world.provider.now += 590.0
    assert await world.tokens.token(ALICE) == "granted"
    world.provider.now += 10.0
    with pytest.raises(NotConnected):
        await world.tokens.token(ALICE)


async def test_a_token_that_the_backend_does_not_accept_is_renewed_and_then_the_grant_is_over() -> None:
    world = World()
    await world.connect()
    assert world.tokens.refused(ALICE, await world.tokens.token(ALICE))
    assert await world.tokens.token(ALICE) == "t1"
    assert not world.tokens.refused(ALICE, "t1")
    assert world.tokens.denied(ALICE, 401) is not None
    world.provider.now += RENEWALS
    world.provider.answers = [(400, {"error": "invalid_grant"})]
    with pytest.raises(NotConnected):
        await world.tokens.token(ALICE)


async def test_what_another_replica_renewed_is_found_in_time() -> None:
    world = World()
    await world.connect()
    await world.tokens.token(ALICE)
    await world.grants.keep(PLACE, ALICE, Token("newer", 0.0, 600.0, "r1"), ISSUER)
    world.provider.now += 31.0
    assert await world.tokens.token(ALICE) == "newer"


async def test_a_store_that_is_away_is_no_reason_to_connect_again() -> None:
    world = World()
    await world.connect()
    world.vault.away = True
    with pytest.raises(NoCredentials) as caught:
        await world.tokens.token(ALICE)
    assert not isinstance(caught.value, NotConnected)
    assert caught.value.retryable


async def test_what_was_granted_for_one_backend_is_not_sent_to_the_next_of_the_route() -> None:
    world = World()
    await world.connect()
    moved = world.provider.endpoint("authorization_code", "https://other.example/mcp", issuer=ISSUER)
    tokens = GrantTokens("tools", moved, StaticToken("own"), world.grants, now=lambda: world.provider.now)
    with pytest.raises(NotConnected):
        await tokens.token(ALICE)
    assert await world.tokens.token(ALICE) == "granted"


async def test_a_refresh_token_goes_to_the_server_that_gave_it_alone() -> None:
    world = World()
    await world.connect()
    another = world.provider.endpoint(
        "authorization_code", token_url="https://new.example/token", authorization_url="https://new.example/authorize"
    )
    tokens = GrantTokens("tools", another, StaticToken("own"), world.grants, now=lambda: world.provider.now)
    world.provider.now += 575.0
    assert await tokens.token(ALICE) == "granted"
    world.provider.now += 30.0
    with pytest.raises(NotConnected):
        await tokens.token(ALICE)
    assert world.provider.forms == []


@pytest.mark.parametrize(
    ("status", "answer"), [(401, {"error": "invalid_client"}), (403, {}), (400, {"error": "temporarily_unavailable"})]
)
async def test_a_refusal_that_is_about_the_gateway_takes_nobody_the_account_away(
    status: int, answer: dict[str, str]
) -> None:
    world = World()
    await world.connect()
    world.provider.now += 575.0
    world.provider.answers = [(status, answer)] * 2
    assert await world.tokens.token(ALICE) == "granted"
    world.provider.now += 30.0
    with pytest.raises(NoCredentials) as caught:
        await world.tokens.token(ALICE)
    assert not isinstance(caught.value, NotConnected)
    assert await world.tokens.token(ALICE) == "t3"
    assert world.provider.forms[-1]["refresh_token"] == "r0"


async def test_two_replicas_do_not_both_renew_what_is_still_good() -> None:
    world = World()
    await world.connect()
    other, ask = world.replica(), world.tokens.endpoint.ask
    world.provider.now += 575.0

    async def meanwhile(*arguments: Any, **more: Any) -> Token:
        assert await other.token(ALICE) == "granted"
        return await ask(*arguments, **more)

    world.tokens.endpoint.ask = meanwhile  # type: ignore[method-assign]
    assert await world.tokens.token(ALICE) == "t1"
    assert len(world.provider.forms) == 1
    world.provider.now += 24.5
    assert await other.token(ALICE) == "t1"
    assert len(world.provider.forms) == 1


async def test_what_one_replica_could_not_renew_another_may_later() -> None:
    world = World()
    await world.connect()
    world.provider.answers = [(503, {})]
    world.provider.now += 575.0
    assert await world.tokens.token(ALICE) == "granted"
    world.provider.now += RENEWING
    assert await world.replica().token(ALICE) == "t2"


async def test_what_is_being_renewed_when_a_backend_is_retired_is_not_lost() -> None:
    world = World()
    await world.connect()
    world.provider.now += 590.0
    asked, go, ask = asyncio.Event(), asyncio.Event(), world.tokens.endpoint.ask

    async def slowly(*arguments: Any, **more: Any) -> Token:
        asked.set()
        await go.wait()
        return await ask(*arguments, **more)

    world.tokens.endpoint.ask = slowly  # type: ignore[method-assign]
    call = asyncio.create_task(world.tokens.token(ALICE))
    await asked.wait()
    call.cancel()
    closing = asyncio.create_task(world.tokens.aclose())
    await asyncio.wait([call])
    go.set()
    await closing
    kept = await world.grants.get(PLACE, ALICE)
    assert kept is not None
    assert kept.access_token == "t1"


async def test_of_two_replicas_that_find_a_grant_expired_one_spends_its_refresh_token() -> None:
    world = World()
    await world.connect()
    world.provider.now += 700.0
    replicas = [world.replica() for _ in range(4)]
    assert set(await asyncio.gather(*(replica.token(ALICE) for replica in replicas))) == {"t1"}
    assert [form["refresh_token"] for form in world.provider.forms] == ["r0"]


async def test_a_replica_that_read_a_grant_before_another_renewed_it_does_not_renew_it_again() -> None:
    world = World()
    await world.connect()
    world.provider.now += 700.0
    late, first = world.replica(), world.grants.first

    async def meanwhile(*arguments: Any) -> bool:
        world.grants.first = first  # type: ignore[method-assign]
        await world.tokens.token(ALICE)
        return await first(*arguments)

    world.grants.first = meanwhile  # type: ignore[method-assign]
    assert await late.token(ALICE) == "t1"
    assert len(world.provider.forms) == 1


@pytest.mark.parametrize(
    ("answers", "expected"),
    [([(503, {})], "t2"), ([(503, {}), (503, {})], None), ([(400, {"error": "invalid_grant"})], NotConnected)],
)
async def test_who_waits_for_a_replica_that_fails_tries_itself_at_once(
    answers: list[Any], expected: str | type[NotConnected] | None
) -> None:
    world = World()
    await world.connect()
    world.provider.now += 700.0
    world.provider.answers = answers
    looks = 0

    async def look(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        go.set()
        with pytest.raises(NoCredentials):
            await failing

    asked, go, ask = asyncio.Event(), asyncio.Event(), world.tokens.endpoint.ask

    async def slowly(*arguments: Any, **more: Any) -> Token:
        asked.set()
        await go.wait()
        return await ask(*arguments, **more)

    world.tokens.endpoint.ask = slowly  # type: ignore[method-assign]
    failing = asyncio.ensure_future(world.tokens.token(ALICE))
    await asked.wait()
    waiting = asyncio.ensure_future(world.replica(look).token(ALICE))
    if isinstance(expected, str):
        assert await waiting == expected
    else:
        with pytest.raises(expected or NoCredentials) as refused:
            await waiting
        assert isinstance(refused.value, NotConnected) is (expected is NotConnected)
    assert looks == 1
    assert len(world.provider.forms) == (1 if expected is NotConnected else 2)


async def test_who_waits_for_another_replica_in_vain_is_told_to_try_again() -> None:
    world = World()
    await world.connect()
    world.provider.now += 700.0
    grant = await world.grants.get(PLACE, ALICE)
    assert grant is not None
    assert await world.grants.first(PLACE, ALICE, grant)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    endpoint = world.provider.endpoint("authorization_code", issuer=ISSUER)
    now = lambda: world.provider.now  # noqa: E731
    waiting = GrantTokens("tools", endpoint, StaticToken("own"), world.grants, now=now, sleep=sleep)
    with pytest.raises(NoCredentials) as caught:
        await waiting.token(ALICE)
    assert caught.value.retryable
    assert not isinstance(caught.value, NotConnected)
    assert world.provider.forms == []
    assert sum(waited) == pytest.approx(RENEWING)
