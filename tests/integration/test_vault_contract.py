"""One contract for the vault in the process and in a real Redis."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from gateway.backends.credentials.endpoint import Authority, TokenEndpoint
from gateway.backends.credentials.granting import GrantTokens
from gateway.backends.credentials.grants import RENEWING, Grants
from gateway.backends.credentials.metadata import Server
from gateway.backends.credentials.service import StaticToken
from gateway.backends.credentials.tokens import Token
from gateway.backends.link import NoCredentials
from gateway.egress.documents import UnusableError
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


async def test_a_value_is_forgotten_only_while_it_is_the_one_that_was_seen(vault: Vault, key: str) -> None:
    await vault.put(key, "one", 60)
    await vault.put(key, "two", 60)
    assert not await vault.forget(key, "one")
    assert await vault.get(key) == "two"
    assert await vault.forget(key, "two")
    assert await vault.get(key) is None
    assert not await vault.forget(key, "two")


async def test_a_value_is_replaced_only_while_it_is_the_one_that_was_seen(vault: Vault, key: str) -> None:
    assert not await vault.replace(key, "one", "two", 60)
    await vault.put(key, "one", 60)
    assert await vault.replace(key, "one", "two", 60)
    assert not await vault.replace(key, "one", "three", 60)
    assert await vault.get(key) == "two"
    assert await vault.replace(key, "two", "four", 0.02)
    async with asyncio.timeout(5):
        while await vault.get(key) is not None:  # noqa: ASYNC110 - a store tells of no end
            await asyncio.sleep(0.01)


async def test_of_many_who_replace_one_value_one_does(vault: Vault, key: str) -> None:
    await vault.put(key, "former", 60)
    replaced = await asyncio.gather(*(vault.replace(key, "former", str(number), 60) for number in range(20)))
    assert sum(replaced) == 1
    assert await vault.get(key) == str(replaced.index(True))


async def test_of_many_who_forget_a_value_and_one_who_replaces_it_the_new_one_stays(vault: Vault, key: str) -> None:
    for number in range(20):
        old, new = f"old{number}", f"new{number}"
        await vault.put(key, old, 60)
        forgotten = await asyncio.gather(vault.forget(key, old), vault.put(key, new, 60), vault.forget(key, old))
        assert (await vault.get(key), forgotten[2]) == (new, False)


async def test_a_grant_that_was_renewed_is_not_dropped_by_who_saw_the_former(vault: Vault) -> None:
    place, principal = uuid.uuid4().hex, Principal("https://idp", "alice")
    here, there = (Grants((b"k" * 32,), vault, time.time) for _ in range(2))
    await here.keep(place, principal, Token("old", 0.0, 600.0, "first"), "https://idp")
    seen = await here.get(place, principal)
    assert seen is not None
    assert await there.renew(place, principal, Token("new", 0.0, 600.0, "second"), seen) is not None
    assert await here.renew(place, principal, Token("late", 0.0, 600.0, "third"), seen) is None
    assert not await here.drop(place, principal, seen)
    latest = await here.get(place, principal)
    assert latest is not None
    assert latest.access_token == "new"
    assert await here.drop(place, principal, latest)
    assert await there.get(place, principal) is None


class Replicas:
    """Some that share a vault, where one principal's grant has expired. The server fails the first ``failures``."""

    backend = "https://tools.example/mcp"

    def __init__(self, vault: Vault, *, failures: int = 0) -> None:
        self.vault = vault
        self.failures = failures
        self.route = uuid.uuid4().hex
        self.principal = Principal("https://idp", "alice")
        self.spent: list[str] = []

    async def authority(self) -> Authority:
        return Authority(Server("https://idp/token"), "configured", "https://idp")

    async def ask(self, form: dict[str, str], **_: object) -> Token:
        self.spent.append(form["refresh_token"])
        await asyncio.sleep(0)
        if len(self.spent) <= self.failures:
            raise UnusableError("it is away")
        return Token("new", 0.0, 600.0, "next")

    async def tokens(self, count: int) -> list[str | BaseException]:
        """What so many replicas get that need the grant at once."""
        grants = [Grants((b"k" * 32,), self.vault, time.time) for _ in range(count)]
        place, expired = f"{self.route} {self.backend}", Token("old", 0.0, 0.0, "first")
        await grants[0].keep(place, self.principal, expired, "https://idp")
        endpoint, own = cast("TokenEndpoint", self), StaticToken("")
        replicas = [GrantTokens(self.route, endpoint, own, one) for one in grants]
        return await asyncio.gather(*(one.token(self.principal) for one in replicas), return_exceptions=True)


async def test_of_replicas_that_share_a_vault_one_spends_the_refresh_token_of_an_expired_grant(vault: Vault) -> None:
    replicas = Replicas(vault)
    assert set(await replicas.tokens(5)) == {"new"}
    assert replicas.spent == ["first"]


async def test_where_the_replica_that_renews_fails_another_does_it_at_once(vault: Vault) -> None:
    replicas = Replicas(vault, failures=1)
    since = time.monotonic()
    got = await replicas.tokens(5)
    assert [one for one in got if not isinstance(one, NoCredentials)] == ["new"] * 4
    assert replicas.spent == ["first"] * 2
    assert time.monotonic() - since < RENEWING / 2


async def test_where_every_replica_fails_each_tries_once_and_is_refused_soon(vault: Vault) -> None:
    replicas = Replicas(vault, failures=5)
    since = time.monotonic()
    assert all(isinstance(one, NoCredentials) and one.retryable for one in await replicas.tokens(5))
    assert replicas.spent == ["first"] * 5
    assert time.monotonic() - since < RENEWING / 2


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
    for asked in (
        vault.get(key),
        vault.put(key, "x", 1),
        vault.claim(key, 1),
        vault.release(key),
        vault.forget(key, "x"),
        vault.replace(key, "x", "y", 1),
    ):
        with pytest.raises(VaultAway):
            await asked
    await connection.aclose()
