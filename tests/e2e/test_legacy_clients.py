"""Clients of 2025: initialize, a session id, batches, streams; and nothing of the modern era in what they get."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import LEGACY, MODERN, Client, Gateway, running, until
from .servers.raw_http import RawBackend
from .wire import opened

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
    tools: {{"not_*": {{hidden: {hidden}}}}}
"""
MODERN_MEMBERS = {"resultType", "ttlMs", "cacheScope"}


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("legacy"), ROUTES.format(url=backend.url, hidden="false")) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    client = served.client("raw")
    client.initialize()
    return client


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", LEGACY),
        ("1999-01-01", LEGACY),
        (MODERN, LEGACY),
    ],
)
def test_initialize_gives_the_revision_that_was_asked_for_or_the_latest_legacy_one(
    served: Gateway, asked: str, given: str
) -> None:
    client = served.client("raw")
    reply = client.initialize(asked)
    result = reply.json()["result"]
    assert (reply.status_code, result["protocolVersion"]) == (200, given)
    assert result["capabilities"]["tools"] == {"listChanged": True}
    assert result["serverInfo"]["name"] == "mcp-gateway"
    assert not MODERN_MEMBERS & result.keys()
    assert client.session is not None
    assert all("!" <= letter <= "~" for letter in client.session)
    reply = client.legacy("ping", MCP_Protocol_Version=given)
    assert (reply.status_code, reply.json()["result"]) == (200, {})


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 5}, {"protocolVersion": LEGACY, "capabilities": []}])
def test_initialize_of_the_wrong_shape_is_invalid_params(served: Gateway, params: dict[str, Any]) -> None:
    reply = served.client("raw").post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    assert reply.json()["error"]["code"] == -32602


def test_a_client_that_says_too_much_of_itself_gets_no_session_id_that_no_head_could_carry(served: Gateway) -> None:
    client = served.client("raw")
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "n" * 100_000}}
    reply = client.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, -32602)
    assert "mcp-session-id" not in reply.headers


def test_a_request_without_a_session_id_is_a_400_that_says_what_is_missing(served: Gateway) -> None:
    reply = served.client("raw").legacy("tools/list")
    assert reply.status_code == 400
    assert "Mcp-Session-Id" in reply.json()["error"]["message"]


def test_a_session_id_that_is_none_or_was_tampered_with_is_a_404(client: Client) -> None:
    real = client.session
    assert real is not None
    middle = len(real) // 2
    other = "A" if real[middle] != "A" else "B"
    for session in ("x", "0" * 64, real[:-1], real + "A", real[:middle] + other + real[middle + 1 :], real * 100):
        client.session = session
        assert client.legacy("ping").status_code == 404, session


def test_the_session_of_another_principal_is_a_404_and_stays_usable_for_its_owner(
    served: Gateway, client: Client
) -> None:
    thief = served.client("raw", subject="mallory")
    thief.session = client.session
    assert thief.legacy("tools/list").status_code == 404
    assert (
        thief.send("DELETE", thief.url, headers=thief.headers(**{"Mcp-Session-Id": client.session})).status_code == 404
    )
    assert client.legacy("ping").status_code == 200


def test_the_same_subject_of_a_new_token_keeps_its_session(served: Gateway, client: Client) -> None:
    client.token = served.token("raw other", jti="another")
    assert client.legacy("ping").status_code == 200


def test_after_delete_a_session_is_a_404(client: Client) -> None:
    assert client.session is not None
    headers = client.headers(**{"Mcp-Session-Id": client.session})
    assert client.send("DELETE", client.url, headers=headers).status_code in (200, 204)
    reply = client.legacy("ping")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, -32600)
    assert client.send("GET", client.url, headers=headers).status_code == 404


def test_notifications_and_posted_answers_are_accepted_without_a_body(client: Client) -> None:
    assert client.session is not None
    for message in (
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}},
        {"jsonrpc": "2.0", "id": 5, "result": {}},
        {"jsonrpc": "2.0", "id": 5, "error": {"code": 1, "message": "no"}},
    ):
        reply = client.post(message, Mcp_Session_Id=client.session)
        assert (reply.status_code, reply.content) == (202, b""), message


def test_a_version_header_of_no_session_is_a_400(client: Client) -> None:
    assert client.legacy("ping", MCP_Protocol_Version="2030-01-01").status_code == 400


def test_lists_and_results_have_nothing_of_the_modern_era(client: Client, backend: RawBackend) -> None:
    backend.state.answer = (
        b'{"content":[],"resultType":"complete","ttlMs":5,"cacheScope":"public",'
        b'"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"b","version":"1"},"vendor":1}}'
    )
    listed = client.legacy("tools/list").json()["result"]
    assert not MODERN_MEMBERS & listed.keys()
    assert "_meta" not in listed
    assert "raw__verbatim" in [tool["name"] for tool in listed["tools"]]
    called = client.legacy("tools/call", {"name": "raw__verbatim", "arguments": {}}).json()["result"]
    assert called == {"content": [], "_meta": {"vendor": 1}}


def test_a_refused_call_is_a_tool_result_that_a_legacy_client_can_read(client: Client, served: Gateway) -> None:
    result = client.legacy("tools/call", {"name": "raw__regional", "arguments": {}}).json()["result"]
    assert (result["isError"], "resultType" in result) == (True, False)
    assert json.loads(result["content"][0]["text"])["code"] == "invalid_arguments"


def test_an_expired_token_in_a_session_is_a_401(served: Gateway, client: Client) -> None:
    client.token = served.token("raw", exp=1)
    assert client.legacy("ping").status_code == 401


# Batches: mandatory at 2025-03-26, nowhere else.


