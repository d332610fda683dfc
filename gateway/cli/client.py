"""``tools`` and ``call``: the gateway as an agent with this token sees it, through the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx2
import typer
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from rich.table import Table

from gateway.cli.output import NO, UNUSABLE, as_json, err, fail, out, printable
from gateway.cli.tokens import DemoIssuer, mint_for_demo
from gateway.protocol.revisions import REFUSAL

Url = Annotated[str | None, typer.Option(help="The gateway. Default: MCP_GATEWAY_URL, or the running demo.")]
Token = Annotated[str | None, typer.Option(help="Bearer token. Default: MCP_GATEWAY_TOKEN.")]
Scopes = Annotated[str | None, typer.Option(help="A development token with these scopes, of the running demo.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def tools(url: Url = None, token: Token = None, scopes: Scopes = None, json_output: Json = False) -> None:
    """List the tools that a token may call."""
    listed = _run(_list, _url(url), _token(token, scopes))
    if json_output:
        as_json(listed)
        return
    if not listed:
        err.print("There is no tool that this token may call; mcp-gateway explain says why.", style="yellow")
        return
    table = Table("tool", "description", box=None)
    for tool in listed:
        first = (tool.get("description") or "").strip().partition("\n")[0]
        table.add_row(tool["name"], first)
    out.print(table)


def call(
    tool: Annotated[str, typer.Argument(help="Public name, such as deploy__list_services.")],
    arguments: Annotated[str, typer.Argument(help="A JSON object.")] = "{}",
    url: Url = None,
    token: Token = None,
    scopes: Scopes = None,
    json_output: Json = False,
) -> None:
    """Call one tool. Exit 1 when the result is an error or a refusal."""
    try:
        decoded = json.loads(arguments)
    except ValueError as error:
        fail(f"the arguments are not JSON: {error}", UNUSABLE)
    if not isinstance(decoded, dict):
        fail("the arguments must be a JSON object", UNUSABLE)
    result = _run(_call, _url(url), _token(token, scopes), tool, decoded)
    if json_output:
        as_json(result)
    else:
        _say(result)
    raise typer.Exit(NO if result.get("isError") else 0)


def _say(result: dict[str, Any]) -> None:
    """The content; of what the gateway itself says instead, what people need of it."""
    refusal = result.get("_meta", {}).get(REFUSAL)
    if isinstance(refusal, dict):
        for line in filter(None, (refusal.get("error"), refusal.get("hint"))):
            err.print(printable(str(line)), style="red", markup=False, highlight=False, soft_wrap=True)
        return
    for block in result.get("content", ()):
        typer.echo(block.get("text", json.dumps(block)))


def _run(work: Callable[..., Coroutine[Any, Any, Any]], url: str, *arguments: Any) -> Any:
    result: Any = None
    problem = ""
    try:
        result = asyncio.run(work(url, *arguments))
    except* MCPError as group:
        problem = _told(_first(group).error, url)
    except* (httpx2.HTTPError, OSError) as group:
        why = str(_first(group)).rstrip(".")
        problem = f"the gateway cannot be reached at {url}: {why}; is it running, and is this its --url?"
    if problem:
        fail(problem)
    return result


def _told(error: Any, url: str) -> str:
    """What the gateway says to an agent, and the next step on a command line."""
    message = str(error.message)
    if error.code == HTTPStatus.UNAUTHORIZED:
        return f"{message} Give --token or MCP_GATEWAY_TOKEN, or --scopes beside the demo."
    if not urlsplit(url).path.startswith("/mcp"):
        return f"{url}: {message}; the URL of a gateway ends in /mcp or /mcp/<toolset>"
    return message


def _first(group: BaseExceptionGroup[Any]) -> Any:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _list(url: str, token: str | None) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    async with _connected(url, token) as client:
        cursor: str | None = None
        while True:
            page = await client.list_tools(cursor=cursor)
            listed += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return listed


async def _call(url: str, token: str | None, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    async with _connected(url, token) as client:
        result = await client.call_tool(tool, arguments)
        dumped: dict[str, Any] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        return dumped


@asynccontextmanager
async def _connected(url: str, token: str | None) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = httpx2.Timeout(30.0, read=300.0)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


def _url(given: str | None) -> str:
    demo = DemoIssuer.load()
    return given or os.environ.get("MCP_GATEWAY_URL") or (demo.url if demo else "http://127.0.0.1:8080/mcp")


def _token(given: str | None, scopes: str | None) -> str | None:
    if given is not None and scopes is not None:
        fail("give --token or --scopes, not both", UNUSABLE)
    if scopes is not None:
        return mint_for_demo(scopes)
    token = (given or os.environ.get("MCP_GATEWAY_TOKEN") or "").strip()
    if not (token.isascii() and token.isprintable()):
        fail("the token has characters that no token has: was more copied than the token?", UNUSABLE)
    return token or None
