"""A thousand calls that their clients gave up end at every kind of backend, and leave nothing behind in the gateway."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.servers.start import http_server

from .harness import ROOT, Client, Gateway, running, until
from .wire import calling, descendants, metric, opened, text_of

TOGETHER = 50
ROUNDS = 10

ROUTES = """
principal_concurrency: off
routes:
  - {{name: modern, backend: {{url: "{modern}"}}, scopes: [all]}}
  - {{name: legacy, backend: {{url: "{legacy}"}}, scopes: [all]}}
  - {{name: sse, backend: {{url: "{sse}"}}, scopes: [all]}}
  - {{name: stdio, backend: {{command: ["{python}", "{program}", --stdio], era: legacy}}, scopes: [all]}}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with ExitStack() as stack:
        kinds = {"modern": "--modern", "legacy": "--port=0", "sse": "--sse"}
        urls = {
            kind: stack.enter_context(http_server(option, program="asking.py")).url for kind, option in kinds.items()
        }
        program = ROOT / "tests/integration/servers/asking.py"
        routes = ROUTES.format(**urls, python=sys.executable, program=program)
        yield stack.enter_context(running(tmp_path_factory.mktemp("cancelled"), routes))


def _stats(client: Client, route: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text_of(client.call(f"{route}__stats")))
    return found


def _held(served: Gateway) -> tuple[int, set[int], float]:
    """Descriptors, processes and sessions of the gateway."""
    assert served.process is not None
    pid = served.process.pid
    sessions = metric(served, "mcp_gateway_sessions", side="backend")
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), descendants(pid), sessions


def _hang_up(client: Client, route: str, _ids: range) -> None:
    with ExitStack() as stack:
        for _ in range(TOGETHER):
            stack.enter_context(calling(client, f"{route}__hang"))
        until(lambda: _stats(client, route)["running"] == TOGETHER)


def _cancel(client: Client, route: str, ids: range) -> None:
    with ExitStack() as stack:
        for number in ids:
            params = {"name": f"{route}__hang", "arguments": {}}
            body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
            stack.enter_context(opened(client, body))
        until(lambda: _stats(client, route)["running"] == TOGETHER)
        for number in ids:
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
            assert client.post(note, Mcp_Session_Id=str(client.session)).status_code == 202
        until(lambda: _stats(client, route)["running"] == 0)


@pytest.mark.parametrize("route", ["modern", "legacy", "sse", "stdio"])
def test_a_thousand_calls_that_were_given_up_leave_nothing_behind(served: Gateway, route: str) -> None:
    modern, legacy = served.client("all"), served.client("all")
    legacy.initialize()
    legacy.legacy("tools/call", {"name": f"{route}__stats", "arguments": {}})
    before, cancelled = _held(served), _stats(modern, route)["cancelled"]

    for number in range(ROUNDS):
        ids = range(number * TOGETHER, (number + 1) * TOGETHER)
        _hang_up(modern, route, ids)
        until(lambda: _stats(modern, route)["running"] == 0)
        _cancel(legacy, route, ids)

    assert _stats(modern, route)["cancelled"] == cancelled + 2 * ROUNDS * TOGETHER
    until(lambda: metric(served, "mcp_gateway_inflight", route=route) == 0)
    # Connections that rest are closed when they are looked at.
    until(lambda: _stats(modern, route) and _held(served)[0] <= before[0] + 4)
    assert _held(served)[1:] == before[1:]
    assert metric(served, "mcp_gateway_breaker_state", route=route) == 0
    assert metric(served, "mcp_gateway_requests_total", outcome="internal_error") == 0
