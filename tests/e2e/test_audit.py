"""Every decision is on record, nothing secret is, and a log that was touched is found out."""

import base64
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import Report
from gateway.stores.audit_reader import verify

from .harness import KEYS, ROOT, Client, Gateway, running, until
from .servers.raw_http import RawBackend
from .wire import calling, metric

Start = Callable[..., Gateway]

ROUTES = """
audit_results: digest
routes:
  - name: raw
    backend: {{url: "{url}"}}
    scopes: [raw]
    redact: [arguments.deep.field, "arguments.list[*].*.field"]
    tools:
      error: {{scopes: [admin]}}
      steps: {{limits: [{{name: never, per: principal, limit: 1, window: 1h}}]}}
      hang: {{timeout: 1s}}
"""
CANARY = "canary-5e5b4c9f"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.fixture(scope="module")
def served(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("audit"), ROUTES.format(url=backend.url)) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> Client:
    return served.client("raw", subject=os.urandom(4).hex())


def _records(served: Gateway, request_id: str, count: int = 1) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        return [record for record in served.records() if record["request_id"] == request_id]

    until(lambda: len(found()) >= count)
    records = found()
    assert len(records) == count
    return records


def test_an_executed_call_has_an_intent_and_an_outcome(served: Gateway, client: Client) -> None:
    reply = client.call("raw__verbatim", {"a": 1})
    intent, outcome = _records(served, reply.headers["x-request-id"], 2)
    assert (intent["event"], outcome["event"], outcome["outcome"]) == ("intent", "outcome", "ok")
    assert (outcome["tool"], outcome["backend_tool"], outcome["route"]) == ("raw__verbatim", "verbatim", "raw")
    assert (outcome["era"], outcome["revision"], outcome["method"]) == ("modern", "2026-07-28", "tools/call")
    assert outcome["principal"]["issuer"] == "https://issuer.test"
    assert outcome["principal"]["client_id"] == "dev"
    assert (outcome["http_status"], outcome["dispatched"], outcome["rule"]) == (200, True, "routes.raw.scopes")
    assert outcome["scopes_needed"] == ["raw"]
    assert intent["arguments"] == {"a": 1}
    assert 0 < outcome["backend_ms"] <= outcome["duration_ms"]
    result = reply.content[reply.content.index(b'"result":') + 9 : -1]
    assert (intent["result_bytes"], outcome["result_bytes"]) == (None, len(result))
    said = _run("digest", "-", text=result)
    assert (said.returncode, said.stdout.strip()) == (0, outcome["result_digest"].encode())


