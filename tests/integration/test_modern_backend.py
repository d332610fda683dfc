"""The modern backend against scripted servers, and against the SDK's own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from msgspec.structs import replace

from gateway.backends.http1 import HttpClient
from gateway.backends.modern import EraChanged, ModernHttp, NotModern, StaleHeaders
from gateway.errors import BackendTimeout, BackendUnavailable
from gateway.models import ANONYMOUS, BackendReply, BackendRequest, JsonObject

Answer = Callable[[JsonObject], bytes | list[bytes]]
CALL = BackendRequest("tools/call", {"name": "echo", "arguments": {}}, ANONYMOUS, name="echo", timeout=5, max_timeout=5)


def http(body: bytes, status: int = 200, kind: str = "application/json") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        kind.encode(),
        len(body),
        body,
    )


def result(request: JsonObject, value: Any, status: int = 200) -> bytes:
    return http(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": value}).encode(), status)


def error(request: JsonObject, code: int, status: int = 400, **more: Any) -> bytes:
    said = {"code": code, "message": "no", **more}
    return http(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": said}).encode(), status)


def stream(*messages: Any) -> bytes:
    lines = [message if isinstance(message, bytes) else json.dumps(message).encode() for message in messages]
    return http(b"".join(b"data: %b\n\n" % line for line in lines), kind="text/event-stream")


class Recorder:
    """The requests a scripted backend has had: headers (lower case) and body."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []

    @property
    def bodies(self) -> list[JsonObject]:
        return [json.loads(raw) for raw in self.raw]


@asynccontextmanager
async def scripted(answer: Answer, **options: Any) -> AsyncIterator[tuple[ModernHttp, Recorder]]:
    recorder = Recorder()
    tasks: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                recorder.headers.append({name.lower(): value for name, value in headers.items()})
                recorder.raw.append(await reader.readexactly(int(recorder.headers[-1]["content-length"])))
                writer.write(b"".join([answer(json.loads(recorder.raw[-1]))]))  # type: ignore[list-item]
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway has hung up, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    backend = ModernHttp(
        HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", **options), route="deploy"
    )
    try:
        yield backend, recorder
    finally:
        await backend.aclose()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ignore(_method: str, _params: Mapping[str, Any]) -> None:
    return None


def plain(reply: BackendReply) -> Any:
    return json.loads(msgspec.json.encode(reply.result))


async def test_a_request_carries_our_meta_and_the_clients_own_keys() -> None:
    request = replace(
        CALL,
        params={"name": "echo", "arguments": msgspec.Raw(b'{"n": 1.0,  "big":123456789012345678901234567890}')},
        meta={
            "com.example/x": {"y": None},
            "progressToken": "forged",
            "io.modelcontextprotocol/protocolVersion": "1999-01-01",
            "io.modelcontextprotocol/clientCapabilities": {"forged": {}},
            "io.modelcontextprotocol/clientInfo": {"name": "forged"},
            "io.modelcontextprotocol/logLevel": "forged",
            "io.mcp-gateway/client-info": {"name": "forged"},
            "io.mcp-gateway/refusal": {"forged": True},
        },
        capabilities={"elicitation": {}},
        log_level="debug",
        client_info={"name": "agent", "version": "7"},
        headers={"Mcp-Param-Region": "eu"},
        name="é",
    )
    async with scripted(lambda sent: result(sent, {})) as (backend, seen):
        await backend.request(request, ignore)
        assert b'{"n": 1.0,  "big":123456789012345678901234567890}' in seen.raw[0]
        body = seen.bodies[0]
        info = body["params"]["_meta"].pop("io.modelcontextprotocol/clientInfo")
        assert info["name"] == "mcp-gateway"
        assert body["params"]["_meta"] == {
            "com.example/x": {"y": None},
            "io.modelcontextprotocol/logLevel": "debug",
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
            "io.mcp-gateway/client-info": {"name": "agent", "version": "7"},
        }
        headers = seen.headers[0]
        assert headers["content-type"] == "application/json"
        assert headers["accept"] == "application/json, text/event-stream"
        assert headers["mcp-protocol-version"] == "2026-07-28"
        assert headers["mcp-method"] == "tools/call"
        assert headers["mcp-name"] == "=?base64?w6k=?="
        assert headers["mcp-param-region"] == "eu"


