"""What is said while a call runs reaches the one who asked, as it was asked for; who leaves stops what was started."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .harness import Client, Gateway, running, until
from .servers.raw_http import RawBackend
from .test_backend_faults import STDIO
from .wire import Open, calling, metric, opened, text_of

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [all]
  - name: local
    backend: {{command: [python, "{stdio}"]}}
    scopes: [all]
"""


@pytest.fixture(scope="module")
def stdio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The legacy server of the other tests, which lists the tools that it has."""
    path = tmp_path_factory.mktemp("stdio") / "server.py"
    listed = 'tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]'
    source = re.sub(r"tools = \[\{.*\]", listed, STDIO.read_text())
    source = source.replace("start + 2", "start + 200")
    assert listed in source
    path.write_text(source)
    return path


@pytest.fixture(scope="module")
def served(backend: RawBackend, stdio: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("streams"), ROUTES.format(url=backend.url, stdio=stdio)) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    return served.client("all")


@pytest.fixture
def legacy(served: Gateway) -> Client:
    client = served.client("all")
    client.initialize()
    return client


def _legacy_call(name: str, arguments: Any = None, token: Any = None) -> dict[str, Any]:
    params: dict[str, Any] = {"name": name, "arguments": arguments or {}}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


def _steps(exchange: Open, token: Any) -> None:
    """Three steps and then the result, on a stream that nobody buffers."""
    events = exchange.events()
    head = exchange.received.partition(b"\r\n\r\n")[0].lower()
    assert b"content-type: text/event-stream" in head
    assert b"x-accel-buffering: no" in head
    assert b"cache-control: no-store" in head
    assert [event.get("method") for event in events] == ["notifications/progress"] * 3 + [None]
    for number, event in enumerate(events[:3], 1):
        params = event["params"]
        assert params == {"progressToken": token, "progress": number, "total": 3, "message": f"step {number}"}
        assert type(params["progressToken"]) is type(token)
    assert events[3]["id"] == 7
    assert "result" in events[3]


TOKENS = [0, 1, 2**53, "a", "1", "", "é"]


@pytest.mark.parametrize("token", TOKENS)
def test_a_modern_client_gets_progress_under_its_own_token(client: Client, token: Any) -> None:
    with calling(client, "raw__steps", token=token) as call:
        _steps(call, token)


@pytest.mark.parametrize("token", TOKENS)
def test_a_legacy_client_gets_progress_under_its_own_token(legacy: Client, token: Any) -> None:
    with opened(legacy, _legacy_call("raw__steps", token=token)) as call:
        _steps(call, token)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_progress_of_a_stdio_backend_arrives_before_its_result(client: Client, legacy: Client, era: str) -> None:
    arguments = {"steps": 3, "pause": 0.01}
    call = (
        calling(client, "local__slow_with_progress", arguments, token="mine")
        if era == "modern"
        else opened(legacy, _legacy_call("local__slow_with_progress", arguments, "mine"))
    )
    with call as exchange:
        *steps, last = exchange.events()
    assert [step["params"] for step in steps] == [
        {"progressToken": "mine", "progress": number, "vendor": None} for number in range(3)
    ]
    assert last["result"]["content"][0]["text"] == "done"


def test_progress_is_passed_on_at_once_not_with_the_result(client: Client, backend: RawBackend) -> None:
    backend.state.release.clear()
    with calling(client, "raw__held_steps", token="t") as call:
        call.until(b'"progress":1')
        assert b'"result"' not in call.received
        backend.state.release.set()
        call.until(b'"result"')


def test_without_a_token_nothing_is_asked_for_and_nothing_comes(
    client: Client, legacy: Client, backend: RawBackend
) -> None:
    reply = client.call("raw__steps")
    assert reply.headers["content-type"] == "application/json"
    assert "progressToken" not in backend.state.calls("steps")[-1].message["params"]["_meta"]
    reply = legacy.legacy("tools/call", {"name": "raw__steps", "arguments": {}})
    assert reply.headers["content-type"] == "application/json"


def test_the_backend_never_sees_the_clients_token(client: Client, backend: RawBackend) -> None:
    with calling(client, "raw__steps", token="canary-token") as call:
        call.rest()
    assert b"canary-token" not in backend.state.calls("steps")[-1].body


def test_progress_under_a_foreign_token_reaches_nobody(client: Client) -> None:
    with calling(client, "raw__foreign_steps", token="x") as call:
        assert call.answer()["result"]["content"] is not None
    assert b"progress" not in call.received


def test_a_client_that_takes_no_stream_gets_json(client: Client) -> None:
    reply = client.call("raw__steps", meta={"progressToken": 5}, Accept="application/json")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["result"]["content"] is not None


def test_many_calls_at_once_keep_their_progress_apart(client: Client) -> None:
    with ExitStack() as stack:
        calls = [stack.enter_context(calling(client, "raw__steps", token=f"t{n}")) for n in range(20)]
        for number, call in enumerate(calls):
            _steps(call, f"t{number}")


# Hanging up


def _outcomes(served: Gateway) -> list[dict[str, Any]]:
    return [record for record in served.records() if record["event"] == "outcome"]


def test_a_client_that_hangs_up_cancels_the_call_at_a_modern_backend(client: Client, backend: RawBackend) -> None:
    before = backend.state.hung_up
    with calling(client, "raw__hang") as call:
        until(lambda: backend.state.running == 1)
        call.hang_up()
        until(lambda: backend.state.hung_up == before + 1)
    until(lambda: backend.state.running == 0)


def test_a_client_that_leaves_a_stream_cancels_the_call_too(
    client: Client, served: Gateway, backend: RawBackend
) -> None:
    backend.state.release.clear()
    with calling(client, "raw__held_steps", token=1) as call:
        call.until(b'"progress":1')
    until(lambda: ("raw__held_steps", "aborted") in [(it["tool"], it["outcome"]) for it in _outcomes(served)])
    backend.state.release.set()
    until(lambda: backend.state.running == 0)


def test_a_client_that_hangs_up_cancels_the_call_at_a_stdio_backend(client: Client, served: Gateway) -> None:
    before = len(json.loads(text_of(client.call("local__cancelled"))))
    with calling(client, "local__hang") as call:
        until(lambda: metric(served, "mcp_gateway_inflight", route="local") == 1)
        call.hang_up()
        until(lambda: len(json.loads(text_of(client.call("local__cancelled")))) == before + 1)
    assert metric(served, "mcp_gateway_inflight", route="local") == 0


def test_nothing_is_left_of_a_hundred_calls_that_were_cancelled(
    client: Client, served: Gateway, backend: RawBackend
) -> None:
    assert served.process is not None
    client.call("raw__verbatim")
    descriptors = Path(f"/proc/{served.process.pid}/fd")
    before, hung_up = len(list(descriptors.iterdir())), backend.state.hung_up
    for _ in range(4):
        with ExitStack() as stack:
            for _ in range(25):
                stack.enter_context(calling(client, "raw__hang"))
            until(lambda: backend.state.running == 25)
            until(lambda: metric(served, "mcp_gateway_inflight", route="raw") == 25)
        until(lambda: backend.state.running == 0)
    assert backend.state.hung_up == hung_up + 100
    until(lambda: metric(served, "mcp_gateway_inflight", route="raw") == 0)
    until(lambda: len(list(descriptors.iterdir())) <= before + 2)
    assert client.call("raw__verbatim").status_code == 200
    assert metric(served, "mcp_gateway_breaker_state", route="raw") == 0
    assert metric(served, "mcp_gateway_requests_total", outcome="internal_error") == 0
