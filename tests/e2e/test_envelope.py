"""The modern era on the wire: each request stands alone, whatever came before it or with it."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from gateway.errors import HEADER_MISMATCH

from .harness import MODERN, Client, Gateway, running
from .servers.raw_http import RawBackend
from .wire import ENVELOPE, calling, modern_call, opened, routing

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
"""
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("envelope"), ROUTES.format(url=backend.url)) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    return served.client("raw")


def test_each_request_on_a_connection_is_announced_with_its_own_capabilities(
    client: Client, backend: RawBackend
) -> None:
    declared: list[dict[str, Any]] = [{"sampling": {}}, {}, {"elicitation": {"form": {}}, "vendor/x": {"a": None}}]
    headers = client.headers(**{name.replace("_", "-"): value for name, value in routing("raw__verbatim").items()})
    connection = http.client.HTTPConnection("127.0.0.1", httpx2.URL(client.url).port or 0)
    for capabilities in declared:
        connection.request("POST", "/mcp", modern_call("raw__verbatim", **{CAPABILITIES: capabilities}), headers)
        assert connection.getresponse().read()
    connection.close()
    seen = [it.message["params"]["_meta"][CAPABILITIES] for it in backend.state.calls("verbatim")[-3:]]
    assert seen == declared


def _sent_at_once(sock: socket.socket, headers: dict[str, str], body: bytes) -> Any:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sock.sendall(f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, json.loads(response.read())


def test_a_request_is_held_against_its_headers_though_those_before_it_agreed_with_theirs(
    client: Client, backend: RawBackend
) -> None:
    headers = client.headers(**{name.replace("_", "-"): value for name, value in routing("raw__verbatim").items()})
    before = len(backend.state.calls("verbatim"))
    good = modern_call("raw__verbatim", {"n": 1})
    version = {"io.modelcontextprotocol/protocolVersion": "2025-11-25"}
    bad = [
        modern_call("raw__other"),
        modern_call("raw__verbatim", **version),
        good.replace(b"tools/call", b"tools/list"),
    ]
    with socket.create_connection(("127.0.0.1", httpx2.URL(client.url).port or 0), 20) as sock:
        for _ in range(3):
            status, answer = _sent_at_once(sock, headers, good)
            assert (status, answer["result"]["resultType"]) == (200, "complete")
            for body in bad:
                status, answer = _sent_at_once(sock, headers, body)
                assert (status, answer["error"]["code"]) == (400, HEADER_MISMATCH)
    assert len(backend.state.calls("verbatim")) == before + 3


def test_a_request_without_client_info_is_served(client: Client) -> None:
    assert "io.modelcontextprotocol/clientInfo" not in ENVELOPE
    reply = client.post(modern_call("raw__verbatim"), **routing("raw__verbatim"))
    assert (reply.status_code, reply.json()["result"]["resultType"]) == (200, "complete")


@pytest.mark.parametrize("session", ["none-of-ours", "a-real-one"])
def test_a_session_id_on_a_modern_request_is_ignored_and_none_is_given_out(client: Client, session: str) -> None:
    if session == "a-real-one":
        client.initialize()
        session = str(client.session)
    reply = client.modern("tools/list", Mcp_Session_Id=session)
    assert reply.status_code == 200
    assert "mcp-session-id" not in reply.headers


def test_a_modern_stream_has_no_event_ids_and_a_last_event_id_changes_nothing(client: Client) -> None:
    for last in ({}, {"Last_Event_ID": "0-1"}):
        body = modern_call("raw__steps", token="mine")
        with opened(client, body, **routing("raw__steps"), **last) as exchange:
            events = exchange.events()
            assert [event.get("method") for event in events] == ["notifications/progress"] * 3 + [None]
            assert b"\nid:" not in exchange.received
    with calling(client, "raw__verbatim") as call:
        assert "result" in call.answer()


@pytest.mark.parametrize("name", ["access_token", "token", "authorization"])
def test_a_token_in_the_query_is_none(served: Gateway, name: str) -> None:
    token = served.token("raw")
    nobody = Client(f"{served.url}?{name}={token}", None)
    reply = nobody.post(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ENVELOPE}},
        MCP_Protocol_Version=MODERN,
        Mcp_Method="tools/list",
    )
    assert reply.status_code == 401
    assert "error=" not in reply.headers["www-authenticate"]
    assert token not in json.dumps(served.records())
    assert token not in served.log
