"""A modern client (Python SDK 2.x) before legacy servers (Python SDK 1.x over HTTP, SSE and stdio, TypeScript 1.x)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.harness import Client as Raw
from tests.e2e.harness import Gateway, until
from tests.e2e.wire import ENVELOPE, opened

ASKING = pytest.mark.parametrize("toolset", ["http", "sse", "stdio"])
ALL = pytest.mark.parametrize("toolset", ["http", "sse", "stdio", "typescript"])
ECHO = {"http": ("echo", "text"), "sse": ("echo", "text"), "stdio": ("echo", "text"), "typescript": ("echo", "message")}

Connect = Callable[..., AbstractAsyncContextManager[Client]]


async def elicited(_context: Any, params: Any) -> types.ElicitResult:
    content = {"name": "Bob"} if params.mode == "form" else None
    return types.ElicitResult(action="accept", content=content)


async def sampled(_context: Any, _params: Any) -> types.CreateMessageResult:
    text = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", content=text, model="none")


async def rooted(_context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///project")])


ABLE = {"elicitation_callback": elicited, "sampling_callback": sampled, "list_roots_callback": rooted}


@pytest.fixture
def connect(served: Gateway, request: pytest.FixtureRequest) -> Connect:
    @asynccontextmanager
    async def connected(toolset: str, subject: str = "", **options: Any) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {served.token('all', subject or request.node.name)}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as http,
            Client(streamable_http_client(f"{served.url}/{toolset}", http_client=http), **options) as client,
        ):
            assert client.protocol_version == "2026-07-28"
            yield client

    return connected


def said(result: Any) -> str:
    assert not result.is_error, result
    text: str = result.content[0].text
    return text


async def stats(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(await client.call_tool("stats", {})))
    return found


async def until_stats(client: Client, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while not condition(found := await stats(client)):  # noqa: ASYNC110 - no event tells what another process does
            await asyncio.sleep(0.05)
    return found


@ALL
async def test_discover_is_answered_from_the_catalogue(connect: Connect, toolset: str) -> None:
    async with connect(toolset) as client:
        assert client.server_info is not None
        assert client.server_info.name == "mcp-gateway"
        assert client.server_capabilities.tools is not None


@ALL
async def test_lists_calls_reads_prompts_and_completion_cross_without_loss(connect: Connect, toolset: str) -> None:
    name, argument = ECHO[toolset]
    async with connect(toolset) as client:
        assert name in {tool.name for tool in (await client.list_tools()).tools}
        assert "hello" in said(await client.call_tool(name, {argument: "hello"}))
        resources = (await client.list_resources()).resources
        assert (await client.read_resource(str(resources[0].uri))).contents
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        assert prompts
        assert (await client.list_resource_templates()).resource_templates
        if toolset != "typescript":
            assert "Hello Bob" in str(await client.get_prompt("greet", {"name": "Bob"}))
            completed = await client.complete(types.PromptReference(name="greet"), {"name": "name", "value": "x"})
            assert completed.completion.values == ["xa", "xb"]


@ASKING
async def test_clients_of_different_capabilities_have_sessions_of_their_own(connect: Connect, toolset: str) -> None:
    for options, announced in (({}, set()), (ABLE, {"elicitation", "sampling", "roots"})):
        async with connect(toolset, "one-principal", **options) as client:
            await client.call_tool("remember", {})
            assert set((await stats(client))["capabilities"]) == announced


@ASKING
async def test_resource_not_found_is_said_in_the_code_of_the_new_era(connect: Connect, toolset: str) -> None:
    async with connect(toolset) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("missing", {})
        assert (refused.value.error.code, refused.value.error.message) == (-32602, "Resource not found")


@ASKING
async def test_a_url_that_must_be_opened_first_becomes_a_question_and_the_call_is_made_anew(
    connect: Connect, toolset: str
) -> None:
    async with connect(toolset, **ABLE) as client:
        assert said(await client.call_tool("protected", {"account": f"a-{toolset}"})) == "inside"


@ASKING
async def test_questions_within_a_call_park_it_until_they_are_answered(connect: Connect, toolset: str) -> None:
    async with connect(toolset, **ABLE) as client:
        assert said(await client.call_tool("ask", {"question": "who?"})) == "accept Bob"
        assert said(await client.call_tool("sample", {})) == "sampled"
        assert said(await client.call_tool("roots", {})) == "file:///project"


@ASKING
async def test_what_the_client_did_not_declare_is_not_asked(connect: Connect, toolset: str) -> None:
    async with connect(toolset) as client:
        try:
            result = await client.call_tool("ask", {"question": "who?"})
        except MCPError as error:
            assert error.error.code == -32021  # noqa: PT017 - either is right
        else:
            assert result.is_error


async def test_a_question_outside_of_any_call_is_answered_with_an_error(connect: Connect) -> None:
    async with connect("http", **ABLE) as client:
        await client.call_tool("ask_outside", {})
        found = await until_stats(client, lambda it: it["outside"] is not None)
    assert found["outside"] != "answered"


@ASKING
async def test_a_ping_of_the_server_is_answered_by_the_gateway(connect: Connect, toolset: str) -> None:
    async with connect(toolset) as client:
        assert said(await client.call_tool("ping", {})) == "pong"


@ASKING
def test_changes_are_heard_over_the_server_s_own_stream(served: Gateway, toolset: str) -> None:
    client = Raw(f"{served.url}/{toolset}", served.token("all", subject=f"listening-{toolset}"))
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["memo://one"]}
    params = {"notifications": wanted, "_meta": ENVELOPE}
    body = {"jsonrpc": "2.0", "id": "mine", "method": "subscriptions/listen", "params": params}
    routing = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "subscriptions/listen"}
    with opened(client, body, **routing) as stream:
        stream.until(b"notifications/subscriptions/acknowledged")
        until(
            lambda: (
                "memo://one" in json.loads(client.call("stats").json()["result"]["content"][0]["text"])["subscribed"]
            )
        )
        client.call("announce", {"uri": "memo://one"})
        heard = stream.until(b"notifications/resources/updated")
        assert b'"mine"' in heard


@ASKING
async def test_log_messages_come_at_the_level_that_the_request_names(connect: Connect, toolset: str) -> None:
    heard: list[str] = []

    async def logged(params: Any) -> None:
        heard.append(params.level)

    async with connect(toolset, logging_callback=logged, log_level="info") as client:
        assert said(await client.call_tool("chat", {})) == "said"
    assert heard == ["info", "error"]


@ASKING
async def test_progress_reaches_the_client(connect: Connect, toolset: str) -> None:
    seen: list[float] = []

    async def progressed(progress: float, _total: float | None, _message: str | None) -> None:
        seen.append(progress)

    async with connect(toolset) as client:
        assert said(await client.call_tool("steps", {}, progress_callback=progressed)) == "done"
    assert seen == [0, 1, 2]


@ASKING
async def test_a_client_that_leaves_cancels_the_call_at_the_server(connect: Connect, toolset: str) -> None:
    async with connect(toolset) as client:
        before = await stats(client)
        call = asyncio.ensure_future(client.call_tool("hang", {}))
        await until_stats(client, lambda it: it["begun"] > before["begun"])
        call.cancel()
        await asyncio.wait([call])
        await until_stats(client, lambda it: it["cancelled"] > before["cancelled"])


async def test_state_of_a_session_is_kept_for_a_principal_and_is_nobody_elses(connect: Connect) -> None:
    for subject in ("carol", "dave"):
        async with connect("http", subject) as client:
            counted = [said(await client.call_tool("remember", {})) for _ in range(3)]
            assert counted == ["1", "2", "3"]


async def test_a_tool_that_runs_only_as_a_task_is_not_offered(connect: Connect) -> None:
    async with connect("typescript") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert "get-sum" in names
    assert "simulate-research-query" not in names
