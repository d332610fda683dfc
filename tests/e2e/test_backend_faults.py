"""One bad backend harms only its own callers, and only until it is back."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import Client, Gateway, running, until
from .servers.raw_http import GARBAGE, RawBackend
from .wire import alive, calling, command_of, descendants, metric, refusal, text_of

Start = Callable[..., Gateway]

STDIO = Path(__file__).parents[1] / "integration" / "servers" / "raw_stdio.py"
ROUTES = """
defaults: {{timeout: 2s, refresh: 1s, list_timeout: 1s}}
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [all]
    tools: {{wait: {{timeout: 20s}}}}
  - name: local
    backend: {{command: ["{python}", "{stdio}"]}}
    scopes: [all]
  - name: narrow
    backend: {{url: "{url}"}}
    scopes: [all]
    max_concurrency: 2
    tools: {{wait: {{timeout: 10s}}, verbatim: {{timeout: 500ms}}}}
"""
BROKEN = '  - {name: broken, backend: {command: ["/nonexistent/server"]}, scopes: [all]}\n'


def _routes(raw: RawBackend) -> str:
    return ROUTES.format(url=raw.url, python=sys.executable, stdio=STDIO)


def _children(served: Gateway) -> list[int]:
    """The stdio servers that run, without those that watch over them."""
    assert served.process is not None
    return [pid for pid in descendants(served.process.pid) if STDIO.name in command_of(pid)]


def _raw_tools(client: Client) -> list[str]:
    return [name for name in client.tools() if name.startswith("raw__")]


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("faults"), _routes(backend)) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    return served.client("all")


def test_a_killed_stdio_backend_harms_nobody_else_and_is_back_in_seconds(served: Gateway, client: Client) -> None:
    def own() -> list[str]:
        return [name for name in client.tools() if name.startswith("local__")]

    until(lambda: "local__tool0" in own())
    tools = own()
    assert served.process is not None
    (child,) = _children(served)
    os.kill(child, signal.SIGKILL)
    until(lambda: not alive(child))
    began = time.monotonic()
    while time.monotonic() - began < 1:
        assert text_of(client.call("raw__verbatim")) is not None
        assert own() == tools
    until(lambda: "Unknown tool" in client.call("local__tool0").text, 10)  # its own answer: it is back
    assert len(_children(served)) == 1
    assert served.get("/readyz").status_code == 200


def test_calls_to_a_dead_http_backend_fail_at_once_and_its_tools_stay_listed(
    served: Gateway, client: Client, backend: RawBackend
) -> None:
    tools = client.tools()
    assert client.call("raw__verbatim").status_code == 200
    backend.stop()
    for _ in range(10):
        began = time.monotonic()
        said = refusal(client.call("raw__verbatim"))
        assert time.monotonic() - began < 0.5
        assert (said["code"], said["dispatched"], said["retryable"]) == ("backend_unavailable", False, True)
        assert str(backend.port) not in json.dumps(said)
        assert client.tools() == tools
    until(lambda: metric(served, "mcp_gateway_backend_up", route="raw") == 0)
    until(lambda: metric(served, "mcp_gateway_breaker_state", route="raw") == 2)
    assert metric(served, "mcp_gateway_backend_up", route="local") == 1
    assert served.get("/readyz").status_code == 200
    assert client.tools() == tools
    backend.start()
    until(lambda: not client.call("raw__verbatim").json()["result"].get("isError"), 10)
    until(lambda: metric(served, "mcp_gateway_backend_up", route="raw") == 1)
    assert metric(served, "mcp_gateway_requests_total", outcome="backend_unavailable", route="raw") >= 10


@pytest.mark.parametrize("tool", GARBAGE)
def test_an_answer_that_is_none_is_backend_unavailable_and_says_nothing_of_the_backend(
    client: Client, backend: RawBackend, tool: str
) -> None:
    began = time.monotonic()
    reply = client.call(f"raw__{tool}")
    said = refusal(reply)
    assert time.monotonic() - began < 1.5
    refused = tool == "unauthorized"  # the backend's own no: nothing was executed
    assert (said["code"], said["dispatched"], said["retryable"]) == ("backend_unavailable", not refused, False)
    for word in ("127.0.0.1", str(backend.port), "invalid_token", "<html>", "Traceback", "Error("):
        assert word not in reply.text
    until(lambda: client.call("raw__verbatim").json()["result"].get("isError") is None, 10)


def test_a_hanging_tool_is_given_up_in_its_time_and_its_call_cancelled(client: Client, backend: RawBackend) -> None:
    hung_up = backend.state.hung_up
    began = time.monotonic()
    said = refusal(client.call("raw__hang"))
    assert 1.9 < time.monotonic() - began < 3.5
    assert (said["code"], said["dispatched"], said["retryable"]) == ("backend_timeout", True, False)
    until(lambda: backend.state.hung_up == hung_up + 1)


def test_one_slow_backend_slows_nobody_else(client: Client, backend: RawBackend) -> None:
    backend.state.release.clear()
    waiting = [calling(client, "raw__wait") for _ in range(20)]
    calls = [it.__enter__() for it in waiting]
    until(lambda: backend.state.running >= 20)
    began = time.monotonic()
    for _ in range(10):
        reply = client.modern("tools/call", {"name": "local__tool0", "arguments": {}})
        assert "Unknown tool" in reply.text
        assert "local__tool0" in client.tools()
    assert time.monotonic() - began < 8
    assert backend.state.running >= 20
    backend.state.release.set()
    for call in calls:
        call.answer()
    for it in waiting:
        it.__exit__(None, None, None)


@pytest.mark.parametrize(
    "listing",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"starting"}}',
        b"<html>maintenance</html>",
        b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete"}}',
    ],
)
def test_a_failing_list_never_empties_what_was_listed(client: Client, backend: RawBackend, listing: bytes) -> None:
    tools = client.tools()
    asked = sum(it.method == "tools/list" for it in backend.state.seen)
    backend.state.listing = listing
    until(lambda: sum(it.method == "tools/list" for it in backend.state.seen) >= asked + 2, 10)
    assert client.tools() == tools
    assert client.call("raw__verbatim").status_code == 200
    backend.state.listing = None


def test_a_new_tool_of_a_backend_appears_by_itself(client: Client, backend: RawBackend) -> None:
    backend.state.tools["newcomer"] = {"inputSchema": {"type": "object"}}
    until(lambda: "raw__newcomer" in client.tools(), 10)
    del backend.state.tools["newcomer"]
    until(lambda: "raw__newcomer" not in client.tools(), 10)


def test_more_calls_than_places_wait_and_then_are_told_that_it_is_busy(client: Client, backend: RawBackend) -> None:
    backend.state.release.clear()
    with calling(client, "narrow__wait") as one, calling(client, "narrow__wait") as two:
        until(lambda: backend.state.running == 2)
        said = refusal(client.call("narrow__verbatim"))
        assert (said["code"], said["dispatched"], said["retryable"]) == ("backend_busy", False, True)
        assert not client.call("raw__verbatim").json()["result"].get("isError")
        backend.state.release.set()
        for call in (one, two):
            assert call.answer()["result"]["content"]
    assert not client.call("narrow__verbatim").json()["result"].get("isError")


def test_backends_that_are_not_there_at_start_keep_nobody_from_starting_and_arrive_later(
    gateway: Start, raw: RawBackend
) -> None:
    raw.stop()
    served = gateway(_routes(raw) + BROKEN)
    client = served.client("all")
    assert _raw_tools(client) == []
    assert json.loads(client.call("raw__verbatim").text)["error"]["code"] == -32602
    raw.start()
    until(lambda: _raw_tools(client), 10)
    assert client.call("raw__verbatim").status_code == 200
    assert metric(served, "mcp_gateway_backend_up", route="broken") == 0
    assert not [name for name in client.tools() if name.startswith("broken__")]
