"""Tokens of the gateway and of its clients through the whole process: each goes where it belongs and nowhere else."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from .harness import running, until

SECRET = "canary-of-the-client-secret"


class Peer(BaseHTTPRequestHandler):
    """An authorization server at ``/token``, a modern backend everywhere else."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            form = dict(parse_qsl(body.decode()))
            self.server.forms.append(form)  # type: ignore[attr-defined]
            kind = "exchanged" if "subject_token" in form else "own"
            token = f"canary-{kind}-{len(self.server.forms)}"  # type: ignore[attr-defined]
            self._say({"access_token": token, "token_type": "Bearer", "expires_in": 300})
            return
        self.server.heads.append((str(self.headers), body.decode()))  # type: ignore[attr-defined]
        request = json.loads(body)
        self._say({"jsonrpc": "2.0", "id": request["id"], "result": self._result(request["method"])})

    def _result(self, method: str) -> dict[str, Any]:
        if method == "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
        if method == "tools/list":
            return {"tools": [{"name": "who", "inputSchema": {"type": "object"}}], "resultType": "complete"}
        authorization = self.headers["Authorization"]
        return {"content": [{"type": "text", "text": authorization[-6:]}], "resultType": "complete"}

    def _say(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "peer=1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def peer() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    server.forms, server.heads = [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def routes(peer: Any, kind: str) -> str:
    client = f"token_url: '{peer.url}/token', client_id: gateway, client_secret: '${{CLIENT_SECRET}}'"
    credentials = f"{{{kind}: {{{client}}}}}"
    backend = f"{{url: '{peer.url}/mcp', era: modern, credentials: {credentials}}}"
    return f"routes: [{{name: a, scopes: [], backend: {backend}}}]\n"


def test_an_exchanged_token_is_all_that_a_backend_sees_and_nobody_else_sees_it(peer: Any, tmp_path: Path) -> None:
    with running(tmp_path, routes(peer, "token_exchange"), CLIENT_SECRET=SECRET) as gateway:
        alice, bob = gateway.client(subject="alice"), gateway.client(subject="bob")
        until(lambda: "a__who" in alice.modern("tools/list").text)
        answers = [
            client.modern("tools/call", {"name": "a__who", "arguments": {}}, Cookie="mine=1", X_Forwarded_User="root")
            for client in (alice, bob, alice)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200], answers[0].text
        given = [form["subject_token"] for form in peer.forms if "subject_token" in form]
        assert given == [alice.token, bob.token]
        sent = "".join(head + body for head, body in peer.heads)
        for secret in (alice.token, bob.token, SECRET, "mine=1", "peer=1", "root"):
            assert secret not in sent
        calls = [head for head, body in peer.heads if '"tools/call"' in body]
        assert [head.count("Authorization: Bearer canary-exchanged-") for head in calls] == [1, 1, 1]
        lists = [head for head, body in peer.heads if '"tools/call"' not in body]
        assert all("Authorization: Bearer canary-own-" in head for head in lists)
        audit = gateway.audit.read_text()
        for secret in (alice.token, bob.token, SECRET, "canary-exchanged", "canary-own"):
            assert secret not in audit + gateway.log
            assert secret not in "".join(answer.text + str(answer.headers) for answer in answers)


def test_a_token_of_the_gateways_own_serves_everybody(peer: Any, tmp_path: Path) -> None:
    with running(tmp_path, routes(peer, "client_credentials"), CLIENT_SECRET=SECRET) as gateway:
        alice = gateway.client(subject="alice")
        until(lambda: "a__who" in alice.modern("tools/list").text)
        assert alice.modern("tools/call", {"name": "a__who", "arguments": {}}).status_code == 200
        assert [form["grant_type"] for form in peer.forms] == ["client_credentials"]
        assert alice.token not in "".join(head + body for head, body in peer.heads)


def test_a_reload_can_begin_to_exchange_tokens(peer: Any, tmp_path: Path) -> None:
    with running(tmp_path, routes(peer, "client_credentials"), CLIENT_SECRET=SECRET) as gateway:
        alice = gateway.client(subject="alice")
        until(lambda: "a__who" in alice.modern("tools/list").text)
        gateway.write(routes(peer, "token_exchange"))

        def exchanged() -> bool:
            alice.modern("tools/call", {"name": "a__who", "arguments": {}})
            return any(form.get("subject_token") == alice.token for form in peer.forms)

        until(exchanged)