async def test_ids_are_never_used_twice() -> None:
    async with scripted(lambda sent: result(sent, {})) as (backend, seen):
        await asyncio.gather(*[backend.request(CALL, ignore) for _ in range(20)])
        ids = [body["id"] for body in seen.bodies]
        assert len(set(ids)) == 20
        assert max(ids) < 2**53


async def test_a_result_keeps_unknown_fields_nulls_and_exact_numbers() -> None:
    value = b'{"structuredContent":null,"x":[1.0,123456789012345678901234567890,{"y":null}],"content":[{"type":"new"}]}'
    answer = b'{"jsonrpc":"2.0","id":%d,"result":' + value + b"}"
    for wrap in (http, stream):
        async with scripted(lambda sent, wrap=wrap: wrap(answer % sent["id"])) as (backend, _):  # type: ignore[misc]
            reply = await backend.request(CALL, ignore)
        assert msgspec.json.encode(reply.result) == value
        assert reply.error is None
        assert reply.seconds > 0


async def test_progress_with_our_token_and_log_messages_reach_the_caller() -> None:
    def answer(sent: JsonObject) -> bytes:
        token = sent["params"]["_meta"]["progressToken"]
        progress = {"jsonrpc": "2.0", "method": "notifications/progress"}
        return stream(
            {**progress, "params": {"progressToken": token, "progress": 1, "x": None}},
            {**progress, "params": {"progressToken": "another", "progress": 2}},
            {**progress, "params": 3},
            {**progress},
            b"",
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}},
            {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
            {"jsonrpc": "2.0", "id": sent["id"], "result": {"ok": True}},
            {**progress, "params": {"progressToken": token, "progress": 9}},
        )

    heard: list[Any] = []
    async with scripted(answer) as (backend, _):
        request = replace(CALL, wants_progress=True, log_level="info")
        reply = await backend.request(request, lambda *said: heard.append(said))
    assert heard == [
        ("notifications/progress", {"progress": 1, "x": None}),
        ("notifications/message", {"level": "info", "data": 1}),
    ]
    assert plain(reply) == {"ok": True}


async def test_nobody_hears_log_messages_or_progress_that_was_not_asked_for() -> None:
    def answer(sent: JsonObject) -> bytes:
        progress = {"progressToken": sent["id"], "progress": 1}
        return stream(
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress},
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": 1}},
            {"jsonrpc": "2.0", "id": sent["id"], "result": {}},
        )

    heard: list[Any] = []
    async with scripted(answer) as (backend, _):
        await backend.request(CALL, lambda *said: heard.append(said))
    assert heard == []


async def test_a_retry_brings_the_answers_and_the_state_under_a_new_id() -> None:
    async with scripted(lambda sent: result(sent, {})) as (backend, seen):
        await backend.request(CALL, ignore)
        answers = {"name": msgspec.Raw(b'{"action": "accept",  "content":{"n":1.0}}')}
        await backend.request(replace(CALL, answers=answers, state="s\u00e9aled"), ignore)
        first, retry = seen.bodies
        assert b'{"action": "accept",  "content":{"n":1.0}}' in seen.raw[1]
        assert not {"inputResponses", "requestState"} & first["params"].keys()
        assert retry["params"]["inputResponses"] == {"name": {"action": "accept", "content": {"n": 1.0}}}
        assert retry["params"]["requestState"] == "s\u00e9aled"
        assert retry["params"]["name"] == "echo"
        assert retry["id"] != first["id"]


ASKS = {"resultType": "input_required", "inputRequests": {"a": {"method": "elicitation/create", "params": {}}}}


async def test_a_question_that_the_client_can_answer_is_a_result() -> None:
    async with scripted(lambda sent: result(sent, ASKS)) as (backend, _):
        reply = await backend.request(replace(CALL, capabilities={"elicitation": {}}), ignore)
    assert plain(reply) == ASKS


@pytest.mark.parametrize("kind", [b'"input_required"', b'"input\\u005frequired"'])
async def test_a_question_that_the_client_did_not_declare_is_an_error_that_names_the_capability(kind: bytes) -> None:
    def answer(sent: JsonObject) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", "id": sent["id"], "result": ASKS}).encode()
        return http(body.replace(b'"input_required"', kind))

    async with scripted(answer) as (backend, _):
        reply = await backend.request(replace(CALL, capabilities={"sampling": {}}), ignore)
    assert reply.result is None
    assert reply.error is not None
    assert reply.error["code"] == -32021
    assert reply.error["data"] == {"requiredCapabilities": {"elicitation": {"form": {}}}}


