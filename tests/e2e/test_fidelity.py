"""What the gateway has no reason to change arrives as it was sent, byte for byte; what must not cross does not."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from .harness import LEGACY, MODERN, Client, Gateway, running
from .servers.raw_http import RawBackend, Seen
from .wire import ENVELOPE, modern_call, routing

ROUTES = """
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
toolsets:
  plain: {{routes: [raw], names: plain}}
"""
MEMBERS = [
    b'"content":[{"type":"text","text":"x","annotations":null,"later":{"a":[1,null]}}]',
    b'"structuredContent":{"a":1.0,"b":1e2,"c":-0.0,"d":1E-7,"e":12345678901234567890123456789,"f":0.10}',
    b'"structuredContent":{ "spaced" : [ 1 , 2 ] ,\t"tab" :\r\n "line" }',
    b'"unknownMember":{"nested":{"deep":[[[null]]]}},"anotherNull":null',
    '"text":"\\u0000 \\ud83d\\ude00 \U0001f600 \\u00e9 \u00e9 \\/ \u2028 \\u2028 \ufeff \ue000 \U0010ffff"'.encode(),
    b'"twice":1,"content":[],"order":2',
    b'"isError":false',
    b'"_meta":{"vendor/x":null,"n":1.0}',
]
NO_OBJECTS = [b'"structuredContent":null', b'"structuredContent":[1,"two", null]', b'"structuredContent":false']
ARGUMENTS = [
    b"{}",
    b'{"a":1.0,"b":1e2,"c":12345678901234567890123456789,"d":null,"e":-0}',
    b'{ "spaced" : [ 1 , 2 ] }',
    '{"text":"\\u00e9 \u00e9 \\ud83d\\ude00 \U0001f600 \\/ \u2028"}'.encode(),
    b'{"z":1,"a":2,"":3,"_meta":{"io.modelcontextprotocol/x":1}}',
]


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    backend.state.tools["arrays"] = {"inputSchema": {"type": "object"}, "outputSchema": {"type": "array"}}
    with running(tmp_path_factory.mktemp("fidelity"), ROUTES.format(url=backend.url)) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    return served.client("raw")


def _last(backend: RawBackend, tool: str = "verbatim") -> Seen:
    return backend.state.calls(tool)[-1]


@pytest.mark.parametrize(
    ("era", "member"), [*(("modern", it) for it in (*MEMBERS, *NO_OBJECTS)), *(("legacy", it) for it in MEMBERS)]
)
def test_a_result_arrives_as_the_bytes_of_a_direct_call(
    client: Client, backend: RawBackend, member: bytes, era: str
) -> None:
    backend.state.answer = b'{"first":0,' + member + b',"last":1,"resultType":"complete"}'
    if era == "modern":
        reply = client.call("raw__verbatim")
    else:
        client.initialize()
        reply = client.legacy("tools/call", {"name": "raw__verbatim", "arguments": {}})
    assert reply.status_code == 200
    name, _, value = member.partition(b":")
    if name == b'"_meta"':
        value = value.removesuffix(b"}")  # the gateway says who answers, after what the backend says
        name = b'"_meta"'
    assert name + b":" + value in reply.content
    assert json.loads(reply.content)["result"]["first"] == 0


@pytest.mark.parametrize("member", NO_OBJECTS)
def test_a_legacy_client_reads_structured_content_that_is_no_object_as_text(
    client: Client, backend: RawBackend, member: bytes
) -> None:
    backend.state.answer = b'{"content":[],' + member + b',"resultType":"complete"}'
    client.initialize()
    result = client.legacy("tools/call", {"name": "raw__verbatim", "arguments": {}}).json()["result"]
    assert result == {"content": [{"type": "text", "text": member.partition(b":")[2].decode()}]}


def test_a_legacy_list_has_no_output_schema_that_its_clients_refuse(client: Client) -> None:
    modern = {tool["name"]: tool for tool in client.modern("tools/list").json()["result"]["tools"]}
    client.initialize()
    legacy = {tool["name"]: tool for tool in client.legacy("tools/list").json()["result"]["tools"]}
    assert modern["raw__arrays"]["outputSchema"] == {"type": "array"}
    assert "outputSchema" not in legacy["raw__arrays"]
    assert modern.keys() == legacy.keys()


def test_a_backends_error_arrives_with_its_data(client: Client) -> None:
    reply = client.call("raw__error")
    assert (reply.status_code, reply.json()["error"]) == (
        200,
        {"code": -32042, "message": "no such é", "data": {"a": None, "n": 1.5, "big": 2**60}},
    )


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_arguments_reach_the_backend_as_the_bytes_that_were_sent(
    client: Client, backend: RawBackend, arguments: bytes, era: str
) -> None:
    params = b'"name":"raw__verbatim","arguments":' + arguments
    if era == "modern":
        params += b',"_meta":' + json.dumps(ENVELOPE).encode()
        headers = routing("raw__verbatim")
    else:
        client.initialize()
        assert client.session is not None
        headers = {"Mcp_Session_Id": client.session, "MCP_Protocol_Version": LEGACY}
    reply = client.post(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{' + params + b"}}", **headers)
    assert reply.status_code == 200
    assert b'"arguments":' + arguments in _last(backend).body


def test_unknown_params_of_a_call_reach_the_backend(client: Client, backend: RawBackend) -> None:
    client.modern("tools/call", {"name": "raw__verbatim", "arguments": {}, "future": {"x": None}})
    assert _last(backend).message["params"]["future"] == {"x": None}


def test_a_call_without_arguments_stays_one(client: Client, backend: RawBackend) -> None:
    client.modern("tools/call", {"name": "raw__verbatim"})
    assert "arguments" not in _last(backend).message["params"]


@pytest.mark.parametrize("request_id", [0, -5, 2**53 - 1, 10**30, "a", "", "é\u2028", '"quoted"'])
def test_the_clients_id_comes_back_and_the_backend_gets_one_of_ours(
    client: Client, backend: RawBackend, request_id: Any
) -> None:
    reply = client.post(modern_call("raw__verbatim", request_id=request_id), **routing("raw__verbatim"))
    if reply.status_code != 400:  # an id that JSON readers cannot keep exactly may be refused, never changed
        assert reply.json()["id"] == request_id
        assert type(reply.json()["id"]) is type(request_id)
        assert _last(backend).message["id"] != request_id
    else:
        assert request_id == 10**30


def test_the_backend_gets_its_own_name_and_the_client_sees_only_the_public_one(
    client: Client, backend: RawBackend
) -> None:
    client.call("raw__verbatim")
    seen = _last(backend)
    assert seen.headers["mcp-name"] == "verbatim"
    assert seen.headers["mcp-method"] == "tools/call"
    assert seen.headers["mcp-protocol-version"] == MODERN


def test_a_plain_toolset_changes_no_name(served: Gateway, backend: RawBackend) -> None:
    client = Client(served.url + "/plain", served.token("raw"))
    assert "verbatim" in client.tools()
    assert client.call("verbatim").status_code == 200
    assert json.loads(client.call("raw__verbatim").text)["error"]["code"] == -32602


def test_credentials_cookies_and_addresses_of_the_client_never_reach_a_backend(
    client: Client, backend: RawBackend
) -> None:
    client.call(
        "raw__verbatim",
        Cookie="session=canary-cookie",
        X_Forwarded_For="203.0.113.9",
        Proxy_Authorization="Basic canary-proxy",
        X_Api_Key="canary-key",
        Origin="http://localhost:3000",
        User_Agent="canary-agent",
    )
    seen = _last(backend)
    assert client.token is not None
    everything = json.dumps(seen.headers) + seen.body.decode()
    for secret in (client.token, "canary", "203.0.113.9", "Bearer"):
        assert secret not in everything
    assert not {"authorization", "cookie", "origin", "x-forwarded-for", "mcp-session-id"} & seen.headers.keys()


def test_headers_of_a_backend_never_reach_the_client(client: Client) -> None:
    reply = client.call("raw__verbatim")
    assert not {"set-cookie", "x-backend", "server"} & set(reply.headers)


def test_reserved_keys_of_meta_do_not_cross_and_all_others_do(client: Client, backend: RawBackend) -> None:
    meta = {
        "io.modelcontextprotocol/clientInfo": {"name": "real-client", "version": "1"},
        "io.modelcontextprotocol/future": "canary",
        "io.mcp-gateway/request-id": "canary",
        "io.mcp-gateway/principal": {"subject": "canary"},
        "com.example/mine": {"kept": None},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    client.call("raw__verbatim", meta=meta)
    got = _last(backend).message["params"]["_meta"]
    assert "canary" not in json.dumps(got)
    assert got["com.example/mine"] == {"kept": None}
    assert got["traceparent"].split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
    assert got["io.modelcontextprotocol/clientInfo"]["name"] == "mcp-gateway"


def test_a_backend_cannot_speak_in_the_gateways_name(client: Client, backend: RawBackend) -> None:
    backend.state.answer = (
        b'{"content":[],"_meta":{"io.mcp-gateway/refusal":{"code":"rate_limited"},'
        b'"io.modelcontextprotocol/serverInfo":{"name":"forged","version":"1"},"mine":1}}'
    )
    meta = client.call("raw__verbatim").json()["result"]["_meta"]
    assert meta["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-gateway"
    assert "io.mcp-gateway/refusal" not in meta
    assert meta["mine"] == 1


# Mirrored arguments (x-mcp-header)


def _regional(client: Client, arguments: dict[str, Any], **headers: str) -> httpx2.Response:
    return client.call("raw__regional", arguments, **headers)


def test_a_mirrored_argument_is_checked_and_rebuilt_for_the_backend(client: Client, backend: RawBackend) -> None:
    reply = _regional(client, {"region": "eu-west"}, Mcp_Param_Region="eu-west")
    assert reply.status_code == 200
    assert _last(backend, "regional").headers["mcp-param-region"] == "eu-west"


def test_a_mirrored_argument_outside_of_ascii_is_encoded_on_both_legs(client: Client, backend: RawBackend) -> None:
    encoded = "=?base64?w6nDqQ==?="
    reply = _regional(client, {"region": "éé"}, Mcp_Param_Region=encoded)
    assert reply.status_code == 200
    assert _last(backend, "regional").headers["mcp-param-region"] == encoded


@pytest.mark.parametrize("header", [None, "us-east", "EU-WEST", "=?base64?!!?="])
def test_a_mirrored_argument_that_differs_or_is_missing_is_a_mismatch(
    client: Client, backend: RawBackend, header: str | None
) -> None:
    before = len(backend.state.calls("regional"))
    reply = _regional(client, {"region": "eu-west"}, **({} if header is None else {"Mcp_Param_Region": header}))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, -32020)
    assert len(backend.state.calls("regional")) == before


def test_a_legacy_client_needs_no_mirrored_argument_and_the_backend_gets_it(
    client: Client, backend: RawBackend
) -> None:
    client.initialize()
    reply = client.legacy("tools/call", {"name": "raw__regional", "arguments": {"region": "eu-north"}})
    assert not reply.json()["result"].get("isError")
    assert _last(backend, "regional").headers["mcp-param-region"] == "eu-north"


def test_a_header_that_no_argument_asks_for_does_not_cross(client: Client, backend: RawBackend) -> None:
    client.call("raw__verbatim", Mcp_Param_Other="canary")
    assert "mcp-param-other" not in _last(backend).headers
