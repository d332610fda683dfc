"""One contract for the vault in the process and in a real Redis."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from gateway.backends.credentials.endpoint import Authority, TokenEndpoint
from gateway.backends.credentials.granting import GrantTokens
from gateway.backends.credentials.grants import Grants
from gateway.backends.credentials.metadata import Server
from gateway.backends.credentials.service import StaticToken
from gateway.backends.credentials.tokens import Token
from gateway.models import Principal
from gateway.stores.redis_connection import RedisConnection
from gateway.stores.vault import MemoryVault, RedisVault
from gateway.vault import Vault, VaultAway

Make = Callable[[], Vault]


@pytest.fixture(params=["memory", "redis"])
async def vault(request: pytest.FixtureRequest) -> AsyncIterator[Vault]:
    if request.param == "memory":
        yield MemoryVault()
        return
    connection = RedisConnection(request.getfixturevalue("valkey_url"))
    await connection.start()
    yield RedisVault(connection)
    await connection.aclose()


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


async def test_a_value_is_kept_and_replaced(vault: Vault, key: str) -> None:
    assert await vault.get(key) is None
    await vault.put(key, "one", 60)
    await vault.put(key, "two", 60)
    assert await vault.get(key) == "two"


async def test_it_is_forgotten_after_its_time(vault: Vault, key: str) -> None:
    await vault.put(key, "one", 0.02)
    async with asyncio.timeout(5):
        while await vault.get(key) is not None:  # noqa: ASYNC110 - a store tells of no end
            await asyncio.sleep(0.01)
    assert await vault.claim(key, 60)


async def test_of_many_who_claim_a_key_one_is_first(vault: Vault, key: str) -> None:
    won = await asyncio.gather(*(vault.claim(key, 60) for _ in range(20)))
    assert sum(won) == 1
    assert await vault.claim(key + "x", 60)


async def test_what_was_claimed_and_released_can_be_claimed_again(vault: Vault, key: str) -> None:
    assert await vault.claim(key, 60)
    await vault.release(key)
    assert await vault.claim(key, 60)
    assert not await vault.claim(key, 60)
    await vault.release(key + "x")


async def test_of_replicas_that_share_a_vault_one_spends_the_refresh_token_of_an_expired_grant(vault: Vault) -> None:
    place, principal = uuid.uuid4().hex, Principal("https://idp", "alice")
    spent: list[str] = []

    class Endpoint:
        backend = "https://tools.example/mcp"

        async def authority(self) -> Authority:
            return Authority(Server("https://idp/token"), "configured", "https://idp")

        async def ask(self, form: dict[str, str], **_: object) -> Token:
            spent.append(form["refresh_token"])
            await asyncio.sleep(0)
            return Token("new", 0.0, 600.0, "next")

    def replica() -> GrantTokens:
        grants = Grants((b"k" * 32,), vault, time.time)
        return GrantTokens(place, cast("TokenEndpoint", Endpoint()), StaticToken(""), grants)

    grants = Grants((b"k" * 32,), vault, time.time)
    await grants.keep(f"{place} {Endpoint.backend}", principal, Token("old", 0.0, 0.0, "first"), "https://idp")
    assert set(await asyncio.gather(*(replica().token(principal) for _ in range(5)))) == {"new"}
    assert spent == ["first"]


async def test_links_crowd_out_no_grants() -> None:
    vault = MemoryVault(most=3)
    await vault.put("grant:alice", "hers", 60)
    for number in range(10):
        await vault.claim(f"link:{number}", 60)
    assert await vault.get("grant:alice") == "hers"
    assert len(vault) == 4


async def test_memory_is_bounded() -> None:
    vault = MemoryVault(most=3)
    for number in range(10):
        await vault.put(str(number), "x", 60)
    assert len(vault) == 3
    assert await vault.get("9") == "x"


async def test_a_redis_that_is_away_is_no_answer(key: str) -> None:
    connection = RedisConnection("redis://127.0.0.1:1/0")
    await connection.start()
    vault = RedisVault(connection)
    for asked in (vault.get(key), vault.put(key, "x", 1), vault.claim(key, 1), vault.release(key)):
        with pytest.raises(VaultAway):
            await asked
    await connection.aclose()
