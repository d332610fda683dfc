"""Tokens that the gateway gets, shown to real servers of every era and transport."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BackendUnavailable
from gateway.models import Principal

from .issuing import Issuing, issuing
from .servers.start import ALICE, BOB, HttpServer, call, http_server, ignore, text, until
from .test_route_backend import Started, started

ERAS: dict[str, tuple[str, ...]] = {"modern": (), "legacy": ("--legacy-only",), "sse": ("--sse", "--path", "/sse")}
HERS = replace(ALICE, token=b"client-token-of-alice")
HIS = replace(BOB, token=b"client-token-of-bob")


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuing]:
    async with issuing(tmp_path) as one:
        yield one


@pytest.fixture(params=ERAS)
def server(request: pytest.FixtureRequest, issuer: Issuing) -> Iterator[HttpServer]:
    with http_server(*ERAS[request.param], "--admits", str(issuer.file)) as running:
        yield running


@pytest.fixture
def modern(issuer: Issuing) -> Iterator[HttpServer]:
    with http_server("--admits", str(issuer.file)) as running:
        yield running


def route(server: HttpServer, issuer: Issuing, kind: str = "client_credentials", **more: Any) -> dict[str, Any]:
    url = server.url.replace("/mcp", "/sse") if "--sse" in server.options else server.url
    client = {"issuer": issuer.url, "client_id": "gateway", "client_secret": "${S}", "scopes": ["tools"]}
    return {"url": url, "credentials": {kind: client, **more}}


def secretly(backend: dict[str, Any]) -> Any:
    """What the loader gives to ``Route``: references resolved."""
    from gateway.routes import Backend

    return Backend.model_validate(backend, context={"environ": {"S": "secret", "T": "listing-token"}})


async def stats(one: Started, principal: Principal) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text(await one.backend.request(call("stats", principal=principal), ignore)))
    return found


async def test_every_request_bears_one_token_of_the_gateway(server: HttpServer, issuer: Issuing) -> None:
    async with started(secretly(route(server, issuer))) as one:
        assert one.backend.up
        for principal in (HERS, HIS):
            seen = (await stats(one, principal))["seen"]
    shown = {authorization for _method, authorization, _cookie in seen}
    assert shown == {"Bearer client-credentials-1"}
    assert {cookie for _method, _authorization, cookie in seen} == {""}
    assert issuer.forms == [{"grant_type": "client_credentials", "resource": one.url, "scope": "tools"}]
    assert issuer.authorizations == ["gateway:secret"]


async def test_a_token_that_the_backend_does_not_accept_any_more_is_replaced_and_the_call_succeeds(
    server: HttpServer, issuer: Issuing
) -> None:
    async with started(secretly(route(server, issuer))) as one:
        await stats(one, HERS)
        issuer.revoke()
        assert text(await one.backend.request(call("echo", {"text": "hi"}, principal=HERS), ignore)) == "hi"
    assert len(issuer.forms) == 2


async def test_a_backend_that_accepts_nothing_is_unavailable_and_the_issuer_is_left_alone(
    server: HttpServer, issuer: Issuing
) -> None:
    async with started(secretly(route(server, issuer))) as one:
        await stats(one, HERS)
        issuer.admits = False
        issuer.revoke()
        for _ in range(5):
            with pytest.raises(BackendUnavailable) as caught:
                await one.backend.request(call("echo", {"text": "hi"}, principal=HERS), ignore)
            assert not caught.value.dispatched
    assert len(issuer.forms) == 2


async def test_an_issuer_that_is_away_is_said_to_the_agent_and_its_cause_to_the_operator(
    server: HttpServer, issuer: Issuing, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.answers = [(503, {})] * 10
    async with started(secretly(route(server, issuer))) as one:
        assert not one.backend.up
    assert "tools: no token for its backend: the token endpoint answers with HTTP status 503" in caplog.text
    assert "secret" not in caplog.text


async def test_it_comes_back_by_itself(server: HttpServer, issuer: Issuing) -> None:
    issuer.answers = [(503, {})]
    async with started(secretly(route(server, issuer))) as one:
        await until(lambda: one.backend.up)
        assert text(await one.backend.request(call("echo", {"text": "hi"}), ignore)) == "hi"


async def test_each_principal_is_seen_with_a_token_of_its_own_and_the_clients_own_never_is(
    server: HttpServer, issuer: Issuing
) -> None:
    async with started(secretly(route(server, issuer, "token_exchange"))) as one:
        assert one.backend.up
        await stats(one, HERS)
        seen = (await stats(one, HIS))["seen"]
        alices = (await stats(one, HERS))["headers"]["authorization"]
        bobs = (await stats(one, HIS))["headers"]["authorization"]
    assert alices != bobs
    assert alices.startswith("Bearer token-exchange-")
    assert bobs.startswith("Bearer token-exchange-")
    assert "client-token" not in json.dumps(seen)
    exchanges = [form for form in issuer.forms if "subject_token" in form]
    assert [form["subject_token"] for form in exchanges] == ["client-token-of-alice", "client-token-of-bob"]
    lists = [form for form in issuer.forms if "subject_token" not in form]
    assert [form["grant_type"] for form in lists] == ["client_credentials"]


async def test_lists_can_be_fetched_with_a_token_that_is_given(modern: HttpServer, issuer: Issuing) -> None:
    issuer.file.write_text("listing-token\n")
    async with started(secretly(route(modern, issuer, "token_exchange", bearer="${T}"))) as one:
        assert one.backend.up
        assert issuer.forms == []
        seen = (await stats(one, HERS))["seen"]
    assert {authorization for _, authorization, _ in seen} == {"Bearer listing-token", "Bearer token-exchange-1"}


async def test_a_narrower_token_of_the_same_principal_does_not_ride_on_the_wider_ones(
    server: HttpServer, issuer: Issuing
) -> None:
    async with started(secretly(route(server, issuer, "token_exchange"))) as one:
        wide = (await stats(one, HERS))["headers"]["authorization"]
        narrow = (await stats(one, replace(HERS, token=b"narrow")))["headers"]["authorization"]
        again = (await stats(one, HERS))["headers"]["authorization"]
    assert narrow != wide
    assert again == wide


async def test_one_principal_that_is_refused_costs_the_others_nothing(server: HttpServer, issuer: Issuing) -> None:
    async with started(secretly(route(server, issuer, "token_exchange"))) as one:
        await stats(one, HIS)
        issuer.answers = [(400, {"error": "access_denied"})]
        for _ in range(30):
            with pytest.raises(BackendUnavailable, match="not open to you"):
                await one.backend.request(call("echo", {"text": "hi"}, principal=HERS), ignore)
        assert one.backend.breaker_state == 0
        assert text(await one.backend.request(call("echo", {"text": "hi"}, principal=HIS), ignore)) == "hi"


async def test_nor_does_one_that_the_backend_does_not_admit(server: HttpServer, issuer: Issuing) -> None:
    async with started(secretly(route(server, issuer, "token_exchange"))) as one:
        await stats(one, HIS)
        issuer.admits = False
        for _ in range(30):
            with pytest.raises(BackendUnavailable, match="does not admit you"):
                await one.backend.request(call("echo", {"text": "hi"}, principal=HERS), ignore)
        assert one.backend.breaker_state == 0
        assert text(await one.backend.request(call("echo", {"text": "hi"}, principal=HIS), ignore)) == "hi"


async def test_a_token_endpoint_that_hangs_ends_with_the_deadline_of_the_call(
    modern: HttpServer, issuer: Issuing, tmp_path: Path
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    folder = tmp_path / "silent"
    folder.mkdir()
    hanging = Issuing(folder)
    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    hanging.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    backend = route(modern, hanging, "token_exchange", bearer="${T}")
    issuer.file.write_text("listing-token\n")
    async with started(secretly(backend)) as one:
        began = asyncio.get_running_loop().time()
        with pytest.raises(BackendUnavailable) as caught:
            await one.backend.request(call("echo", {"text": "hi"}, principal=HERS, timeout=0.2), ignore)
        assert asyncio.get_running_loop().time() - began < 2.0
        assert not caught.value.dispatched
    listening.close()
