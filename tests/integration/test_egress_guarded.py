"""Names that lead elsewhere: what was judged is what is connected to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from gateway.egress.documents import UnusableError, document_client, fetch
from gateway.egress.guarded import AddressRefusedError, resolve


class Server:
    def __init__(self) -> None:
        self.asked = 0
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await listening.wait_closed()


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let each resolution of a name give the next of these answers."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    return asked


class Loop(asyncio.SelectorEventLoop):
    """One whose names tests can give."""


def pytest_asyncio_loop_factories() -> dict[str, Any]:
    return {"selector": Loop}


async def test_a_name_that_leads_to_metadata_of_the_cloud_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ["169.254.169.254"])
    with pytest.raises(AddressRefusedError):
        await resolve("metadata.example", 80, "configured")
    assert await resolve("metadata.example", 80, "anywhere") == ["169.254.169.254"]


async def test_of_several_addresses_only_the_allowed_ones_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ["169.254.169.254", "10.0.0.7", "10.0.0.7"])
    assert await resolve("mixed.example", 80, "configured") == ["10.0.0.7"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1"])
async def test_no_spelling_of_loopback_is_public(host: str) -> None:
    with pytest.raises(AddressRefusedError):
        await resolve(host, 80, "public")


async def test_a_name_is_asked_once_and_what_was_judged_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as server, document_client("configured") as client:
        asked = names(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
        assert await fetch(client, f"http://idp.example:{server.port}/") == b"{}"
        assert [host for host in asked if host == "idp.example"] == ["idp.example"]


async def test_the_client_of_the_public_does_not_connect_to_a_private_address() -> None:
    async with running() as server, document_client("public") as client:
        with pytest.raises(UnusableError, match="address not allowed"):
            await fetch(client, f"http://127.0.0.1:{server.port}/")
        assert server.asked == 0


async def test_an_address_that_does_not_answer_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as server, document_client("configured") as client:
        names(monkeypatch, ["127.0.0.2", "127.0.0.1"])
        assert await fetch(client, f"http://idp.example:{server.port}/") == b"{}"


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with running() as server, document_client("configured") as client:
        assert await fetch(client, f"http://127.0.0.1:{server.port}/") == b"{}"


async def test_a_server_that_is_away_is_a_failed_request() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with document_client("configured") as client:
            with pytest.raises(UnusableError, match="request failed"):
                await fetch(client, f"http://127.0.0.1:{unused.getsockname()[1]}/")
        assert isinstance(client, httpx2.AsyncClient)
