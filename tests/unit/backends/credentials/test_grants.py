from gateway.backends.credentials.grants import RENEWABLE, Grants
from gateway.backends.credentials.tokens import Token
from gateway.models import Principal
from gateway.stores.vault import MemoryVault

ALICE, BOB = Principal("https://idp", "alice"), Principal("https://idp", "bob")
KEYS = (b"k" * 32,)
SERVER = "https://server.example"


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.vault = MemoryVault(lambda: self.now)
        self.grants = Grants(KEYS, self.vault, lambda: self.now)


def token(value: str = "access", refresh: str | None = "refresh") -> Token:
    return Token(value, 0.0, 600.0, refresh)


async def test_a_grant_is_one_principals_and_one_routes() -> None:
    world = World()
    await world.grants.keep("tools", ALICE, token(), SERVER)
    kept = await world.grants.get("tools", ALICE)
    assert kept is not None
    assert (kept.access_token, kept.expires_at, kept.refresh_token) == ("access", 1600.0, "refresh")
    assert await world.grants.get("tools", BOB) is None
    assert await world.grants.get("other", ALICE) is None


async def test_what_is_kept_is_sealed_and_bound_to_its_place() -> None:
    world = World()
    await world.grants.keep("tools", ALICE, token(), SERVER)
    await world.grants.keep("tools", BOB, token("his"), SERVER)
    stored = {key: value for key, (_, value) in world.vault._kinds["grant"].items()}
    assert not [text for text in (*stored, *stored.values()) if "access" in text or "alice" in text]
    (first, hers), (second, his) = stored.items()
    await world.vault.put(first, his, 100.0)
    await world.vault.put(second, hers, 100.0)
    assert await world.grants.get("tools", ALICE) is None
    assert await world.grants.get("tools", BOB) is None


async def test_another_key_ring_opens_nothing() -> None:
    world = World()
    await world.grants.keep("tools", ALICE, token(), SERVER)
    assert await Grants((b"x" * 32,), world.vault, lambda: world.now).get("tools", ALICE) is None


async def test_a_grant_that_cannot_be_renewed_ends_with_its_token() -> None:
    world = World()
    await world.grants.keep("tools", ALICE, token(refresh=None), SERVER)
    world.now += 601.0
    assert await world.grants.get("tools", ALICE) is None


async def test_one_that_can_be_lasts_and_keeps_its_refresh_token_where_no_other_came() -> None:
    world = World()
    former = await world.grants.keep("tools", ALICE, token(), SERVER)
    world.now += RENEWABLE - 1
    renewed = await world.grants.renew("tools", ALICE, token("next", None), former)
    assert renewed.refresh_token == "refresh"
    world.now += RENEWABLE - 1
    assert await world.grants.get("tools", ALICE) is not None


async def test_one_at_a_time_renews_a_grant() -> None:
    world = World()
    grant = await world.grants.keep("tools", ALICE, token(), SERVER)
    assert await world.grants.first("tools", ALICE, grant)
    assert not await world.grants.first("tools", ALICE, grant)
    await world.grants.done("tools", ALICE, grant)
    assert await world.grants.first("tools", ALICE, grant)


async def test_it_can_be_dropped() -> None:
    world = World()
    former = await world.grants.keep("tools", ALICE, token(), SERVER)
    grant = await world.grants.keep("tools", ALICE, token(), SERVER)
    assert not await world.grants.drop("tools", ALICE, former)
    assert await world.grants.get("tools", ALICE) == grant
    assert await world.grants.drop("tools", ALICE, grant)
    assert await world.grants.get("tools", ALICE) is None


async def test_a_grant_does_not_show_its_tokens() -> None:
    shown = repr(await World().grants.keep("tools", ALICE, token(), SERVER))
    assert "access'" not in shown
    assert "'refresh'" not in shown
