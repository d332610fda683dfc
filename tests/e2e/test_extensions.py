"""Of extensions a backend is told only those that are carried from end to end, whichever eras meet."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.servers.start import http_server

from .harness import LEGACY, ROOT, Client, Gateway, running
from .wire import text_of

ROUTES = """
routes:
  - {{name: modern, backend: {{url: "{modern}"}}, scopes: []}}
  - {{name: legacy, backend: {{url: "{legacy}"}}, scopes: []}}
  - {{name: stdio, backend: {{command: ["{python}", "{program}", --stdio], era: modern}}, scopes: []}}
"""
TASKS, APPS = "io.modelcontextprotocol/tasks", "io.modelcontextprotocol/ui"
CAPABILITIES = {
    "elicitation": {"form": {}},
    "tasks": {"list": {}, "requests": {"elicitation": {"create": {}}}},
    "extensions": {TASKS: {}, APPS: {"mimeTypes": ["text/html"]}},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    program = ROOT / "tests/integration/servers/asking.py"
    with http_server("--modern", program="asking.py") as modern, http_server(program="asking.py") as legacy:
        routes = ROUTES.format(modern=modern.url, legacy=legacy.url, python=sys.executable, program=program)
        with running(tmp_path_factory.mktemp("extensions"), routes) as gateway:
            yield gateway


def _initialized(client: Client) -> Client:
    params = {"protocolVersion": LEGACY, "capabilities": CAPABILITIES, "clientInfo": {"name": "t", "version": "1"}}
    reply = client.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    client.session = reply.headers["mcp-session-id"]
    return client


def _call(client: Client, era: str, tool: str, **params: Any) -> Any:
    params = {"name": tool, "arguments": {}, **params}
    if era == "modern":
        return client.modern("tools/call", params, {"io.modelcontextprotocol/clientCapabilities": CAPABILITIES})
    return _initialized(client).legacy("tools/call", params, Accept="application/json")


@pytest.mark.parametrize("backend", ["modern", "legacy", "stdio"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_no_backend_is_told_of_tasks_and_a_modern_one_of_what_passes_through(
    served: Gateway, era: str, backend: str
) -> None:
    declared = json.loads(text_of(_call(served.client(), era, f"{backend}__declared")))

    assert "tasks" not in declared
    passed = {APPS: {"mimeTypes": ["text/html"]}}
    assert declared.get("extensions") == (passed if era == "modern" and backend != "legacy" else None)


@pytest.mark.parametrize("backend", ["modern", "legacy"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_call_that_asks_for_a_task_is_answered_as_a_call(served: Gateway, era: str, backend: str) -> None:
    assert "ran" in text_of(_call(served.client(), era, f"{backend}__stats", task={"ttl": 60_000}))


def test_no_client_is_told_of_an_extension(served: Gateway) -> None:
    client = served.client()
    discovered = client.modern("server/discover").json()["result"]["capabilities"]
    initialized = client.initialize().json()["result"]["capabilities"]
    for capabilities in (discovered, initialized):
        assert not capabilities.keys() & {"tasks", "extensions"}
    tools = client.modern("tools/list").json()["result"]["tools"]
    assert not [tool["name"] for tool in tools if "execution" in tool]
