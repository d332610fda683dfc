"""Clients of 2025-11-25 that lose the stream of a call and come back to it."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from .harness import Client, Gateway, running, until
from .servers.raw_http import RawBackend
from .wire import Open, opened

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
"""


def call_of(tool: str) -> dict[str, Any]:
    params = {"name": f"raw__{tool}", "arguments": {}}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("resuming"), ROUTES.format(url=backend.url)) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway, backend: RawBackend) -> Client:
    backend.state.release.clear()
    client = served.client("raw")
    client.initialize()
    return client


def left(client: Client, tool: str = "wait") -> str:
    """Begin a call, hang up once its stream is open, and say what its last event was."""
    with opened(client, call_of(tool)) as call:
        head = call.until(b"data:\n\n")
    assert b"retry: 1000\n" in head
    event_id: str = head.split(b"id: ")[-1].split(b"\n")[0].decode()
    return event_id


def back(client: Client, event_id: str) -> AbstractContextManager[Open]:
    again: AbstractContextManager[Open] = opened(client, b"", "GET", **{"Last-Event-ID": event_id})
    return again


def outcomes(served: Gateway, tool: str) -> list[str]:
    """How the calls of a tool ended, on record."""
    records = served.records()
    return [one["outcome"] for one in records if one["event"] == "outcome" and one["tool"] == f"raw__{tool}"]


def test_a_call_goes_on_without_its_client_which_comes_back_for_the_answer(
    client: Client, backend: RawBackend, served: Gateway
) -> None:
    calls, ended = len(backend.state.calls("wait")), len(outcomes(served, "wait"))
    event_id = left(client)
    with back(client, event_id) as again:
        again.until(b": open\n\n")
        backend.state.release.set()
        again.until(b'"id":7,')
        assert b".1\nevent: message\n" in again.rest()
    assert len(backend.state.calls("wait")) == calls + 1
    until(lambda: outcomes(served, "wait")[ended:] == ["ok"])


def test_an_answer_that_came_while_the_client_was_away_is_there_when_it_is_back(
    client: Client, backend: RawBackend, served: Gateway
) -> None:
    ended = len(outcomes(served, "wait"))
    event_id = left(client)
    backend.state.release.set()
    until(lambda: len(outcomes(served, "wait")) > ended)
    for _ in range(2):
        with back(client, event_id) as again:
            assert b'"id":7,' in again.rest()


def test_a_client_that_loses_the_stream_twice_gets_it_a_third_time(client: Client, backend: RawBackend) -> None:
    event_id = left(client)
    with back(client, event_id) as again:
        again.until(b": open\n\n")
    with back(client, event_id) as again:
        again.until(b": open\n\n")
        backend.state.release.set()
        again.until(b'"id":7,')


def under_way(served: Gateway, tool: str) -> int:
    """Calls of a tool that have no outcome on record yet."""
    return sum(one["event"] == "intent" and one["tool"] == f"raw__{tool}" for one in served.records()) - len(
        outcomes(served, tool)
    )


def test_a_call_that_was_left_can_still_be_cancelled(client: Client, backend: RawBackend, served: Gateway) -> None:
    until(lambda: not under_way(served, "hang"))  # those of other tests
    hung_up, ended = backend.state.hung_up, len(outcomes(served, "hang"))
    left(client, "hang")
    assert client.session is not None
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    assert client.post(cancel, Mcp_Session_Id=client.session).status_code == 202
    until(lambda: backend.state.hung_up == hung_up + 1)
    until(lambda: outcomes(served, "hang")[ended:] == ["aborted"])


def test_the_end_of_the_session_ends_a_call_that_was_left(client: Client, backend: RawBackend) -> None:
    hung_up = backend.state.hung_up
    left(client, "hang")
    assert client.session is not None
    headers = client.headers(**{"Mcp-Session-Id": client.session})
    assert client.send("DELETE", client.url, headers=headers).status_code == 204
    until(lambda: backend.state.hung_up == hung_up + 1)


def test_another_session_gets_nothing_of_it_but_its_own_stream(
    client: Client, backend: RawBackend, served: Gateway
) -> None:
    event_id = left(client)
    other = served.client("raw")
    other.initialize()
    with back(other, event_id) as plain, back(client, event_id) as again:
        plain.until(b": open\n\n")
        again.until(b": open\n\n")
        backend.state.release.set()
        again.until(b'"id":7,')
        assert b'"id":7,' not in plain.arrived()


def cancelled(client: Client, call: Open) -> tuple[bytes, bytes]:
    """Cancel the call by its id; the head and the body that its client has of it in all."""
    notification = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    assert client.post(notification, Mcp_Session_Id=str(client.session)).status_code == 202
    head, _, body = call.rest().partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18"])
def test_a_call_that_is_cancelled_gets_no_answer_and_breaks_no_connection(
    served: Gateway, backend: RawBackend, revision: str
) -> None:
    """SDKs give up the whole session for an answer that ends before it has begun."""
    client, calls = served.client("raw"), len(backend.state.calls("hang"))
    client.initialize(revision)
    with opened(client, call_of("hang")) as call:
        until(lambda: len(backend.state.calls("hang")) > calls)
        head, body = cancelled(client, call)
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 202 Accepted", b"")


def test_a_stream_whose_call_is_cancelled_ends_without_an_answer(client: Client) -> None:
    with opened(client, call_of("hang")) as call:
        call.until(b"data:\n\n")
        _, body = cancelled(client, call)
    assert body.endswith(b"data:\n\n\r\n0\r\n\r\n")


def test_a_client_of_an_older_revision_cancels_by_hanging_up(served: Gateway, backend: RawBackend) -> None:
    hung_up, calls = backend.state.hung_up, len(backend.state.calls("hang"))
    older = served.client("raw")
    older.initialize("2025-06-18")
    with opened(older, call_of("hang")):
        until(lambda: len(backend.state.calls("hang")) > calls)
    until(lambda: backend.state.hung_up == hung_up + 1)


def test_a_fast_call_is_answered_in_json(client: Client) -> None:
    reply = client.legacy("tools/call", {"name": "raw__verbatim", "arguments": {}})
    assert reply.headers["content-type"] == "application/json"
    assert json.loads(reply.content)["result"]["content"]
