"""The HTTP client against servers that send any bytes at any time."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.backends.http1 import HttpClient, HttpError, HttpResponse, HttpTimeout, render_headers

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Peer:
    """One connection as the scripted server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return head + await self.reader.readexactly(length)

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def gone(self) -> bool:
        """Wait until the client has closed the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5) is not None
        except ConnectionError:
            return True


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs ``script`` for each connection. ``peers`` has all of them, in order."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.peers: list[Peer] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            await self._script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has hung up, or the test is over
        finally:
            writer.close()

    @asynccontextmanager
    async def run(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def served(script: Script, **options: Any) -> AsyncIterator[tuple[HttpClient, Server]]:
    async with Server(script).run() as server:
        client = HttpClient(f"http://127.0.0.1:{server.port}/mcp?x=1", **options)
        try:
            yield client, server
        finally:
            await client.aclose()


async def post(client: HttpClient, body: bytes = b"{}", **options: Any) -> HttpResponse:
    return await client.request(b"POST", b"", body, **{"timeout": 5, "max_timeout": 10, **options})


def answers(*parts: bytes) -> Script:
    """Answer every request of every connection with these bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*parts)

    return script


def closes_after(*parts: bytes) -> Script:
    """Answer the first request of a connection with these bytes, then close it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*parts)

    return script


async def test_a_request_is_one_message_with_the_clients_headers_and_ours() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(OK)

    async with served(script, headers=[("Authorization", "Bearer t")]) as (client, server):
        response = await client.request(
            b"POST", render_headers([(b"Mcp-Name", b"echo")]), b'{"a":1}', timeout=5, max_timeout=5
        )
    assert response == HttpResponse(200, {b"content-length": b"2"}, b"ok")
    assert seen == [
        b"POST /mcp?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: mcp-gateway\r\nAccept-Encoding: identity\r\n"
        b'Authorization: Bearer t\r\nMcp-Name: echo\r\nContent-Length: 7\r\n\r\n{"a":1}' % server.port
    ]


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        pytest.param(OK, b"ok", id="a length"),
        pytest.param(CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\nX-Trailer: t\r\n\r\n", b"ok", id="chunks and a trailer"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nok", b"ok", id="until the connection closes"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" + OK, b"ok", id="after 1xx"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204 has no body"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", b"", id="a redirect stays"),
    ],
)
async def test_a_body_is_read_however_it_is_framed(raw: bytes, body: bytes) -> None:
    async with served(closes_after(raw)) as (client, server):
        response = await post(client)
    assert response.body == body
    assert b"a" not in response.headers
    assert b"x-trailer" not in response.headers
    assert len(server.peers) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 160), max_size=6))
def test_where_a_response_is_cut_changes_nothing(cuts: list[int]) -> None:
    stream = 'data: {"a": "é"}\r\ndata: 2\r\n\r\ndata: z\n\n'.encode()
    chunks = [stream[i : i + 7] for i in range(0, len(stream), 7)]
    raw = STREAM + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    parts = [raw[a:b] for a, b in itertools.pairwise(edges)]
    events: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)
            await asyncio.sleep(0)  # lets the client read what is there

    async def run() -> HttpResponse:
        async with served(script) as (client, _):
            return await post(client, on_event=lambda data: bool(events.append(data)))

    assert asyncio.run(run()).body == b""
    assert events == ['{"a": "é"}\n2'.encode(), b"z"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", "connection closed", id="nothing at all"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", "connection closed", id="cut in the headers"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "connection closed", id="shorter than its length"
        ),
        pytest.param(CHUNKED + b"5\r\nok", "connection closed", id="cut in a chunk"),
        pytest.param(CHUNKED + b"2\r\nok\r\n", "connection closed", id="no last chunk"),
        pytest.param(CHUNKED + b"zz\r\nok\r\n", "malformed response", id="a chunk size that is none"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", "malformed response", id="not HTTP"),
        pytest.param(OK.replace(b"2\r\n", b"2\r\nContent-Length: 3\r\n"), "malformed response", id="two lengths"),
        pytest.param(
            OK.replace(b"2\r\n", b"2\r\nTransfer-Encoding: chunked\r\n"), "malformed response", id="both framings"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", "unsupported transfer encoding", id="coded"
        ),
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), "compressed response", id="gzip"),
        pytest.param(
            b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n??", "unexpected upgrade", id="upgrade"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "response too large", id="a length over the limit"
        ),
        pytest.param(CHUNKED + b"3e9\r\n" + b"x" * 1001, "response too large", id="chunks over the limit"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, "response too large", id="a stream over the limit"),
        pytest.param(STREAM + b"7d0\r\ndata: " + b"x" * 1100, "event too large", id="an event over the limit"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, "response headers too large", id="a header without end"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 40_000, "response headers too large", id="headers without end"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 11_000 + b"Content-Length: 0\r\n\r\n",
            "response headers too large",
            id="whole but large headers",
        ),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000, "response framing too large", id="1xx without end"),
        pytest.param(CHUNKED + b"1;" + b"x" * 90_000, "response framing too large", id="a chunk extension without end"),
    ],
)
async def test_a_broken_response_is_an_error_that_says_the_request_was_sent(raw: bytes, reason: str) -> None:
    async with served(closes_after(raw), max_response=1000) as (client, server):
        with pytest.raises(HttpError) as caught:
            await post(client, on_event=lambda _: False)
        # A limit on bytes without end is noticed while they come: which of the two words, depends on how they came.
        assert caught.value.reason.removeprefix("response headers") == reason.removeprefix("response headers") or (
            "too large" in caught.value.reason and "too large" in reason
        )
        assert caught.value.sent
        assert str(server.port) not in str(caught.value)
        assert not isinstance(caught.value, HttpTimeout)


async def test_a_body_just_within_the_limit_passes_in_one_byte_chunks() -> None:
    async with served(answers(CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"), max_response=100_000) as (client, _):
        assert (await post(client)).body == b"x" * 100_000


async def test_a_connection_is_used_again() -> None:
    async with served(answers(OK)) as (client, server):
        for _ in range(5):
            await post(client)
        assert len(server.peers) == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), id="the server closes"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/1.0 without keep-alive"),
        pytest.param(OK + OK, id="a second response"),
        pytest.param(OK + b"H", id="one byte of a second response"),
        pytest.param(OK + b"garbage", id="garbage"),
    ],
)
async def test_a_connection_is_not_used_again_after(raw: bytes) -> None:
    async with served(answers(raw)) as (client, server):
        assert (await post(client)).body == b"ok"
        assert (await post(client)).body == b"ok"
        assert len(server.peers) == 2
        assert await server.peers[0].gone()


@pytest.mark.parametrize("unasked", [OK, b"\r\n", b"H"])
async def test_a_byte_that_nobody_asked_for_closes_an_idle_connection(unasked: bytes) -> None:
    async with served(closes_nothing(OK), keepalive=60) as (client, server):
        await post(client)
        await server.peers[0].send(unasked)
        assert await server.peers[0].gone()
        assert (await post(client)).body == b"ok"
        assert len(server.peers) == 2


def closes_nothing(raw: bytes) -> Script:
    """Answer one request of a connection and leave it open."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        await asyncio.Event().wait()

    return script


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - states of others have no event
            await asyncio.sleep(0.001)


