"""Two replicas on one Redis act as one: what is posted to the other reaches the one that holds the call."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from .harness import ROOT, Client, Gateway, until
from .wire import opened, text_of

Start = Callable[..., Gateway]

ROUTES = f"""
routes:
  - name: asking
    backend: {{command: [{sys.executable}, "{ROOT}/tests/integration/servers/asking.py", "--stdio"], era: legacy}}
    scopes: []
"""
ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}
ELICITATION = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}


@pytest.fixture
def replicas(gateway: Start, valkey_server: str) -> tuple[Gateway, Gateway]:
    first = gateway(ROUTES, GATEWAY_REDIS_URL=valkey_server)
    return first, gateway(ROUTES, issuer=first.issuer, GATEWAY_REDIS_URL=valkey_server)


def _ask(client: Client) -> dict[str, Any]:
    reply = client.call("asking__ask", {"question": "who?"}, meta=ELICITATION)
    assert "result" in reply.json(), reply.text
    result: dict[str, Any] = reply.json()["result"]
    assert result["resultType"] == "input_required"
    return result


def _retry(client: Client, asked: dict[str, Any]) -> Any:
    answers = dict.fromkeys(asked["inputRequests"], ACCEPTED)
    params = {
        "name": "asking__ask",
        "arguments": {"question": "who?"},
        "inputResponses": answers,
        "requestState": asked["requestState"],
    }
    return client.modern("tools/call", params, ELICITATION)


def _ran(client: Client) -> int:
    """How often the tool ran at this replica's backend; a client of other capabilities has another process."""
    ran: int = json.loads(text_of(client.call("asking__stats", meta=ELICITATION)))["ran"]
    return ran


def test_the_retry_of_a_parked_call_is_answered_by_whichever_replica_gets_it(
    replicas: tuple[Gateway, Gateway],
) -> None:
    here, there = (replica.client() for replica in replicas)
    asked = _ask(here)
    assert "Ada" in text_of(_retry(there, asked))
    assert (_ran(here), _ran(there)) == (1, 0)


def test_a_handle_is_single_use_at_every_replica(replicas: tuple[Gateway, Gateway]) -> None:
    here, there = (replica.client() for replica in replicas)
    asked = _ask(here)
    assert "Ada" in text_of(_retry(there, asked))
    for client in (here, there):
        assert _retry(client, asked).json()["error"]["code"] == -32602
    assert _ran(here) == 1


def test_where_the_replica_died_the_client_is_told_and_nothing_runs_twice(replicas: tuple[Gateway, Gateway]) -> None:
    first, second = replicas
    asked = _ask(first.client())
    assert first.process is not None
    first.process.kill()
    first.process.wait()
    reply = until(lambda: _retry(second.client(), asked)).json()
    said = reply["error"]["message"] if "error" in reply else json.dumps(reply["result"])
    assert "before you" in said
    assert _ran(second.client()) == 0


def test_a_legacy_client_may_answer_at_the_other_replica(replicas: tuple[Gateway, Gateway]) -> None:
    here, there = (replica.client() for replica in replicas)
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "t", "version": "1"},
    }
    reply = here.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    here.session = there.session = reply.headers["mcp-session-id"]
    call = {"name": "asking__ask", "arguments": {"question": "who?"}}
    with opened(here, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}) as stream:
        stream.until(b"elicitation/create")
        asked = re.search(rb'"id":"([^"]+)"', stream.until(b"requestedSchema"))
        assert asked is not None
        posted = there.post(
            {"jsonrpc": "2.0", "id": asked.group(1).decode(), "result": ACCEPTED}, Mcp_Session_Id=str(there.session)
        )
        assert posted.status_code == 202
        stream.until(b"Ada")


def test_a_legacy_client_may_cancel_at_the_other_replica(replicas: tuple[Gateway, Gateway]) -> None:
    here, there = (replica.client() for replica in replicas)
    here.initialize()
    there.session = here.session

    def running() -> int:
        stats = here.legacy("tools/call", {"name": "asking__stats", "arguments": {}})
        count: int = json.loads(text_of(stats))["running"]
        return count

    hang = {"jsonrpc": "2.0", "id": "hang", "method": "tools/call", "params": {"name": "asking__hang", "arguments": {}}}
    with opened(here, hang):
        until(lambda: running() == 1)
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "hang"}}
        assert there.post(cancelled, Mcp_Session_Id=str(there.session)).status_code == 202
        until(lambda: running() == 0)


def test_a_session_ended_at_one_replica_has_ended_at_the_other(replicas: tuple[Gateway, Gateway]) -> None:
    here, there = (replica.client() for replica in replicas)
    here.initialize()
    there.session = here.session
    assert there.legacy("tools/list").status_code == 200
    here.send("DELETE", here.url, headers=here.headers(**{"Mcp-Session-Id": str(here.session)}))
    assert there.legacy("tools/list").status_code == 404


def test_progress_of_a_call_that_goes_on_at_the_other_replica_reaches_the_client(
    replicas: tuple[Gateway, Gateway],
) -> None:
    here, there = (replica.client() for replica in replicas)
    arguments = {"question": "who?"}
    meta = {**ELICITATION, "progressToken": "mine"}
    asked = here.call("asking__ask_and_work", arguments, meta=meta).json()["result"]
    params = {
        "name": "asking__ask_and_work",
        "arguments": arguments,
        "inputResponses": dict.fromkeys(asked["inputRequests"], ACCEPTED),
        "requestState": asked["requestState"],
    }

    reply = there.modern("tools/call", params, meta)

    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    *progress, answer = map(json.loads, lines)
    assert [message["params"] for message in progress] == [
        {"progress": step, "total": 3, "progressToken": "mine"} for step in range(3)
    ]
    assert answer["result"]["content"][0]["text"] == "accept Ada"


def test_a_resource_that_a_result_named_at_one_replica_is_known_at_the_other(replicas: tuple[Gateway, Gateway]) -> None:
    here, there = (replica.client() for replica in replicas)
    unknown = "There is no resource"

    def read() -> str:
        return there.modern("resources/read", {"uri": "secret://a"}, Mcp_Name="secret://a").text

    assert unknown in read()

    here.call("asking__link", {"uri": "secret://a"})

    until(lambda: unknown not in read())
    assert "secret://a" in read()