@pytest.mark.parametrize(
    ("send", "status", "outcome", "rule"),
    [
        (lambda client: client.post(b"{"), 400, "invalid_request", "protocol.json"),
        (lambda client: client.post(b"{}", Content_Type="text/plain"), 415, "invalid_request", "guard.media_type"),
        (lambda client: client.post(b"{}", Origin="https://evil.example"), 403, "invalid_request", "guard.origin"),
        (lambda client: client.post(b"{}", Host="evil.example"), 421, "invalid_request", "guard.host"),
        (lambda client: client.post(b"{}", Accept="text/html"), 406, "invalid_request", "guard.accept"),
        (lambda client: client.post(b"{}", Content_Encoding="br"), 415, "invalid_request", "guard.content_encoding"),
        (lambda client: client.post(b" " * 2**22 + b"{}"), 413, "invalid_request", "guard.body_size"),
        (lambda client: client.post(b'{"a":1,"a":2}'), 400, "invalid_request", "protocol.duplicate_key"),
        (lambda client: client.post(b'{"a":1e999}'), 400, "invalid_request", "protocol.number_range"),
        (lambda client: client.post(b"[" * 65 + b"]" * 65), 400, "invalid_request", "protocol.depth"),
        (lambda client: client.post(b"{}"), 400, "invalid_request", "protocol.message"),
        (lambda client: client.post(PING | {"id": None}), 400, "invalid_request", "protocol.id"),
        (lambda client: client.post(PING | {"Method": "x"}), 400, "invalid_request", "protocol.lookalike_key"),
        (lambda client: client.post(PING | {"params": []}), 400, "invalid_request", "protocol.params"),
        (lambda client: client.post([PING]), 400, "invalid_request", "protocol.batch"),
        (lambda client: client.post(PING), 400, "invalid_request", "session.missing"),
        (lambda client: client.post(PING, Mcp_Session_Id="x"), 404, "invalid_request", "session.unknown"),
        (lambda client: client.modern("tools/list", {"cursor": "x"}), 200, "invalid_request", "protocol.cursor"),
        (
            lambda client: client.post(PING, MCP_Protocol_Version="1999-01-01"),
            400,
            "invalid_request",
            "protocol.version",
        ),
        (
            lambda client: client.modern("tools/call", {"name": "raw__verbatim", "arguments": {}, "requestState": "x"}),
            200,
            "invalid_request",
            "protocol.request_state",
        ),
        (lambda client: client.send("GET", client.url), 405, "invalid_request", "guard.method"),
        (
            lambda client: client.send("POST", client.url + "/none", b"{}", client.headers()),
            404,
            "invalid_request",
            "guard.toolset",
        ),
        (
            lambda client: Client(client.url, None).modern("server/discover"),
            401,
            "unauthenticated",
            "auth.missing_token",
        ),
        (
            lambda client: Client(client.url, "a.b.c").modern("server/discover"),
            401,
            "unauthenticated",
            "auth.malformed",
        ),
        (lambda client: client.call("raw__error"), 403, "insufficient_scope", "routes.raw.tools.error.scopes"),
        (lambda client: client.modern("no/such"), 404, "unknown_method", "protocol.method"),
        (lambda client: client.call("raw__none"), 200, "unknown_tool", "catalog"),
        (
            lambda client: client.call("raw__regional", {}, Mcp_Param_Region="x"),
            400,
            "invalid_request",
            "protocol.headers",
        ),
        (lambda client: client.modern("server/discover"), 200, "ok", ""),
        (lambda client: client.modern("tools/list"), 200, "ok", ""),
        (lambda client: client.initialize(), 200, "ok", ""),
        (
            lambda client: (client.call("raw__steps"), client.call("raw__steps"))[1],
            200,
            "rate_limited",
            "routes.raw.tools.steps.limits.never",
        ),
    ],
)
def test_everything_else_is_one_record(
    served: Gateway, client: Client, send: Callable[[Client], Any], status: int, outcome: str, rule: str
) -> None:
    reply = send(client)
    (record,) = _records(served, reply.headers["x-request-id"])
    assert (reply.status_code, record["http_status"]) == (status, status)
    assert (record["event"], record["outcome"], record["dispatched"]) == ("request", outcome, False)
    assert record["rule"] == rule
    assert record["client_address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("tool", "outcome"), [("raw__hang", "backend_timeout"), ("raw__not_json", "backend_unavailable")]
)
def test_a_call_that_failed_behind_us_says_that_it_may_have_been_executed(
    served: Gateway, client: Client, tool: str, outcome: str
) -> None:
    reply = client.call(tool)
    last = _records(served, reply.headers["x-request-id"], 2)[-1]
    assert (last["outcome"], last["dispatched"], last["http_status"]) == (outcome, True, 200)


def test_a_client_that_hangs_up_leaves_an_aborted_call_on_record(
    served: Gateway, client: Client, backend: RawBackend
) -> None:
    before = len(backend.state.calls("wait"))
    backend.state.release.clear()
    with calling(client, "raw__wait", {"who": CANARY}) as call:
        until(lambda: len(backend.state.calls("wait")) > before)
        call.hang_up()

    def aborted() -> list[dict[str, Any]]:
        return [record for record in served.records() if record["outcome"] == "aborted" and record["tool"]]

    (record,) = until(lambda: [it for it in aborted() if it["event"] == "outcome"])
    assert (record["tool"], record["dispatched"], record["http_status"]) == ("raw__wait", True, None)
    backend.state.release.set()


