"""Requests of a session against a server that answers them with any bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.backends import dialer, legacy_posts
from gateway.backends.dialer import Dialer
from gateway.backends.greeting import Hello
from gateway.backends.legacy_http import LegacyHttp
from gateway.backends.link import AnswerTooLarge, ConnectionLost
from gateway.backends.session_pool import SessionPool
from gateway.backends.wire import OUTBOX
from gateway.errors import BackendBusy, BackendTimeout, BackendUnavailable
from gateway.models import Era, JsonObject

from .servers.start import call, ignore, text

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


def whole(message: bytes, head: bytes = JSON) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(message), message)


def result(said: str, request_id: Any, **more: Any) -> bytes:
    content = [{"type": "text", "text": said}]
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {"content": content, **more}}).encode()


def event(data: bytes, event_id: str = "") -> bytes:
    return (f"id: {event_id}\n".encode() if event_id else b"") + b"data: %b\n\n" % data


def told(method: str, **params: Any) -> bytes:
    return event(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())


@dataclass
class Seen:
    method: str
    headers: Mapping[str, str]
    body: JsonObject
    raw: bytes


Answer = Callable[[Seen], bytes | None]
"""What a request is answered with; None: nothing, and the connection stays open."""


class Server:
    """``answer`` answers requests of a session, ``again`` a GET that resumes a stream. ``left`` has those whose client
    left without an answer."""

    def __init__(self, answer: Answer, again: Answer) -> None:
        self.answer = answer
        self.again = again
        self.seen: list[Seen] = []
        self.left: list[Seen] = []
        self.connections: dict[asyncio.Task[Any] | None, asyncio.StreamWriter] = {}
        self.news = asyncio.Condition()
        self.may_begin = asyncio.Event()
        self.may_begin.set()
        self.may_listen = asyncio.Event()
        self.may_listen.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections[asyncio.current_task()] = writer
        answer: bytes | None = b""
        with suppress(ConnectionError, asyncio.CancelledError):
            while True:
                try:
                    seen = await self._read(reader)
                except asyncio.IncompleteReadError:
                    if answer is None:
                        await self._note(self.left, seen)
                    break
                await self._note(self.seen, seen)
                answer = await self._answer(seen)
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                if answer is not None and b"text/event-stream" in answer:
                    break
        writer.close()

    async def aclose(self) -> None:
        for task, writer in self.connections.items():
            assert task is not None
            task.cancel()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.gather(*filter(None, self.connections))

    async def until(self, wanted: Callable[[Seen], bool], *, left: bool = False) -> Seen:
        among = self.left if left else self.seen
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: any(map(wanted, among)))
        return next(filter(wanted, among))

    async def _note(self, where: list[Seen], seen: Seen) -> None:
        async with self.news:
            where.append(seen)
            self.news.notify_all()

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Seen(head[0].split(" ")[0], headers, json.loads(body) if body else {}, body)

    async def _answer(self, seen: Seen) -> bytes | None:
        if seen.method == "DELETE":
            return ACCEPTED
        if seen.method == "GET":
            await self.may_listen.wait()
            resumed = "last-event-id" in seen.headers
            return self.again(seen) if resumed else whole(b"", b"HTTP/1.1 405 Method Not Allowed\r\n")
        if seen.body.get("method") == "initialize":
            greeting = {"protocolVersion": "2025-11-25", "capabilities": {"logging": {}}, "serverInfo": {"name": "x"}}
            message = {"jsonrpc": "2.0", "id": seen.body["id"], "result": greeting}
            return whole(json.dumps(message).encode(), JSON + b"Mcp-Session-Id: of-alice\r\n")
        if seen.body.get("method") == "logging/setLevel":
            return whole(json.dumps({"jsonrpc": "2.0", "id": seen.body["id"], "result": {}}).encode())
        if "id" not in seen.body or "method" not in seen.body:
            await self.may_begin.wait()
            return ACCEPTED
        return self.answer(seen)


def nothing(seen: Seen) -> None:
    return None


@asynccontextmanager
async def serving(
    answer: Answer, again: Answer = nothing, *, era: Era | None = "legacy"
) -> AsyncIterator[tuple[Server, SessionPool]]:
    scripted = Server(answer, again)
    async with await asyncio.start_server(scripted.serve, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        dialing = Dialer("x", LegacyHttp(url, max_response=10_000), era=era, version="1", clock=lambda: 0.0)
        pool = SessionPool(
            "x", dialing, mode="principal", clock=lambda: 0.0, on_list_changed=lambda: None, on_lost=lambda: None
        )
        try:
            yield scripted, pool
        finally:
            await pool.aclose()
            await scripted.aclose()


def discovers(seen: Seen) -> bool:
    return seen.body.get("method") == "server/discover"


def calls(seen: Seen) -> bool:
    return seen.body.get("method") == "tools/call"


async def test_a_call_bears_its_session_and_its_bytes_and_numbers_of_any_size_come_back() -> None:
    big = 2**70
    async with serving(lambda seen: whole(result("x", seen.body["id"], big=big))) as (server, pool):
        arguments = msgspec.Raw(b'{"n":1.0000000000000000001,"n2":%d}' % big)
        request = replace(call("echo"), params={"name": "echo", "arguments": arguments})

        reply = await pool.request(request, ignore)

        assert reply.result is not None
        assert reply.result["big"] == big
        sent = await server.until(calls)
        assert bytes(arguments) in sent.raw
        assert sent.headers["mcp-session-id"] == "of-alice"
        assert sent.headers["mcp-protocol-version"] == "2025-11-25"
        assert sent.headers["accept"] == "application/json, text/event-stream"


async def test_a_question_that_a_server_never_answers_holds_nothing_once_the_session_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialer, "Hello", partial(Hello, silence=0.05))
    async with serving(lambda seen: None if discovers(seen) else whole(result("x", seen.body["id"])), era=None) as (
        server,
        pool,
    ):
        assert text(await pool.request(call("echo"), ignore)) == "x"
        assert await server.until(discovers, left=True) is await server.until(discovers)


async def test_no_call_is_sent_before_the_server_knows_that_the_session_has_begun() -> None:
    async with serving(lambda seen: whole(result("x", seen.body["id"]))) as (server, pool):
        server.may_begin.clear()
        running = asyncio.create_task(pool.request(call("echo"), ignore))
        await server.until(lambda seen: seen.body.get("method") == "notifications/initialized")
        await asyncio.wait({running}, timeout=0.05)
        assert not any(map(calls, server.seen))

        server.may_begin.set()

        assert text(await running) == "x"


async def test_no_call_is_sent_before_the_server_can_ask_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy_posts, "_LISTENING", 30.0)
    async with serving(lambda seen: whole(result("x", seen.body["id"]))) as (server, pool):
        server.may_listen.clear()
        running = asyncio.create_task(pool.request(call("echo"), ignore))
        await server.until(lambda seen: seen.method == "GET")
        await asyncio.wait({running}, timeout=0.05)
        assert not any(map(calls, server.seen))

        server.may_listen.set()

        assert text(await running) == "x"


async def test_a_server_that_leaves_open_whether_it_asks_is_called_all_the_same() -> None:
    async with serving(lambda seen: whole(result("x", seen.body["id"]))) as (server, pool), asyncio.timeout(5):
        server.may_listen.clear()

        assert text(await pool.request(call("echo"), ignore)) == "x"

        server.may_listen.set()


async def test_a_stream_tells_progress_and_logs_before_its_answer() -> None:
    def answer(seen: Seen) -> bytes:
        token = seen.body["params"]["_meta"]["progressToken"]
        return (
            EVENTS
            + told("notifications/progress", progressToken=token, progress=1)
            + told("notifications/message", level="error", data="d")
            + event(result("x", "whatever"))
        )

    heard: list[tuple[str, Mapping[str, Any]]] = []
    async with serving(answer) as (_, pool):
        request = replace(call("echo"), wants_progress=True, log_level="info")

        assert text(await pool.request(request, lambda method, params: heard.append((method, params)))) == "x"

    assert heard == [
        ("notifications/progress", {"progress": 1}),
        ("notifications/message", {"level": "error", "data": "d"}),
    ]


@pytest.mark.parametrize("orderly", [True, False], ids=["ended", "cut off"])
async def test_a_stream_that_stops_before_the_answer_is_resumed_after_its_last_event(orderly: bool) -> None:
    chunked = EVENTS.replace(b"Connection: close", b"Connection: close\r\nTransfer-Encoding: chunked")
    priming = b"retry: 10\nid: 7\ndata:\n\n"

    def answer(seen: Seen) -> bytes:
        cut = chunked + b"%x\r\n%b\r\n" % (len(priming), priming)
        return EVENTS + priming if orderly else cut

    def again(seen: Seen) -> bytes:
        request = next(filter(calls, server.seen))
        return EVENTS + event(result(f"after {seen.headers['last-event-id']}", request.body["id"]))

    async with serving(answer, again) as (server, pool):
        assert text(await pool.request(call("echo"), ignore)) == "after 7"
        assert len(list(filter(calls, server.seen))) == 1


ERROR = {"code": -32001, "message": "m", "data": {"d": 1}}


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
async def test_an_error_of_the_backend_is_relayed_whatever_its_status(status: bytes) -> None:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n" % status

    def answer(seen: Seen) -> bytes:
        return whole(json.dumps({"jsonrpc": "2.0", "id": seen.body["id"], "error": ERROR}).encode(), head)

    async with serving(answer) as (_, pool):
        assert (await pool.request(call("echo"), ignore)).error == ERROR


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ACCEPTED, id="202"),
        pytest.param(b"HTTP/1.1 307 X\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n", id="a redirect"),
        pytest.param(b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n", id="401"),
        pytest.param(b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n", id="403"),
        pytest.param(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", id="500"),
        pytest.param(whole(b"{"), id="no JSON"),
        pytest.param(whole(b"[]"), id="no object"),
        pytest.param(whole(b'{"jsonrpc":"2.0","id":1000,"result":[]}'), id="a result that is none"),
        pytest.param(whole(b'{"jsonrpc":"2.0","id":1000,"error":{"code":"x"}}'), id="an error that is none"),
        pytest.param(whole(b'{"jsonrpc":"2.0","id":5,"result":{}}'), id="another's answer"),
        pytest.param(whole(b'{"jsonrpc":"2.0","id":1000,"method":"ping"}'), id="a question"),
        pytest.param(whole(b"<html>", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"), id="a page"),
        pytest.param(EVENTS + event(b"{"), id="an event that is no message"),
        pytest.param(EVENTS + event(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":7}'), id="a bad question"),
    ],
)
async def test_what_is_no_answer_fails_the_call_at_once_as_one_that_may_have_been_executed(answer: bytes) -> None:
    async with serving(lambda seen: answer) as (_, pool), asyncio.timeout(5):
        with pytest.raises(BackendUnavailable) as failed:
            await pool.request(call("echo"), ignore)

    assert failed.value.dispatched == (b" 401 " not in answer and b" 403 " not in answer)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        pytest.param(EVENTS, ConnectionLost, id="an empty stream"),
        pytest.param(b"SSH-2.0\r\n\r\n", ConnectionLost, id="no HTTP"),
        pytest.param(EVENTS + event(b" " * 10_001), AnswerTooLarge, id="an event that is too large"),
        pytest.param(whole(b" " * 10_001), AnswerTooLarge, id="an answer that is too large"),
    ],
)
async def test_a_connection_that_breaks_and_an_answer_that_is_too_large_are_told_apart(
    answer: bytes, failure: type[BackendUnavailable]
) -> None:
    async with serving(lambda seen: answer) as (_, pool), asyncio.timeout(5):
        with pytest.raises(failure) as failed:
            await pool.request(call("echo"), ignore)

    assert failed.value.dispatched


async def test_a_backend_that_is_busy_says_so() -> None:
    busy = b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n"
    async with serving(lambda seen: busy) as (_, pool):
        with pytest.raises(BackendBusy):
            await pool.request(call("echo"), ignore)


async def test_who_asks_more_than_can_be_dispatched_is_not_read_on() -> None:
    ping = event(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    async with serving(lambda seen: EVENTS + ping * 2_000) as (_, pool), asyncio.timeout(5):
        with pytest.raises(BackendUnavailable):
            await pool.request(call("echo"), ignore)


async def test_a_cancelled_call_is_cancelled_at_the_server_by_its_id() -> None:
    async with serving(nothing) as (server, pool):
        running = asyncio.create_task(pool.request(call("hang"), ignore))
        sent = await server.until(calls)
        running.cancel()

        cancelled = await server.until(lambda seen: seen.body.get("method") == "notifications/cancelled")

        assert cancelled.body["params"]["requestId"] == sent.body["id"]
        assert cancelled.headers["mcp-session-id"] == "of-alice"


async def test_each_of_many_calls_is_cancelled_that_are_given_up_at_once() -> None:
    many = OUTBOX + 50
    async with serving(nothing) as (server, pool):
        running = [asyncio.create_task(pool.request(call("hang"), ignore)) for _ in range(many)]
        async with server.news:
            await server.news.wait_for(lambda: sum(map(calls, server.seen)) == many)
        for task in running:
            task.cancel()

        def cancelled() -> set[int]:
            names = [seen for seen in server.seen if seen.body.get("method") == "notifications/cancelled"]
            return {seen.body["params"]["requestId"] for seen in names}

        async with asyncio.timeout(20), server.news:
            await server.news.wait_for(lambda: len(cancelled()) == many)


async def test_a_call_that_takes_too_long_is_cancelled_at_the_server() -> None:
    async with serving(nothing) as (server, pool):
        with pytest.raises(BackendTimeout):
            await pool.request(replace(call("hang"), timeout=0.05), ignore)

        await server.until(lambda seen: seen.body.get("method") == "notifications/cancelled")


async def test_the_end_of_the_pool_ends_what_waits() -> None:
    async with serving(nothing) as (server, pool):
        running = asyncio.create_task(pool.request(call("hang"), ignore))
        await server.until(calls)

        await pool.aclose()

        with pytest.raises(BackendUnavailable):
            await running