async def test_an_idle_connection_that_the_server_closed_is_not_used() -> None:
    async with served(closes_after(OK)) as (client, server):
        await post(client)
        await until(lambda: client._open == 0)
        assert (await post(client)).body == b"ok"
        assert len(server.peers) == 2


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with served(closes_nothing(OK), keepalive=0.02) as (client, server):
        await post(client)
        assert await server.peers[0].gone()
        assert client._open == 0


def dies_on_the_second_request() -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    return script


async def test_a_kept_connection_that_dies_under_a_request_is_an_error_by_default() -> None:
    async with served(dies_on_the_second_request()) as (client, server):
        await post(client)
        with pytest.raises(HttpError) as caught:
            await post(client)
        assert (caught.value.sent, caught.value.reason) == (True, "connection closed")
        assert len(server.peers) == 1


async def test_an_idempotent_request_is_sent_once_more_when_a_kept_connection_dies() -> None:
    async with served(dies_on_the_second_request()) as (client, server):
        await post(client)
        assert (await post(client, idempotent=True)).body == b"ok"
        assert len(server.peers) == 2


async def test_an_idempotent_request_is_not_repeated_on_a_fresh_connection() -> None:
    async with served(closes_after(b"")) as (client, server):
        with pytest.raises(HttpError):
            await post(client, idempotent=True)
        assert len(server.peers) == 1


