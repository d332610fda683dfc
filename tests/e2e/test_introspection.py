"""Opaque tokens through a running gateway: what their issuer says decides, within the stated time."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner

from gateway.cli import app

from .harness import RESOURCE, Client, Gateway, running, until

TTL_SECONDS = 0.25


class Issuer:
    """An authorization server that knows opaque tokens. ``says`` maps each to its claims; ``status`` is its health."""

    def __init__(self) -> None:
        self.says: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.asked: list[str] = []
        self.credentials: set[str] = set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                issuer.asked += form["token"]
                issuer.credentials.add(self.headers["Authorization"])
                said = issuer.says.get(form["token"][0])
                body = json.dumps({"active": said is not None, **(said or {})}).encode()
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def issue(self, token: str, **changes: Any) -> str:
        claims = {"sub": "ada", "aud": RESOURCE, "scope": "deploy:read", "client_id": "cli", "exp": 4_000_000_000}
        self.says[token] = claims | changes
        return token

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    one = Issuer()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer, deploy_url: str) -> Iterator[Gateway]:
    asked = f"{{url: '{issuer.url}/introspect', client_id: gw, client_secret: '${{ASK_SECRET}}', ttl: 250ms}}"
    routes = f"""\
    - issuer: {issuer.url}
      introspection: {asked}
routes:
  - name: deploy
    backend: {{url: "{deploy_url}"}}
    scopes: [deploy:read]
"""
    folder: Path = tmp_path_factory.mktemp("introspecting")
    with running(folder, routes, ASK_SECRET="canary-secret") as one:
        yield one


def call(gateway: Gateway, token: str) -> Any:
    return Client(gateway.url, token).call("deploy__list_services")


def test_an_opaque_token_calls_and_is_on_record_as_its_issuer_said(gateway: Gateway, issuer: Issuer) -> None:
    reply = call(gateway, issuer.issue("opaque-canary-1"))
    assert reply.json()["result"].get("isError") in (None, False)
    who = {"issuer": issuer.url, "subject": "ada", "client_id": "cli"}
    until(lambda: who in [record["principal"] for record in gateway.records() if record["event"] == "outcome"])
    assert issuer.credentials == {"Basic " + base64.b64encode(b"gw:canary-secret").decode()}


def test_a_revoked_token_is_refused_within_ttl(gateway: Gateway, issuer: Issuer) -> None:
    token = issuer.issue("to-be-revoked")
    assert call(gateway, token).status_code == 200
    del issuer.says[token]
    refused = until(lambda: (reply := call(gateway, token)).status_code == 401 and reply, TTL_SECONDS + 2)
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert "revoked" in refused.json()["error"]["message"]


def test_one_answer_holds_for_many_calls(gateway: Gateway, issuer: Issuer) -> None:
    token = issuer.issue("asked-once")
    calls = 0
    while issuer.asked.count(token) < 2 and calls < 1000:
        assert call(gateway, token).status_code == 200
        calls += 1
    assert calls > 2


def test_an_issuer_that_is_away_is_a_503_and_no_refusal(gateway: Gateway, issuer: Issuer) -> None:
    token = issuer.issue("during-outage")
    issuer.status = 500
    try:
        reply = call(gateway, token)
        told = gateway.get("/readyz").json()
    finally:
        issuer.status = 200
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert "www-authenticate" not in reply.headers
    assert "try again" in reply.json()["error"]["message"]
    assert told["status"] == "ready"
    assert told["degraded"] == [f"introspection: {issuer.url} does not answer; its tokens are a 503"]
    assert call(gateway, token).status_code == 200
    assert gateway.get("/readyz").json()["degraded"] == []


@pytest.mark.parametrize(
    ("claims", "rule"),
    [
        ({"aud": "https://other.test"}, "auth.wrong_audience"),
        ({"iss": "https://other.test"}, "auth.unknown_issuer"),
        ({"exp": 1}, "auth.expired"),
    ],
)
def test_what_the_issuer_says_is_checked_like_a_token(
    gateway: Gateway, issuer: Issuer, claims: dict[str, Any], rule: str
) -> None:
    assert call(gateway, issuer.issue(f"bad-{rule}", **claims)).status_code == 401
    until(lambda: rule in {record["rule"] for record in gateway.records()})


def test_jwts_of_the_other_issuer_are_never_shown_to_this_one(gateway: Gateway, issuer: Issuer) -> None:
    good = gateway.token("deploy:read")
    assert call(gateway, good).status_code == 200
    assert call(gateway, good[:-4] + "AAAA").status_code == 401
    assert not [token for token in issuer.asked if token.startswith("eyJ")]


def test_neither_tokens_nor_the_secret_are_in_the_log_or_the_audit(gateway: Gateway, issuer: Issuer) -> None:
    call(gateway, issuer.issue("opaque-canary-2"))
    written = gateway.log + gateway.audit.read_text()
    assert "opaque-canary" not in written
    assert "canary-secret" not in written


def test_check_online_says_whether_the_issuer_answers(gateway: Gateway, issuer: Issuer) -> None:
    for status, detail, code in ((200, "introspection answers", 0), (401, "introspection does not answer", 1)):
        issuer.status = status
        try:
            command = ["check", str(gateway.config), "--online", "--json"]
            done = CliRunner().invoke(app, command, env=dict(gateway.environ))
        finally:
            issuer.status = 200
        finding = json.loads(done.stdout)["online"][issuer.url]
        assert (done.exit_code, finding["ok"]) == (code, code == 0)
        assert detail in finding["detail"]


def test_explain_says_who_an_opaque_token_is(gateway: Gateway, issuer: Issuer) -> None:
    token = issuer.issue("to-be-explained")
    command = ["explain", "deploy__list_services", "--config", str(gateway.config), "--json", "--token"]
    done = CliRunner().invoke(app, [*command, token], env=dict(gateway.environ))
    told = json.loads(done.stdout)
    assert (done.exit_code, told["token"]["subject"], told["tools"][0]["allowed"]) == (0, "ada", True)
    refused = CliRunner().invoke(app, [*command, "nobody-s"], env=dict(gateway.environ))
    assert (refused.exit_code, json.loads(refused.stdout)["token"]["refusal"]) == (1, "auth.inactive")
    offline = CliRunner().invoke(app, [*command, token, "--offline"], env=dict(gateway.environ))
    assert offline.exit_code == 2
    assert "only its issuer can say what it is" in offline.stderr
