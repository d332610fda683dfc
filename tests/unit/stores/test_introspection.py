"""Questions to an issuer about its opaque tokens: what is sent, what counts as an answer. No sockets."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from gateway.egress.documents import MAX_DOCUMENT, document_client
from gateway.errors import IssuerUnavailable
from gateway.routes import Issuer
from gateway.stores.introspection import MAX_QUESTIONS, Introspector

URL = "https://idp.example.com/introspect"


def issuer(**changes: Any) -> Issuer:
    asked = {"url": URL, "client_id": "g w", "client_secret": "${S}"} | changes
    return Issuer.model_validate(
        {"issuer": "https://idp.example.com", "introspection": asked}, context={"environ": {"S": "p:ss/\u00e4"}}
    )


class Idp:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.requests: list[httpx2.Request] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, httpx2.Response):
            return _streamed(self.answer)
        return _streamed(httpx2.Response(200, json=self.answer))


def _streamed(answer: httpx2.Response) -> httpx2.Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield answer.content

    return httpx2.Response(answer.status_code, headers=answer.headers, content=pieces())


@asynccontextmanager
async def asking(answer: Any) -> AsyncIterator[tuple[Introspector, Idp]]:
    idp, entry = Idp(answer), issuer()
    assert entry.introspection is not None
    made = Introspector(entry, entry.introspection, lambda reach: document_client(reach, httpx2.MockTransport(idp)))
    try:
        yield made, idp
    finally:
        idp.gate.set()
        await made.aclose()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_question_is_a_form_with_the_gateways_own_credentials() -> None:
    async with asking({"active": True, "sub": "ada"}) as (introspect, idp):
        assert await introspect(b"a+b/c=") == {"active": True, "sub": "ada"}
    (request,) = idp.requests
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.content.decode()) == {"token": ["a+b/c="], "token_type_hint": ["access_token"]}
    scheme, _space, pair = request.headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair)) == ("Basic", b"g+w:p%3Ass%2F%C3%A4")


async def test_a_token_that_is_not_active_has_no_claims() -> None:
    async with asking({"active": False, "sub": "ada"}) as (introspect, _idp):
        assert await introspect(b"t") is None


OUTAGES = {
    "nobody there": httpx2.ConnectError("refused"),
    "the connection breaks": httpx2.ReadError("reset"),
    "our secret is wrong": httpx2.Response(401, json={"active": False}),
    "we may not ask": httpx2.Response(403, json={}),
    "an error": httpx2.Response(500, json={"active": False}),
    "a redirect": httpx2.Response(302, headers={"location": "https://evil.example.com"}),
    "no content": httpx2.Response(204),
    "not JSON": httpx2.Response(200, text="<html>"),
    "not an object": httpx2.Response(200, json=[True]),
    "equal keys": httpx2.Response(200, text='{"active":false,"active":true}'),
    "active absent": httpx2.Response(200, json={"sub": "ada"}),
    "active a text": httpx2.Response(200, json={"active": "true"}),
    "active a number": httpx2.Response(200, json={"active": 1}),
    "too long": httpx2.Response(200, text='{"active":true,"x":"' + "x" * MAX_DOCUMENT + '"}'),
    "compressed": httpx2.Response(200, headers={"content-encoding": "br"}, content=b"x"),
}


@pytest.mark.parametrize("answer", list(OUTAGES.values()), ids=list(OUTAGES))
async def test_whatever_is_no_answer_is_an_outage_and_never_a_no(answer: Any) -> None:
    async with asking(answer) as (introspect, idp):
        with pytest.raises(IssuerUnavailable) as caught:
            await introspect(b"secret-token")
        assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
        assert len(idp.requests) == 1
        idp.answer = {"active": True}
        assert await introspect(b"secret-token") == {"active": True}


async def test_an_outage_is_said_once_without_token_or_secret(caplog: pytest.LogCaptureFixture) -> None:
    async with asking(httpx2.Response(401)) as (introspect, idp):
        for _ in range(3):
            with pytest.raises(IssuerUnavailable):
                await introspect(b"secret-token")
        idp.answer = {"active": True}
        await introspect(b"secret-token")
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        "tokens of issuer https://idp.example.com cannot be introspected: "
        "HTTP status 401: are client_id and client_secret right?"
    ]


async def test_callers_with_the_same_token_share_one_question() -> None:
    async with asking({"active": True}) as (introspect, idp):
        idp.gate.clear()
        same = [asyncio.create_task(introspect(b"t")) for _ in range(5)]
        other = asyncio.create_task(introspect(b"u"))
        await settle()
        same[0].cancel()
        await settle()
        idp.gate.set()
        assert await asyncio.gather(*same[1:], other) == [{"active": True}] * 5
        assert len(idp.requests) == 2
        await introspect(b"t")
        assert len(idp.requests) == 3


async def test_questions_at_once_are_bounded_and_tokens_known_before_have_room_of_their_own() -> None:
    async with asking({"active": True}) as (introspect, idp):
        idp.gate.clear()
        running = [asyncio.create_task(introspect(str(number).encode())) for number in range(MAX_QUESTIONS)]
        await settle()
        with pytest.raises(IssuerUnavailable):
            await introspect(b"one more")
        known = asyncio.create_task(introspect(b"one more", known=True))
        await settle()
        assert len(idp.requests) == MAX_QUESTIONS + 1
        idp.gate.set()
        await asyncio.gather(*running, known)
        assert await introspect(b"one more") == {"active": True}


async def test_closing_ends_what_is_under_way() -> None:
    async with asking({"active": True}) as (introspect, idp):
        idp.gate.clear()
        running = asyncio.create_task(introspect(b"t"))
        await settle()
        await introspect.aclose()
        with pytest.raises(IssuerUnavailable):
            await running