async def test_an_idempotent_request_is_not_repeated_after_a_byte_of_the_response() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 2")

    async with served(script) as (client, server):
        await post(client)
        with pytest.raises(HttpError):
            await post(client, idempotent=True)
        assert len(server.peers) == 1


async def test_silence_ends_with_a_timeout_and_closes_the_connection() -> None:
    async with served(closes_nothing(b"")) as (client, server):
        with pytest.raises(HttpTimeout) as caught:
            await post(client, timeout=0.03)
        assert caught.value.sent
        assert await server.peers[0].gone()


def drips(raw: bytes, pause: float) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in raw:
            await peer.send(bytes([byte]))
            await asyncio.sleep(pause)  # the slowness that is tested

    return script


async def test_slow_bytes_are_waited_for_as_long_as_they_come() -> None:
    async with served(drips(OK, 0.005)) as (client, _):
        assert (await post(client, timeout=0.15, max_timeout=10)).body == b"ok"


async def test_slow_bytes_end_at_the_hard_end() -> None:
    async with served(drips(OK, 0.02)) as (client, _):
        started = asyncio.get_running_loop().time()
        with pytest.raises(HttpTimeout):
            await post(client, timeout=10, max_timeout=0.1)
        assert asyncio.get_running_loop().time() - started >= 0.098


async def test_a_refused_connection_says_that_nothing_was_sent() -> None:
    async with Server(answers(OK)).run() as server:
        port = server.port
    client = HttpClient(f"http://127.0.0.1:{port}/")
    with pytest.raises(HttpError) as caught:
        await post(client)
    assert (caught.value.sent, caught.value.reason) == (False, "connection refused")
    assert client._open == 0
    await client.aclose()


async def test_a_name_that_is_not_found_says_that_nothing_was_sent() -> None:
    client = HttpClient("http://nowhere.invalid/")
    with pytest.raises(HttpError) as caught:
        await post(client)
    assert not caught.value.sent
    assert "nowhere" not in str(caught.value)
    await client.aclose()


async def test_cancelling_closes_the_connection_at_once() -> None:
    async with served(closes_nothing(b"HTTP/1.1 200 OK\r\n")) as (client, server):
        task = asyncio.create_task(post(client))
        await until(lambda: bool(server.peers))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await server.peers[0].gone()
        assert client._open == 0


async def test_requests_over_the_limit_wait_for_a_connection_in_their_order() -> None:
    order: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            order.append((await peer.request()).rpartition(b"\r\n")[2])
            await peer.send(OK)

    async with served(script, max_connections=2) as (client, server):
        await asyncio.gather(*[post(client, b"%d" % n) for n in range(10)])
        assert len(server.peers) == 2
        assert sorted(order) == [b"%d" % n for n in range(10)]
        assert [int(n) for n in order[2:]] == sorted(int(n) for n in order[2:])
        assert client._open == 2


async def test_waiting_for_a_connection_counts_as_silence() -> None:
    async with served(closes_nothing(b""), max_connections=1) as (client, _):
        first = asyncio.create_task(post(client))
        await until(lambda: client._open == 1)
        with pytest.raises(HttpTimeout) as caught:
            await post(client, timeout=0.02)
        assert not caught.value.sent
        assert len(client._waiters) == 0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert client._open == 0


async def test_a_cancelled_waiter_loses_no_connection() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await release.wait()
            await peer.send(OK)

    async with served(script, max_connections=1) as (client, server):
        tasks = [asyncio.create_task(post(client)) for _ in range(4)]
        await until(lambda: len(client._waiters) == 3)
        tasks[1].cancel()
        release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, HttpResponse) for result in results] == [True, False, True, True]
        assert len(server.peers) == 1


async def test_a_waiter_cancelled_in_the_moment_it_is_served_gives_its_place_back() -> None:
    async with served(closes_nothing(b""), max_connections=1) as (client, _):
        first, second = asyncio.create_task(post(client)), asyncio.create_task(post(client))
        await until(lambda: len(client._waiters) == 1 and len(client._connections) == 1)
        client._open += 1  # as if there were one more place, just become free
        client._free_place()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert client._open == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (client._open, len(client._connections)) == (0, 0)


