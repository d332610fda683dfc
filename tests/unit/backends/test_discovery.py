import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.backends import link
from gateway.backends.discovery import CALM, CHANGES, LONG_CALM, Discovery
from gateway.models import Listing


class Backend:
    def __init__(self) -> None:
        self.tools: tuple[str, ...] = ("a",)
        self.broken = False
        self.fetched = 0
        self.told: list[Listing] = []

    async def fetch(self) -> Listing:
        self.fetched += 1
        if self.broken:
            raise link.unreachable("r")
        return Listing("r", tuple({"name": name} for name in self.tools), float(self.fetched))


@asynccontextmanager
async def running(backend: Backend, *, refresh: float = 60.0) -> AsyncIterator[Discovery]:
    discovery = Discovery("r", backend.fetch, backend.told.append, refresh=refresh, chance=lambda: 0.0)
    task = asyncio.create_task(discovery.run())
    try:
        yield discovery
    finally:
        task.cancel()
        await asyncio.wait({task})
        await discovery.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is a value, not an event
            await asyncio.sleep(0.005)


async def test_the_first_listing_is_told_and_the_attempt_noted() -> None:
    backend = Backend()
    async with running(backend) as discovery:
        await discovery.tried.wait()

        assert [listing.tools for listing in backend.told] == [({"name": "a"},)]
        assert discovery.up


async def test_a_first_attempt_that_fails_is_noted_too_and_repeated_until_it_works() -> None:
    backend = Backend()
    backend.broken = True
    async with running(backend) as discovery:
        await discovery.tried.wait()
        assert not discovery.up
        assert backend.told == []

        backend.broken = False

        await until(lambda: discovery.up)
        assert len(backend.told) == 1


async def test_it_refreshes_again_and_again_and_tells_only_what_differs() -> None:
    backend = Backend()
    async with running(backend, refresh=0.01) as discovery:
        await until(lambda: backend.fetched >= 3)
        assert len(backend.told) == 1
        assert discovery.listing is not None
        assert discovery.listing.fetched_at >= 2

        backend.tools = ("a", "b")

        await until(lambda: len(backend.told) == 2)


async def test_a_failure_keeps_the_last_listing() -> None:
    backend = Backend()
    async with running(backend, refresh=0.01) as discovery:
        await until(lambda: discovery.up)
        backend.broken = True
        await until(lambda: not discovery.up)

        assert discovery.listing is not None
        assert discovery.listing.tools == ({"name": "a"},)
        assert len(backend.told) == 1


async def test_a_storm_of_changes_is_one_refresh() -> None:
    backend = Backend()
    async with running(backend) as discovery:
        await discovery.tried.wait()
        for _ in range(100):
            discovery.poke()

        await until(lambda: backend.fetched == 2)

        discovery.poke()
        await asyncio.sleep(0)
        assert backend.fetched == 2


async def test_who_asks_during_a_refresh_waits_for_that_one() -> None:
    backend = Backend()
    discovery = Discovery("r", backend.fetch, backend.told.append, refresh=60.0)

    await asyncio.gather(*(discovery.now() for _ in range(5)))

    assert backend.fetched == 1
    await discovery.aclose()


async def test_any_list_that_differs_is_told_and_each_refresh_is_noted() -> None:
    fresh: list[int] = []
    told: list[Listing] = []
    offers: list[dict[str, tuple[dict[str, str], ...]]] = [
        {},
        {"prompts": ({"name": "p"},)},
        {"resources": ({"uri": "a:1"},)},
        {"templates": ({"uriTemplate": "a:{b}"},)},
        {"templates": ({"uriTemplate": "a:{b}"},)},
    ]

    async def fetch() -> Listing:
        return Listing("r", (), 0.0, **offers[len(fresh)])

    discovery = Discovery("r", fetch, told.append, refresh=60.0, on_fresh=lambda: fresh.append(len(told)))
    for _ in offers:
        await discovery.now()

    assert fresh == [1, 2, 3, 4, 4]


async def test_the_operator_is_told_the_cause_once_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    async def fetch() -> Listing:
        raise link.refused("r") from FileNotFoundError(2, "No such file or directory", "/opt/mcp-server-x")

    discovery = Discovery("r", fetch, lambda _listing: None, refresh=60.0)
    await discovery.now()
    await discovery.now()

    assert [record.getMessage() for record in caplog.records] == [
        "r cannot be listed: backend_unavailable (not found: mcp-server-x); it has no listing yet"
    ]


async def test_a_backend_that_flaps_is_listed_less_often_until_it_has_been_calm() -> None:
    backend, now = Backend(), 100.0
    discovery = Discovery("r", backend.fetch, backend.told.append, refresh=60.0, clock=lambda: now)
    for number in range(CHANGES):
        backend.tools = (f"t{number}",)
        await discovery.now()
    assert discovery.calm == CALM
    backend.tools = ("another",)
    await discovery.now()
    assert discovery.calm == LONG_CALM
    for _ in range(3):
        now += LONG_CALM
        assert discovery.calm == CALM
        backend.tools = (*backend.tools, "more")
        await discovery.now()
        assert discovery.calm == LONG_CALM
    await discovery.now()
    now += CHANGES * LONG_CALM
    backend.tools = ("calm",)
    await discovery.now()
    assert discovery.calm == CALM