@pytest.mark.parametrize(
    ("sent", "status"), [(b"\x16\x03\x01 no HTTP\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000, 431)]
)
def test_what_is_no_request_at_all_is_on_record_too(served: Gateway, sent: bytes, status: int) -> None:
    def recorded() -> list[dict[str, Any]]:
        return [record for record in served.records() if record["http_status"] == status and record["method"] is None]

    before = len(recorded())
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(sent)
        assert f" {status} ".encode() in connection.recv(4096)
    until(lambda: len(recorded()) == before + 1)
    record = recorded()[-1]
    assert (record["event"], record["outcome"], record["client_address"]) == ("request", "invalid_request", "127.0.0.1")
    assert record["rule"]


def test_secrets_are_nowhere(served: Gateway, client: Client) -> None:
    secrets = {
        "password": CANARY + "-a",
        "deep": {"api_key": CANARY + "-b", "field": CANARY + "-c", "list": [{"client_secret": CANARY + "-d"}]},
        "bearer": client.token,
        "shown": "in the clear",
    }
    reply = client.call("raw__verbatim", secrets)
    client.call("raw__regional", secrets)
    Client(served.url, f"{client.token}x").call("raw__verbatim", secrets)
    records = _records(served, reply.headers["x-request-id"], 2)
    assert records[0]["arguments"]["shown"] == "in the clear"
    assert client.token is not None
    signature = client.token.rpartition(".")[2]
    for place in (served.audit.read_text(), served.log, served.get("/metrics").text):
        assert CANARY + "-" not in place
        assert signature not in place


def test_metrics_and_audit_tell_the_same(served: Gateway, client: Client) -> None:
    def both() -> bool:
        records = [it for it in served.records() if it["event"] != "intent" and it["outcome"] == "unknown_tool"]
        return len(records) == metric(served, "mcp_gateway_requests_total", outcome="unknown_tool") > 0

    client.call("raw__none")
    until(both)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_tool_that_says_it_failed_is_no_success(
    served: Gateway, client: Client, backend: RawBackend, era: str
) -> None:
    def counted(outcome: str) -> float:
        return metric(served, "mcp_gateway_requests_total", tool="raw__verbatim", era=era, outcome=outcome)

    usual, failed, succeeded = backend.state.answer, counted("tool_error"), counted("ok")
    backend.state.answer = b'{"content":[{"type":"text","text":"no"}],"isError":true,"resultType":"complete"}'
    try:
        if era == "legacy":
            client.initialize()
            reply = client.legacy("tools/call", {"name": "raw__verbatim", "arguments": {}})
        else:
            reply = client.call("raw__verbatim")
    finally:
        backend.state.answer = usual
    assert reply.json()["result"]["isError"] is True
    _intent, outcome = _records(served, reply.headers["x-request-id"], 2)
    assert (outcome["outcome"], outcome["http_status"], outcome["dispatched"]) == ("tool_error", 200, True)
    assert (counted("tool_error"), counted("ok")) == (failed + 1, succeeded)


def test_what_the_audit_has_the_log_does_not_repeat(served: Gateway, client: Client) -> None:
    before = served.log
    replies = [
        *(client.call("raw__verbatim") for _ in range(20)),
        client.call("raw__none"),
        client.call("raw__error"),
        client.post(b"{"),
        Client(served.url, None).call("raw__verbatim"),
    ]
    for reply in replies:
        _records(
            served, reply.headers["x-request-id"], 2 if reply.status_code == 200 and "result" in reply.json() else 1
        )
    assert served.log == before


# The log as evidence


def _verify(path: Path) -> Report:
    return verify(path, (base64.b64decode(KEYS),))


def _run(*arguments: str, text: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "audit", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "GATEWAY_KEYS": KEYS, **environ},
        input=text,
        capture_output=True,
        timeout=30,
        check=False,
    )


def _command(path: Path) -> tuple[int, dict[str, Any]]:
    done = _run("verify", str(path), "--json")
    return done.returncode, json.loads(done.stdout)


def _cut_byte(data: bytes) -> bytes:
    middle = data.index(b'"outcome":"ok"') + 12
    return data[:middle] + b"x" + data[middle + 1 :]


def _cut_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:3] + lines[4:])


