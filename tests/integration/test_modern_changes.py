"""Lists and changes of a real modern backend, as its route has them: the SDK's own server in its own process."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from gateway.backends.route_backend import RouteBackend
from gateway.models import Change, Listing
from gateway.ports import Take, Verdict
from gateway.routes import Route

from .servers.start import HERE, HttpServer, call, ignore, text, until


class ChangingServer(HttpServer):
    def start(self, *options: str) -> None:
        command = [sys.executable, str(HERE / "changing_http.py"), "--port", self.port, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()
        assert self.port, "the server did not start"


@contextmanager
def changing(*options: str) -> Iterator[ChangingServer]:
    server = ChangingServer(*options)
    try:
        yield server
    finally:
        server.kill()


class Meter:
    def request(self, method: str, route: str, tool: str, outcome: str, era: str, seconds: float) -> None: ...

    def limits(self, takes: Sequence[Take], verdict: Verdict) -> None: ...

    def backend(self, route: str, seconds: float) -> None: ...


class Followed:
    def __init__(self, url: str) -> None:
        self.told: list[Any] = []
        self.backend = RouteBackend(
            Route.model_validate({"name": "notes", "backend": {"url": url}, "scopes": []}),
            on_listing=self.told.append,
            on_change=self.told.append,
            meter=Meter(),
            version="1",
        )

    @property
    def changes(self) -> list[Change]:
        return [one for one in self.told if isinstance(one, Change)]

    @property
    def listing(self) -> Listing:
        assert self.backend.listing is not None
        return self.backend.listing

    async def use(self, tool: str, **arguments: Any) -> str:
        return text(await self.backend.request(call(tool, arguments), ignore))

    async def streams(self) -> tuple[int, int]:
        open_now, ever = (await self.use("streams")).split()
        return int(open_now), int(ever)


@asynccontextmanager
async def followed(url: str) -> AsyncIterator[Followed]:
    one = Followed(url)
    one.backend.start()
    try:
        await one.backend.first_attempt()
        one.told.clear()
        yield one
    finally:
        await one.backend.aclose()


async def test_all_lists_are_had_and_one_stream_is_open_by_then() -> None:
    with changing() as server:
        async with followed(server.url) as one:
            assert {tool["name"] for tool in one.listing.tools} >= {"grow", "say", "touch"}
            assert [prompt["name"] for prompt in one.listing.prompts] == ["greet"]
            assert [resource["uri"] for resource in one.listing.resources] == ["note://one"]
            assert [template["uriTemplate"] for template in one.listing.templates] == ["note://{name}/page"]
            assert await one.streams() == (1, 1)


async def test_a_changed_list_is_told_once_the_listing_has_it() -> None:
    with changing() as server:
        async with followed(server.url) as one:
            await one.use("grow", name="fresh")
            await until(lambda: one.changes)
            listing, change = one.told
            assert "fresh" in {tool["name"] for tool in listing.tools}
            assert change == Change("notes", "tools")


async def test_a_backend_is_believed_that_says_so_even_if_its_list_is_the_same() -> None:
    with changing() as server:
        async with followed(server.url) as one:
            await one.use("say", kind="prompts")
            await until(lambda: one.told)
            assert one.told == [Change("notes", "prompts")]


async def test_watched_resources_are_told_by_a_larger_stream_and_others_are_not() -> None:
    with changing() as server:
        async with followed(server.url) as one:
            one.backend.watch(frozenset({"note://one"}))
            await until(lambda: one.changes)  # the stream is there; what happened until now may have been missed
            one.told.clear()
            one.backend.watch(frozenset({"note://one", "note://x/page"}))
            await until(lambda: one.changes)
            assert one.told == [Change("notes", "resource", "note://x/page")]
            one.told.clear()
            await one.use("touch", uri="note://two")
            await one.use("touch", uri="note://one")
            await until(lambda: one.changes)
            assert one.told == [Change("notes", "resource", "note://one")]
            assert await one.streams() == (1, 3)


async def test_after_a_restart_of_the_backend_it_is_listened_to_and_watched_as_before() -> None:
    with changing() as server:
        async with followed(server.url) as one:
            one.backend.watch(frozenset({"note://one"}))
            await until(lambda: one.changes)
            await one.use("grow", name="fresh")
            await until(lambda: "fresh" in {tool["name"] for tool in one.listing.tools})
            one.told.clear()

            server.restart()

            await until(lambda: Change("notes", "resource", "note://one") in one.changes, 20)
            await until(lambda: Change("notes", "tools") in one.changes, 20)
            assert "fresh" not in {tool["name"] for tool in one.listing.tools}
            one.told.clear()
            await one.use("touch", uri="note://one")
            await until(lambda: one.changes)
            assert await one.streams() == (1, 1)


async def test_a_backend_without_subscriptions_is_listed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with changing("--deaf") as server:
        async with followed(server.url) as one:
            one.backend.watch(frozenset({"note://one"}))
            assert one.backend.up
            assert len(one.listing.prompts) == 1
            assert await one.streams() == (0, 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_the_operator_reads_why_a_backend_cannot_be_listed(caplog: pytest.LogCaptureFixture) -> None:
    with changing() as server:
        url = server.url
    async with followed(url) as one:
        assert not one.backend.up
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == ["notes cannot be listed: backend_unavailable (connection refused); it has no listing yet"]
