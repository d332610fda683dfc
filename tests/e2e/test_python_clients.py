"""Real Python clients list and call tools of an HTTP and a stdio server with a token, each in the era it opens with."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import fastmcp
import httpx2
import pytest
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.exceptions import ToolError
from mcp import Client as SdkClient
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client

from .harness import LEGACY, MODERN, Gateway, running, until

ROUTES = """
routes:
  - name: deploy
    backend: {{url: "{url}"}}
    scopes: [deploy:read]
    tools:
      rollback: {{scopes: [deploy:write]}}
      start_deploy: {{scopes: [deploy:write]}}
      get_deploy_status: {{limits: [{{name: polling, per: [principal, tool], limit: 2, window: 60s}}]}}
  - name: time
    backend: {{command: [mcp-server-time]}}
    scopes: [time:read]
"""
EVERYTHING = "deploy:read deploy:write time:read"
STATUS = {"service": "checkout", "environment": "production"}


@pytest.fixture(scope="module")
def served(deploy_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("clients"), ROUTES.format(url=deploy_url)) as gateway:
        yield gateway


@asynccontextmanager
async def _sdk(served: Gateway, scopes: str, subject: str = "alice", mode: Any = "auto") -> AsyncIterator[SdkClient]:
    headers = {"Authorization": f"Bearer {served.token(scopes, subject)}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as http,
        SdkClient(streamable_http_client(served.url, http_client=http), mode=mode) as client,
    ):
        yield client


def _eras(served: Gateway, subject: str) -> set[tuple[str, str]]:
    """Era and revision of everything that a subject called, by the audit."""

    def found() -> set[tuple[str, str]]:
        mine = [it for it in served.records() if (it["principal"] or {}).get("subject") == subject]
        return {(it["era"], it["revision"]) for it in mine if it["method"] == "tools/call"}

    seen: set[tuple[str, str]] = until(found)
    return seen


@pytest.mark.parametrize(("mode", "era", "revision"), [("auto", "modern", MODERN), ("legacy", "legacy", LEGACY)])
async def test_the_sdk_lists_and_calls_in_its_era(served: Gateway, mode: str, era: str, revision: str) -> None:
    async with _sdk(served, EVERYTHING, f"sdk-{mode}", mode) as client:
        assert client.protocol_version == revision
        assert client.server_info.name == "mcp-gateway"
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"deploy__rollback", "time__get_current_time"} <= names
        deployed = await client.call_tool("deploy__get_deploy_status", STATUS)
        assert deployed.structured_content is not None
        assert deployed.structured_content["service"] == "checkout"
        now = await client.call_tool("time__get_current_time", {"timezone": "Europe/Berlin"})
        assert "Berlin" in str(now.content)
    assert _eras(served, f"sdk-{mode}") == {(era, revision)}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdk_hands_progress_to_its_caller(served: Gateway, mode: str) -> None:
    seen: list[float] = []

    async def progressed(progress: float, _total: float | None, _message: str | None) -> None:
        seen.append(progress)

    arguments = {"service": "search", "environment": "dev", "version": f"7.{mode == 'auto':d}.0"}
    async with _sdk(served, EVERYTHING, mode=mode) as client:
        done = await client.call_tool("deploy__start_deploy", arguments, progress_callback=progressed)
    assert not done.is_error
    assert seen == sorted(seen)
    assert len(seen) > 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdk_shows_a_rate_limit_and_goes_on(served: Gateway, mode: str) -> None:
    async with _sdk(served, EVERYTHING, f"limited-{mode}", mode) as client:
        results = [await client.call_tool("deploy__get_deploy_status", STATUS) for _ in range(3)]
        assert [result.is_error for result in results] == [False, False, True]
        said = json.loads(results[2].content[0].text)  # type: ignore[union-attr]
        assert (said["code"], said["retry_after_seconds"] > 0) == ("rate_limited", True)
        assert not (await client.call_tool("deploy__list_services", {})).is_error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_with_too_few_scopes_the_sdk_sees_only_what_it_may_call(served: Gateway, mode: str) -> None:
    async with _sdk(served, "deploy:read", "reader", mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"deploy__get_deploy_status", "deploy__list_services"}
        with pytest.raises(MCPError) as refused:
            await client.call_tool("deploy__rollback", {**STATUS, "reason": "because"})
        assert "deploy:write" in refused.value.error.message
        assert not (await client.call_tool("deploy__list_services", {})).is_error


async def test_without_a_token_the_sdk_says_what_is_missing(served: Gateway) -> None:
    with pytest.raises(BaseException) as failed:  # noqa: PT011 - a group or not is the client's matter
        async with (
            httpx2.AsyncClient(trust_env=False) as http,
            SdkClient(streamable_http_client(served.url, http_client=http)) as client,
        ):
            await client.list_tools()
    assert "token" in _words(failed.value)


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return " ".join(map(_words, error.exceptions))
    return str(error)


async def test_fastmcp_lists_and_calls(served: Gateway) -> None:
    transport = StreamableHttpTransport(
        served.url, headers={"Authorization": f"Bearer {served.token(EVERYTHING, 'fastmcp')}"}
    )
    async with fastmcp.Client(transport) as client:
        names = {tool.name for tool in await client.list_tools()}
        assert {"deploy__rollback", "time__convert_time"} <= names
        assert "checkout" in str(await client.call_tool("deploy__list_services", {}))
        assert "UTC" in str(await client.call_tool("time__get_current_time", {"timezone": "UTC"}))
        with pytest.raises(ToolError, match="invalid_arguments"):
            await client.call_tool("deploy__get_deploy_status", {"service": 5})
    assert _eras(served, "fastmcp") == {("modern", MODERN)}


async def test_fastmcp_with_too_few_scopes_sees_only_what_it_may_call(served: Gateway) -> None:
    transport = StreamableHttpTransport(
        served.url, headers={"Authorization": f"Bearer {served.token('time:read', 'fastmcp-few')}"}
    )
    async with fastmcp.Client(transport) as client:
        names = {tool.name for tool in await client.list_tools()}
        assert names == {"time__get_current_time", "time__convert_time"}