async def test_a_place_that_a_dead_connection_leaves_goes_to_a_waiter() -> None:
    async with served(closes_after(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")), max_connections=1) as (
        client,
        server,
    ):
        await asyncio.gather(*[post(client) for _ in range(4)])
        assert len(server.peers) == 4


async def test_an_answer_on_a_stream_completes_the_request_before_the_stream_ends() -> None:
    seen: list[bytes] = []

    def on_event(data: bytes) -> bool:
        seen.append(data)
        return data == b"answer"

    raw = STREAM + b"1e\r\ndata: first\n\ndata: answer\n\n: x\r\n"
    async with served(closes_nothing(raw)) as (client, server):
        await post(client, on_event=on_event)
        assert seen == [b"first", b"answer"]
        assert await server.peers[0].gone()  # the stream did not end, so the connection is not kept
        assert client._open == 0


async def test_a_connection_is_kept_when_the_stream_ends_right_after_its_answer() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM + b"f\r\ndata: answer\n\nx\r\n")
            await go_on.wait()
            await peer.send(b"0\r\n\r\n")

    async with served(script) as (client, server):
        await post(client, on_event=lambda _: True)
        go_on.set()
        await until(lambda: bool(client._idle))
        await post(client, on_event=lambda _: True)
        assert len(server.peers) == 1


async def test_a_stream_without_a_taker_is_a_body() -> None:
    async with served(closes_after(STREAM + b"9\r\ndata: a\n\n\r\n0\r\n\r\n")) as (client, _):
        assert (await post(client)).body == b"data: a\n\n"


async def test_an_error_of_the_taker_is_not_hidden() -> None:
    def broken(_: bytes) -> bool:
        raise LookupError("a mistake of ours")

    async with served(closes_nothing(STREAM + b"9\r\ndata: a\n\n\r\n")) as (client, server):
        with pytest.raises(LookupError, match="a mistake of ours"):
            await post(client, on_event=broken)
        assert await server.peers[0].gone()


@pytest.mark.parametrize(
    "header",
    [
        (b"X", b"a\r\nEvil: 1"),
        (b"X", b"a\nb"),
        (b"X", b"a\rb"),
        (b"X", b"a\0b"),
        (b"X\r\nEvil", b"1"),
        (b"X: a\r\nEvil", b"1"),
        (b"X y", b"1"),
        (b"", b"1"),
        (b"Host", b"other"),
        (b"content-LENGTH", b"0"),
        (b"Transfer-Encoding", b"chunked"),
    ],
)
def test_a_header_that_would_change_the_request_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="header"):
        render_headers([header])
    with pytest.raises(ValueError, match="header"):
        HttpClient("http://127.0.0.1/", headers=[(header[0].decode(), header[1].decode())])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "http:///x",
        "//h/x",
        "http://u:p@h/",
        "http://h/a b",
        "http://h/\r\nX: 1",
        "http://h:99999/",
        "http://é/",
    ],
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urllib words one of them
        HttpClient(url)


async def test_a_secret_in_a_bad_header_is_not_told() -> None:
    with pytest.raises(ValueError, match="header") as caught:
        HttpClient("http://h/", headers=[("Authorization", "Bearer s€cret")])
    assert "cret" not in str(caught.value)


async def test_closing_ends_what_runs_and_refuses_what_comes() -> None:
    async with served(closes_nothing(b""), max_connections=1) as (client, _):
        running, waiting = asyncio.create_task(post(client)), asyncio.create_task(post(client))
        await until(lambda: len(client._waiters) == 1 and bool(client._connections))
        await client.aclose()
        results = await asyncio.gather(running, waiting, return_exceptions=True)
        assert [error.sent for error in results if isinstance(error, HttpError)] == [True, False]
        with pytest.raises(HttpError):
            await post(client)