@pytest.mark.parametrize(
    "value",
    [
        {"resultType": "input_required"},
        {"resultType": "input_required", "inputRequests": []},
        {"resultType": "input_required", "inputRequests": {"a": {"method": "tools/call"}}, "requestState": "x"},
        {"resultType": "input_required", "inputRequests": {"a": 1}},
    ],
)
async def test_a_question_that_is_none_is_unusable(value: JsonObject) -> None:
    async with scripted(lambda sent: result(sent, value)) as (backend, _):
        with pytest.raises(BackendUnavailable) as caught:
            await backend.request(replace(CALL, capabilities={"elicitation": {}}), ignore)
    assert caught.value.dispatched


async def test_only_the_three_methods_may_be_answered_with_a_question() -> None:
    request = replace(CALL, method="completion/complete", capabilities={"elicitation": {}})
    async with scripted(lambda sent: result(sent, ASKS)) as (backend, _):
        with pytest.raises(BackendUnavailable):
            await backend.request(request, ignore)


async def test_a_state_alone_asks_for_nothing_but_a_retry() -> None:
    value = {"resultType": "input_required", "requestState": "later"}
    async with scripted(lambda sent: result(sent, value)) as (backend, _):
        assert plain(await backend.request(CALL, ignore)) == value


async def test_a_listen_stream_tells_only_what_carries_its_id() -> None:
    def answer(sent: JsonObject) -> bytes:
        def told(method: str, subscription: Any) -> JsonObject:
            meta = {"io.modelcontextprotocol/subscriptionId": subscription}
            return {"jsonrpc": "2.0", "method": method, "params": {"_meta": meta}}

        assert sent["method"] == "subscriptions/listen"
        assert sent["params"]["notifications"] == {"toolsListChanged": True}
        return stream(
            told("notifications/subscriptions/acknowledged", sent["id"]),
            told("notifications/tools/list_changed", str(sent["id"])),
            told("notifications/message", sent["id"]),
            told("notifications/tools/list_changed", sent["id"]),
            {"jsonrpc": "2.0", "id": sent["id"], "result": {"resultType": "complete"}},
        )

    heard: list[str] = []
    async with scripted(answer) as (backend, _):
        reply = await backend.listen(
            {"toolsListChanged": True}, lambda method, _params: heard.append(method), idle=5, longest=5
        )
    assert heard == ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"]
    assert plain(reply) == {"resultType": "complete"}


@pytest.mark.parametrize("refusal", [lambda sent: error(sent, -32601, 404), lambda sent: http(b"not here", 405)])
async def test_a_backend_without_subscriptions_says_so_with_a_code_or_a_status(refusal: Any) -> None:
    async with scripted(refusal) as (backend, _):
        reply = await backend.listen({}, ignore, idle=5, longest=5)
    assert reply.error is not None
    assert reply.error["code"] == -32601


async def test_an_error_of_the_backend_is_a_reply() -> None:
    async with scripted(lambda sent: error(sent, -32602, data={"n": None})) as (backend, _):
        reply = await backend.request(CALL, ignore)
    assert (reply.result, reply.error) == (None, {"code": -32602, "message": "no", "data": {"n": None}})


async def test_an_error_without_an_id_counts_only_with_an_error_status() -> None:
    async with scripted(lambda sent: error({**sent, "id": None}, -32700)) as (backend, _):
        assert (await backend.request(CALL, ignore)).error == {"code": -32700, "message": "no"}
    async with scripted(lambda sent: error({**sent, "id": None}, -32700, 200)) as (backend, _):
        with pytest.raises(BackendUnavailable):
            await backend.request(CALL, ignore)


def ok(sent: JsonObject, **more: Any) -> JsonObject:
    return {"jsonrpc": "2.0", "id": sent["id"], "result": {}, **more}


