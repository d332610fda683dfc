import json
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from gateway.egress.documents import (
    MAX_DOCUMENT,
    UnusableError,
    as_object,
    document_client,
    fetch,
    is_secure,
    metadata_urls,
    reach_of,
)


class Body(httpx2.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content


async def fetched(answer: Callable[[httpx2.Request], httpx2.Response]) -> bytes:
    def streamed(request: httpx2.Request) -> httpx2.Response:
        given = answer(request)
        return httpx2.Response(given.status_code, headers=given.headers, stream=Body(given.content))

    async with document_client("public", httpx2.MockTransport(streamed)) as client:
        return await fetch(client, "https://idp.example.com/x")


async def test_a_document_is_what_came_with_200() -> None:
    assert await fetched(lambda _: httpx2.Response(200, content=b"{}")) == b"{}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx2.Response(404, content=b"{}"), "404"),
        (httpx2.Response(302, headers={"location": "https://elsewhere.example"}, content=b"{}"), "302"),
        (httpx2.Response(200, headers={"content-encoding": "gzip"}, content=b""), "compressed"),
        (httpx2.Response(200, content=b" " * (MAX_DOCUMENT + 1)), "longer"),
    ],
)
async def test_anything_else_says_why(answer: httpx2.Response, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        await fetched(lambda _: answer)


async def test_a_failed_request_names_no_address() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("https://idp.example.com/x?secret")

    with pytest.raises(UnusableError) as caught:
        await fetched(refuse)
    assert "example" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff"])
def test_only_strict_json_objects_are_read(text: bytes) -> None:
    with pytest.raises(UnusableError):
        as_object(text)


def test_an_object_is_read() -> None:
    assert as_object(json.dumps({"issuer": "x"}).encode()) == {"issuer": "x"}


@pytest.mark.parametrize(
    ("issuer", "oauth", "oidc"),
    [
        (
            "https://a.example.com",
            "https://a.example.com/.well-known/oauth-authorization-server",
            "https://a.example.com/.well-known/openid-configuration",
        ),
        (
            "https://a.example.com/",
            "https://a.example.com/.well-known/oauth-authorization-server",
            "https://a.example.com/.well-known/openid-configuration",
        ),
        (
            "https://a.example.com/x/",
            "https://a.example.com/.well-known/oauth-authorization-server/x",
            "https://a.example.com/x/.well-known/openid-configuration",
        ),
    ],
)
def test_the_well_known_addresses(issuer: str, oauth: str, oidc: str) -> None:
    assert metadata_urls(issuer) == (oauth, oidc)


@pytest.mark.parametrize("url", ["https://a.example", "http://127.0.0.1:9/x", "http://localhost", "http://[::1]/"])
def test_https_and_loopback_are_secure(url: str) -> None:
    assert is_secure(url)


@pytest.mark.parametrize("url", ["http://a.example", "ftp://a", "https://u:p@a.example", "https://", "", "http://[::"])
def test_nothing_else_is(url: str) -> None:
    assert not is_secure(url)


@pytest.mark.parametrize(
    ("found", "reach"),
    [
        ("https://idp.example:443/token", "configured"),
        ("https://IDP.example/token", "configured"),
        ("https://idp.example:8443/token", "public"),
        ("http://idp.example/token", "public"),
        ("https://idp.example.evil/token", "public"),
    ],
)
def test_what_a_document_names_elsewhere_must_be_public(found: str, reach: str) -> None:
    assert reach_of(found, "https://idp.example/realm") == reach