def self_signed(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for a server with its own certificate, and for a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.DNSName(host) if host[0].isalpha() else x509.IPAddress(ipaddress.ip_address(host))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "certificate.pem").write_bytes(pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server.set_alpn_protocols(["h2", "http/1.1"])
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_tls_is_verified_against_the_name_and_speaks_http_1_1(tmp_path: Path) -> None:
    tls, trusting = self_signed(tmp_path, "localhost")
    async with Server(answers(OK)).run(tls) as server:
        client = HttpClient(f"https://localhost:{server.port}/", verify=trusting)
        assert [(await post(client)).body for _ in range(3)] == [b"ok"] * 3
        spoken = server.peers[-1].writer.get_extra_info("ssl_object").selected_alpn_protocol()
        await client.aclose()
        assert (len(server.peers), spoken) == (1, "http/1.1")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_certificate_that_is_not_trusted_or_of_another_name_is_refused(tmp_path: Path, host: str) -> None:
    tls, trusting = self_signed(tmp_path, "localhost")
    async with Server(answers(OK)).run(tls) as server:
        client = HttpClient(f"https://{host}:{server.port}/", verify=trusting if host == "127.0.0.1" else None)
        with pytest.raises(HttpError) as caught:
            await post(client)
        assert (caught.value.sent, caught.value.reason) == (False, "TLS failed")
        await client.aclose()


async def test_what_is_not_to_be_reached_is_not_connected_to() -> None:
    async with served(answers(OK), reach="public") as (client, server):
        with pytest.raises(HttpError, match="address not allowed") as caught:
            await post(client)
        assert not caught.value.sent
        assert server.peers == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "0xa9fea9fe"])
async def test_addresses_where_clouds_keep_credentials_are_not_connected_to(host: str) -> None:
    client = HttpClient(f"http://{host}/latest/meta-data/")
    with pytest.raises(HttpError, match="address not allowed"):
        await post(client)
    await client.aclose()


async def repeated(*responses: bytes, max_response: int = 2**20) -> list[HttpResponse]:
    """What the client makes of these responses, one after the other on one connection."""

    async def script(peer: Peer) -> None:
        for response in responses:
            await peer.request()
            await peer.send(response)

    async with Server(script).run() as server:
        client = HttpClient(f"http://127.0.0.1:{server.port}/mcp", max_response=max_response)
        try:
            found = [await client.request(b"POST", b"", b"{}", timeout=5, max_timeout=5) for _ in responses]
        finally:
            await client.aclose()
        assert len(server.peers) == 1
        return found


async def test_a_head_that_a_server_repeats_means_the_same_each_time() -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: %d\r\nX-A: 1\r\n\r\n%b" % (len(body), body)
        for body in (b"one", b"three", b"", b"\r\n\r\n", b"x" * 1000)
    ]
    found = await repeated(*answers)
    assert [response.body for response in found] == [b"one", b"three", b"", b"\r\n\r\n", b"x" * 1000]
    lengths = [b"3", b"5", b"0", b"4", b"1000"]
    assert [response.headers for response in found] == [
        {b"content-type": b"a/b", b"content-length": length, b"x-a": b"1"} for length in lengths
    ]
    assert {response.status for response in found} == {200}


async def test_other_responses_among_them_are_read_as_they_are() -> None:
    other = b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno"
    chunked = CHUNKED + b"2\r\nhm\r\n0\r\n\r\n"
    found = await repeated(OK, OK, other, OK, chunked, OK, OK)
    assert [(response.status, response.body) for response in found] == [
        (200, b"ok"), (200, b"ok"), (500, b"no"), (200, b"ok"), (200, b"hm"), (200, b"ok"), (200, b"ok")
    ]  # fmt: skip


async def test_a_response_with_a_known_head_is_no_larger_than_others_may_be() -> None:
    large = OK.replace(b": 2", b": 30").replace(b"ok", b"x" * 30)
    with pytest.raises(HttpError, match="too large"):
        await repeated(OK, OK, large, max_response=20)


async def test_a_byte_behind_a_response_with_a_known_head_ends_the_connection() -> None:
    async def script(peer: Peer) -> None:
        for response in (OK, OK + b"!"):
            await peer.request()
            await peer.send(response)
        await peer.gone()

    async with Server(script).run() as server:
        client = HttpClient(f"http://127.0.0.1:{server.port}/mcp")
        await client.request(b"POST", b"", b"{}", timeout=5, max_timeout=5)
        with suppress(HttpError):
            await client.request(b"POST", b"", b"{}", timeout=5, max_timeout=5)
        await asyncio.wait_for(server.tasks[0], 5)
        await client.aclose()