NO_ANSWERS: dict[str, Answer] = {
    "another id": lambda sent: http(json.dumps(ok(sent, id=sent["id"] + 1)).encode()),
    "the id as text": lambda sent: http(json.dumps(ok(sent, id=str(sent["id"]))).encode()),
    "no id": lambda sent: http(b'{"jsonrpc":"2.0","result":{}}'),
    "no JSON": lambda sent: http(b"<html>deploy-tools.internal</html>", kind="text/html"),
    "JSON cut short": lambda sent: http(json.dumps(ok(sent)).encode()[:-1]),
    "bad UTF-8": lambda sent: http(json.dumps(ok(sent, result={"a": "?"})).encode().replace(b"?", b"\xff")),
    "a list": lambda sent: http(json.dumps([ok(sent)]).encode()),
    "a result that is no object": lambda sent: http(json.dumps(ok(sent, result=[])).encode()),
    "result and error": lambda sent: http(json.dumps(ok(sent, error={"code": 1, "message": ""})).encode()),
    "an error code that is no integer": lambda sent: error(sent, "x", 200),  # type: ignore[arg-type]
    "nesting without end": lambda sent: http(
        b'{"jsonrpc":"2.0","result":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}"
    ),
    "an empty body": lambda sent: http(b"", 202),
    "a redirect": lambda sent: result(sent, {}, 302),
    "a result with an error status": lambda sent: result(sent, {}, 500),
    "a server error": lambda sent: http(b"oops at 10.0.0.7", 500, "text/plain"),
    "a stream without an answer": lambda sent: stream(),
    "a request on the stream": lambda sent: stream({"jsonrpc": "2.0", "id": 1, "method": "roots/list"}, ok(sent)),
    "another id on the stream": lambda sent: stream(ok(sent, id=1), ok(sent)),
    "garbage on the stream": lambda sent: stream(b"garbage", ok(sent)),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_answer_is_backend_unavailable_and_may_have_been_executed(answer: Answer) -> None:
    async with scripted(answer) as (backend, _):
        with pytest.raises(BackendUnavailable) as caught:
            await backend.request(CALL, ignore)
    refusal = caught.value
    assert (refusal.dispatched, refusal.retryable, type(refusal)) == (True, False, BackendUnavailable)
    for secret in ("127.0.0.1", "internal", "10.0.0.7"):
        assert secret not in refusal.message + refusal.hint + str(refusal)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_our_credentials_is_not_relayed(status: int) -> None:
    async with scripted(lambda sent: error(sent, -32001, status, data={"www": "Bearer realm"})) as (backend, _):
        for attempt in (backend.request(CALL, ignore), backend.discover(5)):
            with pytest.raises(BackendUnavailable, match="does not admit the gateway") as caught:
                await attempt
            assert not caught.value.retryable


async def test_changed_headers_and_a_changed_era_have_exceptions_of_their_own() -> None:
    async with scripted(lambda sent: error(sent, -32020)) as (backend, _):
        with pytest.raises(StaleHeaders) as stale:
            await backend.request(CALL, ignore)
    async with scripted(lambda sent: error(sent, -32022, data={"supported": []})) as (backend, _):
        with pytest.raises(EraChanged) as changed:
            await backend.request(CALL, ignore)
    assert not stale.value.dispatched
    assert not changed.value.dispatched


async def test_silence_is_a_timeout_that_may_have_been_executed() -> None:
    async with scripted(lambda sent: b"") as (backend, _):
        with pytest.raises(BackendTimeout, match=r"0\.03 s") as caught:
            await backend.request(replace(CALL, timeout=0.03), ignore)
    assert caught.value.dispatched


async def test_no_free_connection_in_time_is_a_timeout_that_was_not_sent() -> None:
    async with scripted(lambda sent: b"", max_connections=1) as (backend, seen):
        first = asyncio.create_task(backend.request(CALL, ignore))
        async with asyncio.timeout(5):
            while not seen.raw:  # noqa: ASYNC110 - the server is not ours to signal
                await asyncio.sleep(0.001)
        with pytest.raises(BackendTimeout) as caught:
            await backend.request(replace(CALL, timeout=0.02), ignore)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert not caught.value.dispatched
    assert caught.value.retryable


async def test_a_refused_connection_was_not_dispatched() -> None:
    closed = ModernHttp(HttpClient("http://127.0.0.1:1/"), route="deploy")
    with pytest.raises(BackendUnavailable) as caught:
        await closed.request(CALL, ignore)
    await closed.aclose()
    assert (caught.value.dispatched, caught.value.retryable) == (False, True)


async def test_a_response_over_the_limit_says_so() -> None:
    async with scripted(lambda sent: result(sent, {"x": "y" * 2000}), max_response=1000) as (backend, _):
        with pytest.raises(BackendUnavailable, match="too large"):
            await backend.request(CALL, ignore)


# Which era


async def test_discover_returns_the_result_of_a_modern_server() -> None:
    found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "x": None, "ttlMs": 0}
    async with scripted(lambda sent: result(sent, found)) as (backend, seen):
        assert await backend.discover(5) == found
        assert seen.headers[0]["mcp-method"] == "server/discover"
        assert "mcp-name" not in seen.headers[0]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda sent: http(b"Bad Request", 400, "text/plain"), id="400 without JSON"),
        pytest.param(lambda sent: http(b"", 404), id="404"),
        pytest.param(lambda sent: http(b"", 405), id="405"),
        pytest.param(lambda sent: error({**sent, "id": None}, -32600), id="a session is missing"),
        pytest.param(lambda sent: error(sent, -32601, 200), id="no such method"),
        pytest.param(lambda sent: error(sent, -32022, data={"supported": ["2025-11-25"]}), id="legacy revisions only"),
        pytest.param(lambda sent: http(b"", 202), id="an empty body"),
        pytest.param(
            lambda sent: result(sent, {"supportedVersions": ["2025-11-25"]}), id="a result of legacy revisions"
        ),
        pytest.param(lambda sent: result(sent, {}), id="a result without revisions"),
    ],
)
async def test_a_server_that_answers_otherwise_is_not_modern(answer: Answer) -> None:
    async with scripted(answer) as (backend, _):
        with pytest.raises(NotModern):
            await backend.discover(5)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda sent: http(b"", 500), id="500"),
        pytest.param(lambda sent: http(b"", 503), id="503"),
        pytest.param(lambda sent: http(b"", 429), id="429"),
        pytest.param(lambda sent: http(b"", 307), id="a redirect"),
        pytest.param(lambda sent: error(sent, -32020), id="a modern error"),
        pytest.param(lambda sent: b"", id="silence"),
        pytest.param(lambda sent: http(b"<html>"), id="no JSON"),
        pytest.param(lambda sent: b"garbage\r\n\r\n", id="no HTTP"),
    ],
)
async def test_what_is_no_evidence_decides_no_era(answer: Answer) -> None:
    async with scripted(answer) as (backend, _):
        with pytest.raises(BackendUnavailable):
            await backend.discover(0.2)


