"""In process: the tools as an SDK client sees them."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import structlog
from jsonschema_rs import Draft202012Validator
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, RequestParamsMeta, Tool

from examples.deploy_tools.logs import correlation
from examples.deploy_tools.server import build_server
from examples.deploy_tools.service import STEPS, Deployments
from examples.deploy_tools.store import InMemoryStore, seeded_store
from examples.deploy_tools.strict import StrictServer

STATUS = {"service": "checkout", "environment": "production"}


@pytest.fixture
def store() -> InMemoryStore:
    return seeded_store()


@pytest.fixture
def server(store: InMemoryStore) -> StrictServer:
    return build_server(Deployments(store))


@pytest.fixture(params=["auto", "legacy"])
def client(request: pytest.FixtureRequest, server: StrictServer) -> Client:
    """A client that is not connected yet: a test enters it, in its own task."""
    return Client(server, mode=request.param)


def failure(result: CallToolResult) -> dict[str, Any]:
    assert result.is_error
    assert result.structured_content is None
    (block,) = result.content
    assert block.type == "text"
    found = json.loads(block.text)
    assert found.keys() == {"error", "retryable", "hint"}
    return dict(found)


async def tools(client: Client) -> dict[str, Tool]:
    return {tool.name: tool for tool in (await client.list_tools()).tools}


async def test_schemas_are_flat_closed_and_say_what_is_allowed(client: Client) -> None:
    async with client:
        listed = await tools(client)
        assert set(listed) == {"get_deploy_status", "list_services", "start_deploy", "rollback"}
        for tool in listed.values():
            assert tool.input_schema["additionalProperties"] is False
            assert "$ref" not in json.dumps(tool.input_schema)
            assert tool.output_schema
            assert tool.description
        schema = listed["start_deploy"].input_schema
        assert set(schema["properties"]) == set(schema["required"]) == {"service", "version", "environment"}
        assert schema["properties"]["environment"]["enum"] == ["dev", "staging", "production"]
        assert "required" not in listed["list_services"].input_schema


async def test_annotations_tell_reading_from_destroying(client: Client) -> None:
    async with client:
        hints = {
            name: (tool.annotations.read_only_hint, tool.annotations.destructive_hint, tool.annotations.idempotent_hint)
            for name, tool in (await tools(client)).items()
            if tool.annotations and tool.annotations.title
        }
        assert hints == {
            "get_deploy_status": (True, None, True),
            "list_services": (True, None, True),
            "start_deploy": (False, False, False),
            "rollback": (False, True, False),
        }


async def test_results_are_structured_and_fit_the_output_schema(client: Client) -> None:
    async with client:
        listed = await tools(client)
        for name, arguments in (
            ("get_deploy_status", STATUS),
            ("list_services", {}),
            ("list_services", {"environment": "dev"}),
            ("start_deploy", {**STATUS, "version": "2.4.2"}),
            ("rollback", {**STATUS, "reason": "errors doubled"}),
        ):
            result = await client.call_tool(name, arguments)
            assert not result.is_error
            assert Draft202012Validator(listed[name].output_schema or {}).is_valid(result.structured_content)


async def test_a_deployment_reports_its_steps(client: Client) -> None:
    async with client:
        seen: list[tuple[float, float | None]] = []

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            seen.append((progress, total))

        await client.call_tool("start_deploy", {**STATUS, "version": "2.4.2"}, progress_callback=progress)
        assert seen == [(done, len(STEPS)) for done in range(len(STEPS) + 1)]


async def test_an_outage_is_told_as_retryable(client: Client, store: InMemoryStore) -> None:
    async with client:
        store.outage = True
        told = failure(await client.call_tool("get_deploy_status", STATUS))
        assert told["retryable"] is True
        store.outage = False
        assert not (await client.call_tool("get_deploy_status", STATUS)).is_error


@pytest.mark.parametrize(
    ("tool", "arguments", "names"),
    [
        ("get_deploy_status", {**STATUS, "environment": "prod"}, "environment"),
        ("get_deploy_status", {**STATUS, "service": "Check out"}, "service"),
        ("start_deploy", {**STATUS, "version": "v2.4"}, "version"),
        ("start_deploy", {**STATUS, "version": "2.4.2", "dry_run": True}, "dry_run"),
        ("rollback", STATUS, "reason"),
        ("list_services", {"enviroment": "dev"}, "enviroment"),
    ],
)
async def test_bad_arguments_are_named_and_nothing_is_done(
    client: Client, tool: str, arguments: dict[str, Any], names: str
) -> None:
    async with client:
        before = await client.call_tool("list_services", {})
        told = failure(await client.call_tool(tool, arguments))
        assert names in told["error"]
        assert told["retryable"] is False
        assert (await client.call_tool("list_services", {})).structured_content == before.structured_content


async def test_a_refusal_of_the_service_keeps_its_hint(client: Client) -> None:
    async with client:
        told = failure(await client.call_tool("get_deploy_status", {**STATUS, "service": "nope"}))
        assert told == {
            "error": "There is no service nope.",
            "retryable": False,
            "hint": "Call list_services for the names.",
        }


async def test_an_unknown_tool_is_a_protocol_error(client: Client) -> None:
    async with client:
        with pytest.raises(MCPError, match="Unknown tool: nope"):
            await client.call_tool("nope", {})


async def test_a_crash_keeps_its_details_to_the_log(store: InMemoryStore) -> None:
    async def crash() -> list[str]:
        raise RuntimeError("password=hunter2")

    store.services = crash  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logged:
        async with Client(build_server(Deployments(store))) as client:
            told = failure(await client.call_tool("list_services", {}))
    assert "hunter2" not in json.dumps(told)
    (crashed,) = [entry for entry in logged if entry["event"] == "tool_crashed"]
    assert isinstance(crashed["exc_info"], RuntimeError)


async def test_log_lines_carry_the_callers_request_id(client: Client) -> None:
    async with client:
        meta = cast(RequestParamsMeta, {"io.mcp-gateway/request-id": "r-1"})
        merge = structlog.contextvars.merge_contextvars
        with structlog.testing.capture_logs(processors=[merge]) as logged:
            await client.call_tool("get_deploy_status", STATUS, meta=meta)
        (called,) = [entry for entry in logged if entry["event"] == "tool_called"]
        assert (called["request_id"], called["tool"]) == ("r-1", "get_deploy_status")


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, {}),
        ({"io.mcp-gateway/request-id": 7}, {}),
        ({"traceparent": "nonsense"}, {}),
        ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, {"trace_id": "a" * 32}),
    ],
)
def test_only_well_formed_ids_are_bound(meta: dict[str, Any], expected: dict[str, str]) -> None:
    assert correlation(meta) == expected
