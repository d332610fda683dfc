"""HTTP+SSE of 2024-11-05: what is special about it, with real SDK servers and with servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.backends.cause import cause_of
from gateway.backends.legacy_sse import LegacySse
from gateway.backends.link import ConnectionLost, HandshakeRefused
from gateway.errors import BackendUnavailable

from .servers.start import call, http_server, ignore, text, until
from .test_route_backend import started
from .test_session_backends import pool_of

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: id=1\r\n\r\n"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\nSet-Cookie: id=2\r\n\r\nAccepted"
HELLO = (
    b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2024-11-05","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"raw","version":"1"}}}'
)


def event(data: bytes, kind: bytes = b"message") -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind, data)


class Raw:
    """Says ``first`` on each stream after its head; answers posts with ``taken``, and remembers all requests."""

    def __init__(self, head: bytes = EVENTS, first: bytes = b"", taken: bytes = ACCEPTED) -> None:
        self.head = head
        self.first = first
        self.taken = taken
        self.requests: list[bytes] = []
        self.streams: list[asyncio.StreamWriter] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                body = await reader.readexactly(length)
                self.requests.append(head + body)
                if head.startswith(b"GET"):
                    self.streams.append(writer)
                    writer.write(self.head + self.first)
                else:
                    writer.write(self.taken)
                    if b'"initialize"' in body:
                        self.streams[-1].write(event(HELLO))
        except asyncio.IncompleteReadError:
            writer.close()


@asynccontextmanager
async def serving(raw: Raw) -> AsyncIterator[Raw]:
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sse"
    try:
        yield raw
    finally:
        server.close()
        for stream in raw.streams:
            stream.close()


ENDPOINT = event(b"/messages?id=1", b"endpoint")


@pytest.mark.parametrize("transport", ["auto", "sse"])
async def test_a_server_of_2024_is_found_and_called(transport: str) -> None:
    with http_server("--sse") as server:
        async with started({"url": server.url, "transport": transport}) as one:
            assert one.backend.up
            assert one.backend.era == "legacy"
            assert text(await one.backend.request(call("echo", {"text": "hi"}), ignore)) == "hi"


async def test_no_stream_is_tried_where_streamable_http_is_said_to_be_served() -> None:
    with http_server("--sse") as server:
        async with started({"url": server.url, "transport": "streamable_http"}) as one:
            assert not one.backend.up


async def test_a_server_that_has_learned_streamable_http_is_found_again() -> None:
    with http_server("--sse") as server:
        url = server.url
        async with started({"url": url, "era": "legacy"}, refresh="1s") as one:
            assert one.backend.up
            server.kill()
            await until(lambda: not one.backend.up)
            server.start("--legacy-only", "--path", "/sse")

            await until(lambda: one.backend.up)

            assert text(await one.backend.request(call("echo", {"text": "hi"}), ignore)) == "hi"


async def test_a_session_whose_stream_ends_is_replaced() -> None:
    with http_server("--sse") as server:
        async with pool_of(server.url) as pool:
            assert text(await pool.request(call("echo", {"text": "x"}), ignore)) == "x"
            server.restart()
            await until(lambda: pool.sessions == 0)

            replies = await asyncio.gather(*(pool.request(call("echo", {"text": str(n)}), ignore) for n in range(5)))

            assert [text(reply) for reply in replies] == ["0", "1", "2", "3", "4"]


async def test_a_session_that_the_server_forgot_is_renewed_and_the_call_repeated() -> None:
    raw = Raw(first=ENDPOINT, taken=ACCEPTED)
    async with serving(raw), pool_of(raw.url) as pool:
        first = asyncio.create_task(pool.request(call("echo"), ignore))
        await until(lambda: any(b"tools/call" in request for request in raw.requests))
        raw.taken = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

        second = asyncio.create_task(pool.request(call("echo"), ignore))
        await until(lambda: len(raw.streams) == 2)  # a new session

        for task in (first, second):
            task.cancel()
        await asyncio.wait({first, second})


@pytest.mark.parametrize(
    ("head", "first", "cause"),
    [
        (EVENTS, event(b"http://127.0.0.1:1/messages", b"endpoint"), "same origin"),
        (EVENTS, event(b"//evil.example.com/messages", b"endpoint"), "same origin"),
        (EVENTS, event(b"a" * 2_000_000, b"endpoint"), "same origin"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", b"", "no stream of events"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", b"", "status 302"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b"", "status 503"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", b"", "status 401"),
    ],
    ids=["other port", "other host", "endless endpoint", "page", "redirect", "busy", "not admitted"],
)
async def test_no_session_is_opened_where_the_stream_is_not_as_it_should_be(
    head: bytes, first: bytes, cause: str
) -> None:
    raw = Raw(head=head, first=first)
    async with serving(raw), pool_of(raw.url) as pool:
        with pytest.raises(BackendUnavailable) as failure:
            await pool.request(call("echo"), ignore)

        assert not failure.value.dispatched
        assert cause in cause_of(failure.value)
        assert [request[:3] for request in raw.requests] == [b"GET"]


async def test_a_server_without_such_a_stream_refuses_the_handshake() -> None:
    raw = Raw(head=b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
    async with serving(raw), pool_of(raw.url) as pool:
        with pytest.raises(HandshakeRefused):
            await pool.request(call("echo"), ignore)


async def test_credentials_go_with_every_request_and_cookies_with_none() -> None:
    raw = Raw(first=ENDPOINT)
    async with serving(raw), pool_of(raw.url) as pool:
        task = asyncio.create_task(pool.request(call("echo"), ignore))
        await until(lambda: any(b"tools/call" in request for request in raw.requests))
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: any(b"notifications/cancelled" in request for request in raw.requests))

    assert [request.partition(b" HTTP")[0] for request in raw.requests[:2]] == [b"GET /sse", b"POST /messages?id=1"]
    for request in raw.requests:
        assert b"X-Api-Key: k\r\n" in request
        assert b"cookie" not in request.lower()
        assert b"x-mcp-gateway" not in request


async def test_an_event_that_does_not_end_costs_the_session_and_no_more() -> None:
    raw = Raw(first=ENDPOINT)
    async with serving(raw), pool_of(raw.url) as pool:
        task = asyncio.create_task(pool.request(call("echo"), ignore))
        await until(lambda: any(b"tools/call" in request for request in raw.requests))
        raw.streams[-1].write(b"data: " + b"x" * 2_000_000)

        with pytest.raises(ConnectionLost) as lost:
            await task
        assert lost.value.dispatched
        await until(lambda: pool.sessions == 0)


async def test_what_is_no_message_is_read_over() -> None:
    raw = Raw(first=b": ping\n\n" + ENDPOINT + event(b"not json") + event(b"x", b"other") + event(b""))
    async with serving(raw), pool_of(raw.url) as pool:
        task = asyncio.create_task(pool.request(call("echo"), ignore))
        await until(lambda: any(b"tools/call" in request for request in raw.requests))
        raw.streams[-1].write(event(b'{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"ok"}]}}'))

        assert text(await task) == "ok"


async def test_a_stream_that_names_no_endpoint_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.backends.legacy_sse._GREETING", 0.2)
    raw = Raw()
    async with serving(raw):
        transport = LegacySse("raw", raw.url)
        with pytest.raises(BackendUnavailable) as failure:
            async with transport.open():
                pass
        await transport.aclose()
    assert "names no endpoint" in cause_of(failure.value)