# Lists


def pages(*found: JsonObject) -> Answer:
    def answer(sent: JsonObject) -> bytes:
        cursor = sent["params"].get("cursor")
        return result(sent, found[0 if cursor is None else int(cursor or 0)])

    return answer


async def test_a_list_is_followed_to_its_end_and_nothing_in_it_changes() -> None:
    first = {"name": "a", "inputSchema": {"maximum": 123456789012345678901234567890, "default": None}}
    script = pages({"tools": [first], "nextCursor": "1"}, {"tools": [{"name": "b"}], "nextCursor": None})
    async with scripted(script) as (backend, seen):
        assert await backend.list_all("tools/list", "tools", 5) == [first, {"name": "b"}]
        assert [body["params"].get("cursor", "none") for body in seen.bodies] == ["none", "1"]


async def test_an_empty_cursor_is_a_cursor() -> None:
    replies = [{"tools": [], "nextCursor": ""}, {"tools": [{"name": "a"}]}]
    async with scripted(lambda sent: result(sent, replies["cursor" in sent["params"]])) as (backend, _):
        assert await backend.list_all("tools/list", "tools", 5) == [{"name": "a"}]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(pages({"tools": [], "nextCursor": "1"}, {"tools": [], "nextCursor": "1"}), id="a cycle"),
        pytest.param(lambda sent: result(sent, {"tools": [], "nextCursor": str(sent["id"])}), id="pages without end"),
        pytest.param(lambda sent: result(sent, {"tools": [{}] * 1500, "nextCursor": str(sent["id"])}), id="too many"),
        pytest.param(lambda sent: result(sent, {"tools": {}}), id="no list"),
        pytest.param(lambda sent: result(sent, {}), id="nothing under the key"),
        pytest.param(lambda sent: result(sent, {"tools": [], "nextCursor": 7}), id="a cursor that is no text"),
        pytest.param(lambda sent: error(sent, -32603, 200), id="an error"),
        pytest.param(lambda sent: result(sent, {"tools": [{"d": "x" * 2**20}] * 9}), id="a page over 8 MiB"),
    ],
)
async def test_a_list_that_cannot_be_had_whole_is_an_error_and_never_a_shorter_list(answer: Answer) -> None:
    async with scripted(answer) as (backend, seen):
        with pytest.raises(BackendUnavailable):
            await backend.list_all("tools/list", "tools", 5)
        assert len(seen.raw) <= 20


