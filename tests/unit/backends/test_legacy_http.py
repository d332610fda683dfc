"""The stream of a session beside its requests, without a network."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from gateway.backends.legacy_http import _STREAM, _Stream, _Watched

GET = httpx2.Request("GET", "http://backend/mcp")


class Body(httpx2.AsyncByteStream):
    def __init__(self, *chunks: bytes, breaks: bool = False) -> None:
        self.chunks = chunks
        self.breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if self.breaks:
            raise httpx2.ReadError("reset")

    async def aclose(self) -> None:
        return None


class Inner(httpx2.AsyncBaseTransport):
    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Session:
    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.told: list[str] = []
        self.watched = _Watched(Inner(*answers), {}, 1000)
        stream = _Stream()
        stream.signals.on_gap = lambda: self.told.append("gap")
        stream.signals.on_forgotten = lambda: self.told.append("forgotten")
        _STREAM.set(stream)

    async def listen(self) -> tuple[int, bytes]:
        response = await self.watched.handle_async_request(GET)
        return response.status_code, await response.aread()


def events(*chunks: bytes, breaks: bool = False) -> httpx2.Response:
    return httpx2.Response(200, stream=Body(*chunks, breaks=breaks), headers={"set-cookie": "a=b"})


async def test_a_stream_that_breaks_ends_and_the_next_one_tells_of_the_gap() -> None:
    session = Session(events(b"x", breaks=True), httpx2.ConnectError("refused"), events(b"y"), events(b"z"))

    assert await session.listen() == (200, b"x")
    assert await session.listen() == (200, b"")
    assert session.told == []

    assert await session.listen() == (200, b"y")
    assert session.told == ["gap"]
    assert await session.listen() == (200, b"z")
    assert session.told == ["gap"]


async def test_a_session_is_forgotten_when_its_stream_was_there_and_is_not_found_any_more() -> None:
    session = Session(events(b"x"), httpx2.Response(404))
    await session.listen()

    assert (await session.listen())[0] == 404
    assert session.told == ["forgotten"]


@pytest.mark.parametrize("status", [404, 405])
async def test_a_backend_without_a_stream_keeps_its_session(status: int) -> None:
    session = Session(httpx2.Response(status))

    assert (await session.listen())[0] == status
    assert session.told == []


async def test_cookies_are_not_kept() -> None:
    session = Session(events(b"x"))

    assert "set-cookie" not in (await session.watched.handle_async_request(GET)).headers
