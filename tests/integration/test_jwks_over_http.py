"""Keys over real sockets: an issuer on the loopback, its discovery, its rotation and its bad days."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.devtokens import DevIssuer
from gateway.egress.documents import MAX_DOCUMENT
from gateway.errors import IssuerUnavailable, Unauthenticated
from gateway.policy.authenticate import TokenAuthenticator
from gateway.routes import Auth
from gateway.stores import jwks
from gateway.stores.jwks import JwksStore

AUDIENCE = "https://mcp.example.com/mcp"


class Idp:
    """A web server of few words. ``answers`` has whole HTTP responses by path; None is silence."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.headers: list[str] = []
        self.sent = 0
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.split(" ")[1])
            self.headers.append(head.lower())
            answer = self.answers.get(self.asked[-1], response(b"", status=404))
            if answer is None:
                await reader.read()
            elif answer == ENDLESS:
                await self._drip(writer)
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            self.sent += 0x10000
            await writer.drain()


ENDLESS = b"endless"


def response(body: bytes, *headers: str, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def document(value: Any) -> bytes:
    return response(json.dumps(value).encode(), "Content-Type: application/json", "Set-Cookie: a=b")


@asynccontextmanager
async def running() -> AsyncIterator[Idp]:
    idp = Idp()
    server = await asyncio.start_server(idp, "127.0.0.1", 0)
    idp.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield idp
    finally:
        server.close()


def rules(idp: Idp, **issuer: Any) -> Auth:
    times = {"ttl": "10m", "cooldown": "30s", "stale": "1h"}
    entry = {"issuer": idp.url} | issuer
    return Auth.model_validate({"resource": AUDIENCE, "issuers": [entry], "jwks": times})


class Clock:
    """Time that passes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def store_of(auth: Auth, clock: Clock | None = None) -> AsyncIterator[JwksStore]:
    store = JwksStore(auth, clock=clock or Clock())
    await store.start()
    try:
        yield store
    finally:
        await store.aclose()


async def test_a_token_of_a_discovered_issuer_is_accepted_and_a_rotated_key_found() -> None:
    async with running() as idp:
        old, new = DevIssuer.create(idp.url), DevIssuer.create(idp.url, algorithm="ES256")
        oidc = "/.well-known/openid-configuration"
        idp.answers = {oidc: document({"issuer": idp.url, "jwks_uri": idp.url + "/k"}), "/k": document(old.jwks())}
        auth, clock = rules(idp), Clock()
        async with store_of(auth, clock) as store:
            authenticate = TokenAuthenticator(auth, store)
            header = f"Bearer {old.mint('ada', ['a'], AUDIENCE)}".encode()
            assert (await authenticate([header])).subject == "ada"
            assert idp.asked == ["/.well-known/oauth-authorization-server", oidc, "/k"]

            idp.answers["/k"] = document(new.jwks())
            clock.now += 30
            principal = await authenticate([f"Bearer {new.mint('bob', [], AUDIENCE)}".encode()])
            assert principal.subject == "bob"
            with pytest.raises(Unauthenticated) as caught:
                await authenticate([header])
            assert caught.value.reason == "unknown_key"
            assert not any("cookie" in head for head in idp.headers)


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with running() as idp:
        issuer = DevIssuer.create(idp.url)
        idp.answers["/k"] = document(issuer.jwks())
        async with store_of(rules(idp, jwks_uri=idp.url + "/k")) as store:
            assert store.ready


async def test_a_redirect_is_not_followed() -> None:
    async with running() as idp:
        idp.answers = {
            "/k": response(b"", "Location: /elsewhere", status=302),
            "/elsewhere": document(DevIssuer.create(idp.url).jwks()),
        }
        async with store_of(rules(idp, jwks_uri=idp.url + "/k")) as store:
            assert not store.ready
            assert set(idp.asked) == {"/k"}


async def test_an_endless_answer_is_cut_at_the_limit() -> None:
    async with running() as idp:
        idp.answers["/k"] = ENDLESS
        async with store_of(rules(idp, jwks_uri=idp.url + "/k")) as store:
            assert not store.ready
        # What lies in socket buffers was sent and never read.
        assert idp.sent < MAX_DOCUMENT + 16 * 1024 * 1024


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async with running() as idp:
        body = gzip.compress(json.dumps(DevIssuer.create(idp.url).jwks()).encode())
        idp.answers["/k"] = response(body, "Content-Encoding: gzip")
        async with store_of(rules(idp, jwks_uri=idp.url + "/k")) as store:
            assert not store.ready


async def test_silence_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.05)
    async with running() as idp:
        idp.answers["/k"] = None
        async with asyncio.timeout(5), store_of(rules(idp, jwks_uri=idp.url + "/k")) as store:
            with pytest.raises(IssuerUnavailable):
                await store.find(idp.url, None, "EdDSA")


async def test_an_issuer_that_is_gone_leaves_its_keys() -> None:
    async with running() as idp:
        issuer = DevIssuer.create(idp.url)
        idp.answers["/k"] = document(issuer.jwks())
        clock = Clock()
        store = JwksStore(rules(idp, jwks_uri=idp.url + "/k"), clock=clock)
        await store.start()
    try:
        clock.now += 1200
        assert await store.find(idp.url, "unknown", "EdDSA") == ()
        assert len(await store.find(idp.url, issuer.kid, "EdDSA")) == 1
    finally:
        await store.aclose()