async def test_a_list_ends_at_its_time_however_many_pages_are_left() -> None:
    async with scripted(lambda sent: b"") as (backend, _):
        with pytest.raises(BackendTimeout):
            await backend.list_all("tools/list", "tools", 0.03)


async def test_an_entry_over_200_kb_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    found = [{"name": "a"}, {"name": "b", "description": "x" * 200_001}, 7, {"name": "c"}]
    async with scripted(lambda sent: result(sent, {"tools": found})) as (backend, _):
        with caplog.at_level(logging.WARNING):
            assert await backend.list_all("tools/list", "tools", 5) == [{"name": "a"}, {"name": "c"}]
    assert "2 entries" in caplog.text


# A real server


class Running(uvicorn.Server):
    """uvicorn inside the test's own loop; leaves the signal handlers alone."""

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


@asynccontextmanager
async def sdk_server(server: MCPServer, **options: Any) -> AsyncIterator[ModernHttp]:
    config = uvicorn.Config(server.streamable_http_app(**options), host="127.0.0.1", port=0, log_level="critical")
    running = Running(config)
    task = asyncio.create_task(running._serve(None))
    async with asyncio.timeout(5):
        while not running.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
    backend = ModernHttp(HttpClient(f"http://127.0.0.1:{running.port}/mcp"), route="sdk")
    try:
        yield backend
    finally:
        await backend.aclose()
        running.should_exit = True
        await task


def real_server(entered: asyncio.Event, left: asyncio.Event) -> MCPServer:
    server = MCPServer("real")

    @server.tool()
    async def echo(text: str) -> str:
        return text

    @server.tool()
    async def count(ctx: Context[Any, Any], to: int) -> int:
        for n in range(to):
            await ctx.report_progress(n + 1, to, f"at {n + 1}")
        return to

    @server.tool()
    async def fail() -> str:
        raise ValueError("it went wrong")

    @server.tool()
    async def hang() -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return ""

    return server


def call(name: str, **arguments: Any) -> BackendRequest:
    return replace(CALL, params={"name": name, "arguments": arguments}, name=name)


@pytest.mark.parametrize("json_response", [False, True])
async def test_the_sdks_server_is_called_listed_and_discovered(json_response: bool) -> None:
    server = real_server(asyncio.Event(), asyncio.Event())
    async with sdk_server(server, json_response=json_response) as backend:
        assert "2026-07-28" in (await backend.discover(5))["supportedVersions"]
        tools = await backend.list_all("tools/list", "tools", 5)
        assert [tool["name"] for tool in tools] == ["echo", "count", "fail", "hang"]
        said = plain(await backend.request(call("echo", text="é"), ignore))
        assert said["content"] == [{"type": "text", "text": "é"}]
        failed = plain(await backend.request(call("fail"), ignore))
        assert failed["isError"] is True
        assert (await backend.request(replace(CALL, method="no/such"), ignore)).error is not None


async def test_progress_of_the_sdks_server_arrives_before_its_result() -> None:
    heard: list[Any] = []
    async with sdk_server(real_server(asyncio.Event(), asyncio.Event())) as backend:
        request = replace(call("count", to=3), wants_progress=True)
        reply = await backend.request(request, lambda _, params: heard.append(dict(params)))
    assert heard == [{"progress": float(n), "total": 3.0, "message": f"at {n}"} for n in (1, 2, 3)]
    assert plain(reply)["structuredContent"] == {"result": 3}


async def test_cancelling_cancels_the_call_at_the_sdks_server() -> None:
    entered, left = asyncio.Event(), asyncio.Event()
    async with sdk_server(real_server(entered, left)) as backend:
        task = asyncio.create_task(backend.request(call("hang"), ignore))
        await asyncio.wait_for(entered.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), 5)


async def test_a_timeout_cancels_the_call_at_the_sdks_server() -> None:
    entered, left = asyncio.Event(), asyncio.Event()
    async with sdk_server(real_server(entered, left)) as backend:
        with pytest.raises(BackendTimeout):
            await backend.request(replace(call("hang"), timeout=0.3), ignore)
        await asyncio.wait_for(left.wait(), 5)
