"""Bad input gets a clear answer: its status, its code, and never a traceback, a hang or a 500."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .harness import MODERN, RESOURCE, Client, Gateway, running

ROUTES = """
routes:
  - name: deploy
    backend: {{url: "{url}"}}
    scopes: [deploy:read]
    tools:
      rollback: {{scopes: [deploy:write, deploy:admin]}}
      start_deploy: {{hidden: true}}
"""


@pytest.fixture(scope="module")
def served(deploy_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("refusals")
    with running(folder, ROUTES.format(url=deploy_url), GATEWAY_MAX_BODY_BYTES="65536") as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    return served.client("deploy:read")


def _error(reply: httpx2.Response) -> Any:
    body = reply.json()
    assert body["jsonrpc"] == "2.0"
    assert "Traceback" not in reply.text
    return body["error"]


def _message(method: str = "ping", **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, **more}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"nonsense", -32700),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":1e999}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"p\xff"}', -32700),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}', -32700),
        (b"[" * 3000 + b"]" * 3000, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 70 + b"1" + b"}" * 71, -32600),
        (b"5", -32600),
        (b"null", -32600),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % 10**400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32602),
    ],
)
def test_what_is_no_message_is_a_400_with_its_code(client: Client, body: bytes, code: int) -> None:
    reply = client.post(body)
    assert (reply.status_code, _error(reply)["code"]) == (400, code)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/jsonp"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"Accept": "text/html"}, 406),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_what_is_no_mcp_over_http_is_refused_by_its_status(
    client: Client, headers: dict[str, str], status: int
) -> None:
    reply = client.post(_message(), **headers)
    assert reply.status_code == status
    assert _error(reply)["message"]


def test_a_charset_in_the_media_type_is_fine(client: Client) -> None:
    reply = client.modern("server/discover", Content_Type="Application/JSON; charset=utf-8")
    assert reply.status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"])
def test_only_post_is_served_without_a_session(client: Client, method: str) -> None:
    reply = client.send(method, client.url, headers=client.headers())
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


def test_a_body_over_the_limit_is_a_413_behind_a_head_that_was_served_before(client: Client) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    body = json.dumps(_message("server/discover", params={"_meta": meta})).encode()
    headers = client.headers() | {"Mcp-Method": "server/discover", "MCP-Protocol-Version": MODERN}
    with httpx2.Client(trust_env=False, headers=headers) as kept:
        replies = [kept.post(client.url, content=body.ljust(size)) for size in (300, 400, 500, 65_536, 65_537)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 200, 413]
    assert _error(replies[-1])["code"] == -32600


def test_a_body_over_the_limit_is_a_413_by_its_announced_and_by_its_real_length(client: Client) -> None:
    large = json.dumps(_message(params={"x": "y" * 70_000})).encode()
    assert client.post(large).status_code == 413
    reply = client.send("POST", client.url, iter([large[:60_000], large[60_000:]]), client.headers())
    assert (reply.status_code, _error(reply)["code"]) == (413, -32600)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Mcp_Method": "tools/list"}, -32020),
        ({"Mcp_Method": "SERVER/DISCOVER"}, -32020),
        ({"MCP_Protocol_Version": "2025-11-25"}, -32020),
    ],
)
def test_headers_that_contradict_the_body_are_a_mismatch(client: Client, headers: dict[str, str], code: int) -> None:
    reply = client.modern("server/discover", **headers)
    assert (reply.status_code, _error(reply)["code"]) == (400, code)


def test_a_name_in_the_header_that_is_not_the_one_in_the_body_is_a_mismatch(client: Client, served: Gateway) -> None:
    reply = client.call("deploy__list_services", Mcp_Name="deploy__rollback")
    assert (reply.status_code, _error(reply)["code"]) == (400, -32020)


def test_a_missing_version_header_is_a_mismatch_and_no_session_error(client: Client) -> None:
    body = _message(params={"_meta": {"io.modelcontextprotocol/protocolVersion": MODERN}})
    reply = client.post(body, Mcp_Method="ping")
    assert _error(reply)["code"] in (-32020, -32602)
    complete = _message(
        params={
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        }
    )
    reply = client.post(complete, Mcp_Method="ping")
    assert (reply.status_code, _error(reply)["code"]) == (400, -32020)


def test_a_version_nobody_speaks_is_answered_with_those_that_are_served(client: Client) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    reply = client.modern("server/discover", meta=meta, MCP_Protocol_Version="2099-01-01")
    assert (reply.status_code, _error(reply)["code"]) == (400, -32022)
    assert _error(reply)["data"] == {"supported": [MODERN], "requested": "2099-01-01", "dispatched": False}


def test_an_unknown_method_is_a_404_in_the_modern_era_and_a_200_in_the_legacy_one(client: Client) -> None:
    reply = client.modern("no/such")
    assert (reply.status_code, _error(reply)["code"]) == (404, -32601)
    client.initialize()
    reply = client.legacy("no/such")
    assert (reply.status_code, _error(reply)["code"]) == (200, -32601)


def test_an_unknown_tool_is_a_protocol_error_at_200(client: Client) -> None:
    reply = client.call("deploy__nothing")
    assert (reply.status_code, _error(reply)["code"]) == (200, -32602)


def test_a_hidden_tool_is_like_none(client: Client) -> None:
    assert "deploy__start_deploy" not in client.tools()
    assert _error(client.call("deploy__start_deploy"))["code"] == -32602


@pytest.mark.parametrize("params", [{"name": 5}, {}, {"name": "deploy__list_services", "arguments": []}])
def test_a_call_of_the_wrong_shape_is_invalid_params(client: Client, params: dict[str, Any]) -> None:
    reply = client.modern("tools/call", params)
    assert _error(reply)["code"] in (-32602, -32020)


def test_bad_arguments_are_a_tool_result_that_names_every_violation(client: Client) -> None:
    reply = client.call("deploy__get_deploy_status", {"service": 5, "environment": "moon"})
    result = reply.json()["result"]
    said = json.loads(result["content"][0]["text"])
    assert (reply.status_code, result["isError"]) == (200, True)
    assert "structuredContent" not in result
    assert (said["code"], said["retryable"], said["dispatched"]) == ("invalid_arguments", False, False)
    assert {item["path"] for item in said["violations"]} == {"arguments.service", "arguments.environment"}
    assert result["_meta"]["io.mcp-gateway/refusal"] == said


def test_without_a_token_the_challenge_tells_where_and_for_what(served: Gateway) -> None:
    reply = Client(served.url, None).modern("tools/list")
    challenge = reply.headers["www-authenticate"]
    assert reply.status_code == 401
    assert "error=" not in challenge
    assert 'scope="deploy:admin deploy:read deploy:write"' in challenge
    assert _error(reply)["message"]
    metadata = served.get("/.well-known/oauth-protected-resource/mcp").json()
    assert metadata["resource"] == RESOURCE
    assert metadata["authorization_servers"] == ["https://issuer.test"]


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.", "Bearer"])
def test_a_token_that_is_none_is_a_401_that_says_so(served: Gateway, token: str) -> None:
    reply = Client(served.url, token).modern("server/discover")
    assert reply.status_code == 401
    assert _error(reply)["code"] == 401


def test_too_few_scopes_are_a_403_that_names_all_that_are_needed(client: Client) -> None:
    reply = client.call("deploy__rollback", {})
    challenge = reply.headers["www-authenticate"]
    assert reply.status_code == 403
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="deploy:admin deploy:write"' in challenge
    assert "deploy:admin" in _error(reply)["message"]
    assert "deploy:write" in _error(reply)["message"]


def test_lists_show_exactly_what_calls_allow(served: Gateway) -> None:
    assert served.client("deploy:read").tools() == ["deploy__get_deploy_status", "deploy__list_services"]
    assert served.client("deploy:write deploy:admin").tools() == ["deploy__rollback"]
    assert served.client("").tools() == []


def test_every_answer_has_a_request_id_and_it_is_in_the_audit(client: Client, served: Gateway) -> None:
    reply = client.call("deploy__nothing")
    request_id = reply.headers["x-request-id"]
    from .harness import until

    record = until(lambda: [it for it in served.records() if it["request_id"] == request_id])[0]
    assert (record["outcome"], record["method"], record["dispatched"]) == ("unknown_tool", "tools/call", False)


def test_a_cursor_that_was_never_given_out_is_invalid(client: Client) -> None:
    reply = client.modern("tools/list", {"cursor": "abc"})
    assert (reply.status_code, _error(reply)["code"]) == (200, -32602)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/redoc", "/mcp/", "/mcp/none", "/mcp/a/b", "/MCP", "//mcp", "/mcp%2f"]
)
def test_nothing_else_exists(served: Gateway, client: Client, path: str) -> None:
    base = served.url.removesuffix("/mcp")
    reply = client.send("POST", base + path, b"{}", client.headers())
    assert reply.status_code in (404, 405)
    assert "location" not in reply.headers


def _raw(port: int, data: bytes, *, wait: float = 10.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), wait) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def test_a_head_without_end_is_cut_with_a_431(served: Gateway) -> None:
    request = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: " + b"b" * 70_000
    assert b" 431 " in _raw(served.port, request).split(b"\r\n")[0]


def test_too_many_headers_are_a_431(served: Gateway) -> None:
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(200))
    request = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n" + lines + b"\r\n{}"
    assert b" 431 " in _raw(served.port, request).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "head",
    [
        b"Host: localhost\r\nHost: localhost\r\n",
        b"",
        b"Host: localhost\r\nContent-Type: application/json\r\nContent-Type: application/json\r\n",
        b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
    ],
)
def test_a_request_that_two_servers_would_read_differently_is_a_400(served: Gateway, head: bytes) -> None:
    request = b"POST /mcp HTTP/1.1\r\nConnection: close\r\n" + head + b"\r\n{}"
    assert b" 400 " in _raw(served.port, request).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST http://evil.example/mcp HTTP/1.1", b" 400 "),
        (b"POST http://localhost/mcp HTTP/1.1", b" 400 "),
        (b"POST /mcp HTTP/2.0", b" 400 "),
        (b"POST /mcp HTTP/0.9", b" 400 "),
        (b"POST /%6dcp HTTP/1.1", b" 404 "),
        (b"POST /mcp%2fplain HTTP/1.1", b" 404 "),
        (b"POST //mcp HTTP/1.1", b" 404 "),
    ],
)
def test_a_target_has_one_spelling_and_names_no_other_server(served: Gateway, line: bytes, status: bytes) -> None:
    request = line + b"\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    assert status in _raw(served.port, request).split(b"\r\n")[0]


def test_two_tokens_in_one_request_are_refused(served: Gateway, client: Client) -> None:
    body = json.dumps(_message()).encode()
    token = served.token("deploy:read").encode()
    request = (
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        + b"Authorization: Bearer %s\r\nAuthorization: Bearer %s\r\n" % (token, token)
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )
    assert b" 401 " in _raw(served.port, request).split(b"\r\n")[0]


def test_a_routing_header_that_comes_twice_is_a_mismatch(served: Gateway) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    body = json.dumps(_message("server/discover", params={"_meta": meta})).encode()
    request = (
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        + b"Authorization: Bearer %s\r\nMcp-Method: server/discover\r\nMcp-Method: server/discover\r\n"
        % served.token().encode()
        + b"MCP-Protocol-Version: 2026-07-28\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    received = _raw(served.port, request)
    assert b" 400 " in received.split(b"\r\n")[0]
    assert b"-32020" in received
