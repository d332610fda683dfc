from dataclasses import replace

import httpx2
import pytest

from gateway.backends import link
from gateway.backends.credentials.bearing import Bearing
from gateway.backends.http1 import HttpResponse
from gateway.backends.wire import CALLER, Lines
from gateway.models import Principal

ALICE = Principal("https://idp", "alice", token=b"first")
LATER = replace(ALICE, token=b"later")
URL = "http://backend/mcp"


class Source:
    """Tokens that say whose they are; the ``bad`` ones are replaced once."""

    def __init__(self, *, denies: bool = False) -> None:
        self.renewed = 0
        self.denies = denies
        self.has_token = True

    async def token(self, principal: Principal) -> str:
        if not self.has_token:
            raise link.no_token("tools")
        return f"{principal.token.decode()}-{self.renewed}"

    def refused(self, principal: Principal, token: str) -> bool:
        self.renewed += 1
        return self.renewed == 1

    def denied(self, principal: Principal, status: int) -> link.NoCredentials | None:
        return link.principal_not_admitted("tools") if self.denies else None

    async def aclose(self) -> None:
        return None


class Backend(httpx2.AsyncBaseTransport):
    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.seen: list[tuple[str, bytes]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append((request.headers.get("authorization", ""), await request.aread()))
        return httpx2.Response(self.statuses.pop(0) if self.statuses else 200)


def post(caller: Principal | None = None) -> httpx2.Request:
    return httpx2.Request("POST", URL, content=b"body", extensions={CALLER: caller} if caller else {})


async def test_a_request_bears_the_token_of_its_own_principal() -> None:
    backend = Backend()
    await Bearing(backend, Source(), ALICE).handle_async_request(post(LATER))
    assert backend.seen == [("Bearer later-0", b"body")]


async def test_what_is_sent_beside_requests_bears_the_latest_ones() -> None:
    backend = Backend()
    session = Bearing(backend, Source(), ALICE)
    for caller in (None, LATER, None):
        await session.handle_async_request(post(caller))
    assert [bearer for bearer, _ in backend.seen] == ["Bearer first-0", "Bearer later-0", "Bearer later-0"]


async def test_a_token_that_is_not_accepted_is_replaced_and_the_whole_request_sent_again_once() -> None:
    backend = Backend(401, 200)
    answer = await Bearing(backend, Source(), ALICE).handle_async_request(post())
    assert answer.status_code == 200
    assert backend.seen == [("Bearer first-0", b"body"), ("Bearer first-1", b"body")]


async def test_a_backend_that_accepts_none_is_asked_twice_and_no_more() -> None:
    backend = Backend(401, 401, 401)
    session = Bearing(backend, Source(), ALICE)
    assert (await session.handle_async_request(post())).status_code == 401
    assert len(backend.seen) == 2
    assert (await session.handle_async_request(post())).status_code == 401
    assert len(backend.seen) == 3


@pytest.mark.parametrize("status", [401, 403])
async def test_a_principal_that_is_not_admitted_is_a_failure_of_its_own(status: int) -> None:
    session = Bearing(Backend(status, status), Source(denies=True), ALICE)
    with pytest.raises(httpx2.ConnectError) as caught:
        await session.handle_async_request(post())
    assert isinstance(caught.value.__cause__, link.NoCredentials)


async def test_without_a_token_nothing_is_sent() -> None:
    source, backend = Source(), Backend()
    source.has_token = False
    with pytest.raises(httpx2.ConnectError) as caught:
        await Bearing(backend, source, ALICE).handle_async_request(post())
    assert isinstance(caught.value.__cause__, link.NoCredentials)
    assert backend.seen == []


class Sender:
    """Sends with the lines it is given."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.seen: list[Lines] = []

    async def __call__(self, lines: Lines) -> HttpResponse:
        self.seen.append(lines)
        return HttpResponse(self.statuses.pop(0) if self.statuses else 200, {}, b"")


def bearer_of(token: bytes) -> Lines:
    return ((b"authorization", b"Bearer " + token),)


async def test_what_is_sent_by_bear_shares_the_latest_principal_with_what_is_sent_beside_it() -> None:
    backend, send = Backend(), Sender()
    session = Bearing(backend, Source(), ALICE)

    await session.bear(None, send)
    await session.bear(LATER, send)
    await session.bear(None, send)
    await session.handle_async_request(post())

    assert send.seen == [bearer_of(b"first-0"), bearer_of(b"later-0"), bearer_of(b"later-0")]
    assert backend.seen[0][0] == "Bearer later-0"


async def test_bear_replaces_a_token_that_is_not_accepted_once() -> None:
    send = Sender(401, 401, 401)
    session = Bearing(Backend(), Source(), ALICE)

    assert (await session.bear(None, send)).status == 401

    assert send.seen == [bearer_of(b"first-0"), bearer_of(b"first-1")]


@pytest.mark.parametrize("status", [401, 403])
async def test_bear_fails_for_a_principal_that_is_not_admitted(status: int) -> None:
    with pytest.raises(link.NoCredentials):
        await Bearing(Backend(), Source(denies=True), ALICE).bear(None, Sender(status, status))


async def test_bear_sends_nothing_without_a_token() -> None:
    source, send = Source(), Sender()
    source.has_token = False
    with pytest.raises(link.NoCredentials):
        await Bearing(Backend(), source, ALICE).bear(None, send)
    assert send.seen == []
