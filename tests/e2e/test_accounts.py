"""Connecting an account: from a call that is answered with a link, through a browser, to the call that works."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
import mcp_types as types
import pytest
from mcp import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from .browser import URL, Browser, question
from .harness import NO_TLS, Client, Gateway, running, until

CALL = {"name": "a__who", "arguments": {}}


class Peer(BaseHTTPRequestHandler):
    """An authorization server that grants at once, and a modern backend that says who it sees."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/.well-known/oauth-authorization-server":
            self._say(
                {
                    "issuer": self.server.url,  # type: ignore[attr-defined]
                    "token_endpoint": f"{self.server.url}/token",  # type: ignore[attr-defined]
                    "authorization_endpoint": f"{self.server.url}/authorize",  # type: ignore[attr-defined]
                    "code_challenge_methods_supported": ["S256"],
                }
            )
        elif url.path == "/authorize":
            asked = {name: value for name, (value,) in parse_qs(url.query).items()}
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?code=granted&state={asked['state']}")
            self.end_headers()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            form = dict(parse_qsl(body.decode()))
            self.server.forms.append(form)  # type: ignore[attr-defined]
            number = len(self.server.forms)  # type: ignore[attr-defined]
            token = f"canary-access-{number}"
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
            self._say({**answer, "refresh_token": f"canary-refresh-{number}"})
            return
        request = json.loads(body)
        self.server.seen.append((self.headers["Authorization"], request))  # type: ignore[attr-defined]
        self._say({"jsonrpc": "2.0", "id": request["id"], "result": self._result(request["method"])})

    def _result(self, method: str) -> dict[str, Any]:
        if method == "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
        if method == "tools/list":
            return {"tools": [{"name": "who", "inputSchema": {"type": "object"}}], "resultType": "complete"}
        return {"content": [{"type": "text", "text": "hello"}], "resultType": "complete"}

    def _say(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def peer() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    server.forms, server.seen = [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def routes(peer: Any) -> str:
    client = f"{{issuer: '{peer.url}', client_id: gateway, client_secret: '${{CLIENT_SECRET}}'}}"
    backend = f"{{url: '{peer.url}/mcp', era: modern, credentials: {{authorization_code: {client}}}}}"
    return f"defaults: {{timeout: 5s}}\nroutes: [{{name: a, scopes: [], backend: {backend}}}]\n"


@pytest.fixture
def gateway(peer: Any, tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, routes(peer), CLIENT_SECRET="canary-secret") as one:
        until(lambda: "a__who" in one.client(subject="alice").modern("tools/list").text)
        yield one


def accepted(client: Client) -> httpx2.Response:
    given = {"mcp-gateway-connect": {"action": "accept"}}
    return client.modern("tools/call", {**CALL, "inputResponses": given}, URL)


def test_a_call_is_answered_with_a_link_and_works_once_the_account_is_connected(gateway: Gateway, peer: Any) -> None:
    alice = gateway.client(subject="alice")
    asked = question(alice.modern("tools/call", CALL, URL))
    assert asked["mode"] == "url"
    assert asked["url"].startswith("https://gateway.test/connect/")
    before = len(peer.seen)

    done = Browser(gateway).connect(asked["url"])

    assert done.status_code == 200, done.text
    assert "connected" in done.text
    assert "hello" in accepted(alice).text
    authorization, request = peer.seen[-1]
    assert len(peer.seen) == before + 1
    assert authorization == "Bearer canary-access-1"
    assert "inputResponses" not in request["params"]
    assert "hello" in alice.modern("tools/call", CALL).text
    records = [one for one in gateway.records() if one["method"] == "account/connect"]
    assert [(one["event"], one["route"]) for one in records] == [("intent", "a"), ("outcome", "a")]
    for secret in ("canary-access", "canary-refresh", "canary-secret", asked["url"].rpartition("/")[2]):
        assert secret not in gateway.log + gateway.audit.read_text()


def test_an_account_is_its_owners_alone(gateway: Gateway, peer: Any) -> None:
    alice, bob = gateway.client(subject="alice"), gateway.client(subject="bob")
    Browser(gateway).connect(question(alice.modern("tools/call", CALL, URL))["url"])
    assert "hello" in alice.modern("tools/call", CALL).text
    before = len(peer.seen)
    question(bob.modern("tools/call", CALL, URL))
    assert len(peer.seen) == before


def test_a_call_waits_for_the_account_that_its_owner_is_connecting(gateway: Gateway) -> None:
    alice = gateway.client(subject="alice")
    url = question(alice.modern("tools/call", CALL, URL))["url"]
    answers: list[httpx2.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(accepted(alice)))
    waiting.start()
    Browser(gateway).connect(url)
    waiting.join()
    assert "hello" in answers[0].text


def test_who_accepts_and_does_not_connect_is_asked_again_and_who_declines_is_told(gateway: Gateway) -> None:
    gateway.write(gateway.routes.replace("timeout: 5s", "timeout: 1s"))
    alice = gateway.client(subject="alice")
    question(alice.modern("tools/call", CALL, URL))
    question(accepted(alice))
    declined = {**CALL, "inputResponses": {"mcp-gateway-connect": {"action": "decline"}}}
    said = json.loads(alice.modern("tools/call", declined, URL).json()["result"]["content"][0]["text"])
    assert "declined" in said["hint"]
    assert said["dispatched"] is False


def test_a_client_that_opens_no_urls_is_told_what_to_do(gateway: Gateway) -> None:
    alice = gateway.client(subject="alice")
    said = json.loads(alice.modern("tools/call", CALL).json()["result"]["content"][0]["text"])
    assert (said["dispatched"], said["retryable"]) == (False, False)
    link = re.search(r"https://gateway\.test/connect/\S+", said["hint"])
    assert link is not None
    assert Browser(gateway).connect(link[0]).status_code == 200
    assert "hello" in alice.modern("tools/call", CALL).text


def test_a_link_that_was_sent_to_somebody_else_ends_in_another_browser_with_nothing(gateway: Gateway) -> None:
    alice = gateway.client(subject="alice")
    url = question(alice.modern("tools/call", CALL, URL))["url"]
    attacker, victim = Browser(gateway), Browser(gateway)
    granted = victim.send("GET", attacker.confirm(url))
    assert victim.send("GET", granted.headers["location"]).status_code == 403
    assert victim.send("POST", url, data={"form": "x"}).status_code == 403
    question(alice.modern("tools/call", CALL, URL))


def test_nothing_else_is_served_there(gateway: Gateway) -> None:
    for path in ("/connect", "/connect/", "/connect/x/y", "/connect/nothing", "/connect/callback"):
        assert gateway.get(path).status_code in (400, 404)


def test_grants_outlive_the_process_in_redis_and_are_shared(peer: Any, tmp_path: Path, valkey_url: str) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    options = {"CLIENT_SECRET": "s", "GATEWAY_REDIS_URL": valkey_url}
    with running(first, routes(peer), **options) as one:
        two = Gateway(second, routes(peer), options, one.issuer).start()
        try:
            here, there = (Client(each.url, one.token(subject="shared")) for each in (one, two))
            for client in (here, there):
                until(lambda client=client: "a__who" in client.modern("tools/list").text)
            url = question(here.modern("tools/call", CALL, URL))["url"]
            Browser(two).connect(url)
            assert "hello" in accepted(here).text
            assert "hello" in there.modern("tools/call", CALL).text
        finally:
            two.stop()


async def test_a_legacy_client_is_asked_on_the_stream_of_its_call(gateway: Gateway) -> None:
    asked: list[Any] = []

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params)
        done = await asyncio.to_thread(Browser(gateway).connect, params.url)
        return types.ElicitResult(action="accept" if done.status_code == 200 else "cancel")

    headers = {"Authorization": f"Bearer {gateway.token(subject='alice')}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, verify=NO_TLS, timeout=30) as http,
        SdkClient(
            streamable_http_client(gateway.url, http_client=http), mode="legacy", elicitation_callback=elicit
        ) as client,
    ):
        answer = await client.call_tool("a__who", {})
    assert asked[0].mode == "url"
    assert "hello" in str(answer.content)