def _batch(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"jsonrpc": "2.0", **message} for message in messages]


MIXED = _batch(
    {"id": 1, "method": "ping"},
    {"method": "notifications/initialized"},
    {"id": "two", "method": "tools/list"},
    {"id": 3, "method": "no/such"},
    {"id": 4, "method": "tools/call", "params": {"name": "raw__verbatim", "arguments": {}}},
    {"id": 5, "method": "initialize", "params": {"protocolVersion": LEGACY, "capabilities": {}}},
)


def test_a_batch_is_split_run_and_joined_at_its_revision(served: Gateway) -> None:
    client = served.client("raw")
    client.initialize("2025-03-26")
    assert client.session is not None
    reply = client.post(MIXED, Mcp_Session_Id=client.session)
    answers = {answer["id"]: answer for answer in reply.json()}
    assert (reply.status_code, len(reply.json())) == (200, 5)
    assert answers[1]["result"] == {}
    assert answers["two"]["result"]["tools"]
    assert answers[3]["error"]["code"] == -32601
    assert answers[4]["result"]["content"] is not None
    assert answers[5]["error"]["code"] == -32600


def test_a_batch_of_notifications_has_no_answer(served: Gateway) -> None:
    client = served.client("raw")
    client.initialize("2025-03-26")
    assert client.session is not None
    reply = client.post(_batch({"method": "notifications/initialized"}), Mcp_Session_Id=client.session)
    assert (reply.status_code, reply.content) == (202, b"")


def test_every_message_of_a_batch_is_on_record(served: Gateway) -> None:
    client = served.client("raw", subject="batcher")
    client.initialize("2025-03-26")
    assert client.session is not None
    request = client.post(MIXED, Mcp_Session_Id=client.session).headers["x-request-id"]

    def outcomes() -> list[str]:
        mine = [record for record in served.records() if record["request_id"].startswith(f"{request}.")]
        return sorted(record["outcome"] for record in mine if record["event"] != "intent")

    expected = sorted(["ok", "ok", "ok", "unknown_method", "ok", "invalid_request"])
    until(lambda: outcomes() == expected)


def test_a_cancellation_ends_no_request_of_a_batch_that_does_not_run(served: Gateway) -> None:
    client = served.client("raw")
    client.initialize("2025-03-26")
    assert client.session is not None
    cancelled = {"method": "notifications/cancelled", "params": {"requestId": 4}}
    reply = client.post(_batch(cancelled, *MIXED, cancelled), Mcp_Session_Id=client.session)
    assert [answer["id"] for answer in reply.json()] == [1, "two", 3, 4, 5]
    assert "result" in reply.json()[3]


def test_an_empty_batch_is_no_message(served: Gateway) -> None:
    client = served.client("raw")
    client.initialize("2025-03-26")
    assert client.session is not None
    assert client.post([], Mcp_Session_Id=client.session).json()["error"]["code"] == -32600


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
def test_a_batch_is_refused_at_other_revisions(served: Gateway, revision: str) -> None:
    client = served.client("raw")
    client.initialize(revision)
    assert client.session is not None
    reply = client.post(MIXED, Mcp_Session_Id=client.session)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, -32600)


def test_a_batch_is_refused_in_the_modern_era(served: Gateway) -> None:
    reply = served.client("raw").post(MIXED, MCP_Protocol_Version=MODERN)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, -32600)


# The stream of a session


def test_a_stream_needs_a_session_and_an_accept_header(client: Client) -> None:
    assert client.session is not None
    assert client.send("GET", client.url, headers=client.headers()).status_code == 405
    headers = client.headers(**{"Mcp-Session-Id": client.session, "Accept": "application/json"})
    assert client.send("GET", client.url, headers=headers).status_code == 406


def test_streams_and_slow_calls_open_at_once_or_in_15_seconds_and_are_kept_alive(
    client: Client, backend: RawBackend
) -> None:
    backend.state.release.clear()
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "raw__wait", "arguments": {}}}
    with opened(client, b"", "GET") as stream, opened(client, body) as slow:
        head = stream.until(b": open\n\n", 5).lower()
        assert b" 200 " in head.split(b"\r\n")[0]
        assert b"content-type: text/event-stream" in head
        assert b"x-accel-buffering: no" in head
        assert b"cache-control: no-store" in head
        stream.until(b": keep-alive\n\n", 20)
        assert (
            stream.received.count(b"list_changed") <= 1
        )  # nothing changes, so nothing is told, but what is told at first
        slow.until(b": open\n\n", 5)
        backend.state.release.set()
        slow.until(b'"id":1,', 5)


def test_a_reload_is_told_on_the_stream(backend: RawBackend, served: Gateway, client: Client) -> None:
    with opened(client, b"", "GET") as stream:
        stream.until(b": open\n\n")
        before = set(client.legacy("tools/list").text.split('"'))
        assert "raw__not_json" in before
        earlier = stream.arrived().count(b"list_changed")
        served.write(ROUTES.format(url=backend.url, hidden="true"))
        until(lambda: stream.arrived().count(b"list_changed") > earlier)
        until(lambda: "raw__not_json" not in client.legacy("tools/list").text)
        assert stream.received.rstrip().endswith(b'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
    served.write(ROUTES.format(url=backend.url, hidden="false"))
    until(lambda: "raw__not_json" in client.legacy("tools/list").text)


def test_a_stream_that_is_left_is_forgotten(client: Client, served: Gateway) -> None:
    from .wire import metric

    with opened(client, b"", "GET") as stream:
        stream.until(b": open\n\n")
        until(lambda: metric(served, "mcp_gateway_sessions", side="client") >= 1)
    until(lambda: metric(served, "mcp_gateway_sessions", side="client") == 0)