def _swap(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([*lines[:2], lines[3], lines[2], *lines[4:]])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a gateway that has ended."""
    backend = RawBackend()
    with running(tmp_path_factory.mktemp("written"), ROUTES.format(url=backend.url)) as gateway:
        for _ in range(4):
            gateway.client("raw").call("raw__verbatim")
        Client(gateway.url, None).modern("server/discover")
    backend.stop()
    return gateway.audit


def _copy(written: Path, folder: Path) -> Path:
    for path in written.parent.glob("audit.jsonl*"):
        shutil.copy(path, folder)
    return folder / written.name


def test_the_command_finds_an_untouched_log_good_and_a_touched_one_not(written: Path, tmp_path: Path) -> None:
    path = _copy(written, tmp_path)
    code, report = _command(path)
    assert (code, report["problems"], report["records"], report["open_intents"]) == (0, [], 9, [])
    path.write_bytes(_cut_byte(path.read_bytes()))
    code, report = _command(path)
    assert code == 1
    assert report["problems"]


@pytest.mark.parametrize(
    "touch",
    [
        _cut_byte,
        _cut_line,
        _swap,
        lambda data: data[: data.rstrip(b"\n").rindex(b"\n") + 1],
        lambda data: data[: len(data) // 2],
        lambda data: data + data.splitlines(keepends=True)[-1],
        lambda data: b"",
    ],
    ids=["one byte", "a line", "order", "last line", "half", "a line twice", "everything"],
)
def test_a_touched_log_is_found_out(written: Path, tmp_path: Path, touch: Callable[[bytes], bytes]) -> None:
    path = _copy(written, tmp_path)
    path.write_bytes(touch(path.read_bytes()))
    report = _verify(path)
    assert not report.ok
    assert report.problems


def test_a_killed_gateways_log_is_good_and_names_the_calls_that_were_under_way(gateway: Start, raw: RawBackend) -> None:
    served = gateway(ROUTES.format(url=raw.url))
    client = served.client("raw")
    client.call("raw__verbatim")
    with calling(client, "raw__wait"):
        until(lambda: raw.state.running == 1)
        assert served.process is not None
        served.process.kill()
        served.process.wait()
    report = _verify(served.audit)
    assert (report.ok, len(report.open_intents)) == (True, 1)
    served.start()
    client.call("raw__verbatim")
    served.stop()
    report = _verify(served.audit)
    assert (report.ok, report.writers, len(report.open_intents)) == (True, 2, 1)
    raw.state.release.set()


def test_a_full_disk_means_that_nothing_is_executed_until_there_is_room_again(gateway: Start, raw: RawBackend) -> None:
    served = gateway(ROUTES.format(url=raw.url))
    client = served.client("raw")
    assert client.call("raw__verbatim").status_code == 200
    assert served.process is not None
    size = served.audit.stat().st_size
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    reply = client.call("raw__verbatim")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, 503)
    assert reply.headers["retry-after"]
    assert len(raw.state.calls("verbatim")) == 1
    ready = served.get("/readyz")
    assert ready.status_code == 503
    assert "audit" in ready.json()["problems"][0]
    assert served.get("/healthz").status_code == 200
    assert metric(served, "mcp_gateway_audit_events_total", sink="file", result="failed") > 0
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(served.is_ready)
    assert client.call("raw__verbatim").status_code == 200
    served.stop()
    assert _verify(served.audit).problems == ()


@pytest.fixture(scope="module")
def allowing(backend: RawBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("allowing")
    with running(folder, ROUTES.format(url=backend.url), GATEWAY_ON_AUDIT_FAILURE="allow") as gateway:
        yield gateway


def test_allow_goes_on_without_a_record_and_says_so_in_a_metric(allowing: Gateway, backend: RawBackend) -> None:
    client = allowing.client("raw")
    client.call("raw__verbatim")
    before = len(backend.state.calls("verbatim"))
    assert allowing.process is not None
    pid, unlimited = allowing.process.pid, resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (allowing.audit.stat().st_size, unlimited))
    assert client.call("raw__verbatim").status_code == 200
    assert len(backend.state.calls("verbatim")) == before + 1
    until(lambda: metric(allowing, "mcp_gateway_audit_events_total", sink="file", result="failed") > 0)
    assert allowing.get("/readyz").status_code == 200
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    reply = client.call("raw__verbatim")
    _records(allowing, reply.headers["x-request-id"], 2)


def test_a_log_that_was_moved_away_goes_on_in_a_new_file(allowing: Gateway) -> None:
    client = allowing.client("raw")
    _records(allowing, client.call("raw__verbatim").headers["x-request-id"], 2)
    moved = allowing.audit.rename(allowing.folder / "audit.1.jsonl")
    reply = client.call("raw__verbatim")
    _records(allowing, reply.headers["x-request-id"], 2)
    assert reply.headers["x-request-id"] not in moved.read_text()
    assert verify([moved, allowing.audit], (base64.b64decode(KEYS),)).problems == ()
