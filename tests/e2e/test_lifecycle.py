"""How the process starts, or says why not; how it ends, without losing a call or leaving anything behind."""

import base64
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.stores.audit_reader import verify

from .harness import KEYS, NO_TLS, ROOT, Client, Gateway, free_port, until
from .servers.raw_http import RawBackend
from .test_backend_faults import STDIO
from .wire import alive, at_once, calling, command_of, descendants, metric, opened, total

Start = Callable[..., Gateway]
REQUESTS = "mcp_gateway_requests_total"
ROUTES = """
routes:
  - {{name: raw, backend: {{url: "{url}"}}, scopes: [all], timeout: 60s}}
"""
WITH_STDIO = ROUTES + '  - {{name: local, backend: {{command: [python, "{stdio}"]}}, scopes: [all]}}\n'


def _outcomes(served: Gateway, tool: str) -> list[str]:
    return [it["outcome"] for it in served.records() if it["event"] == "outcome" and it["tool"] == tool]


def _good(served: Gateway) -> bool:
    report = verify(served.audit, (base64.b64decode(KEYS),))
    return report.ok and not report.open_intents


# How it ends


def test_sigterm_lets_running_calls_end_and_tells_streams(gateway: Start, raw: RawBackend) -> None:
    served = gateway(WITH_STDIO.format(url=raw.url, stdio=STDIO), GATEWAY_DRAIN_DELAY_SECONDS="1")
    client, legacy = served.client("all"), served.client("all")
    legacy.initialize()
    assert served.process is not None
    children = descendants(served.process.pid)
    assert children
    with calling(client, "raw__wait") as call, opened(legacy, b"", "GET") as stream:
        stream.until(b": open\n\n")
        until(lambda: raw.state.running == 1)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: served.get("/readyz").status_code == 503)
        assert "draining" in served.get("/readyz").text
        assert served.get("/healthz").status_code == 200
        assert client.call("raw__verbatim").status_code == 200  # still served while load balancers learn of it
        until(lambda: served.get("/healthz").status_code == 599)
        assert b"\n: the stream ends here\n" in stream.rest()
        assert served.process.poll() is None
        raw.state.release.set()
        assert call.answer()["result"]["content"]
    assert served.process.wait(10) == 0
    assert _outcomes(served, "raw__wait") == ["ok"]
    assert _good(served)
    until(lambda: not [pid for pid in children if alive(pid)])
    assert "Traceback" not in served.log


def test_a_second_sigterm_ends_at_once_and_the_calls_that_it_cut_are_on_record(gateway: Start, raw: RawBackend) -> None:
    served = gateway(ROUTES.format(url=raw.url), GATEWAY_DRAIN_SECONDS="60", GATEWAY_DRAIN_DELAY_SECONDS="60")
    assert served.process is not None
    with calling(served.client("all"), "raw__hang") as call:
        until(lambda: raw.state.running == 1)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: served.get("/readyz").status_code == 503)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(10) == 0
        assert call.rest() == b""  # no status: one would say that nothing was executed
    assert _outcomes(served, "raw__hang") == ["aborted"]
    assert _good(served)
    until(lambda: raw.state.hung_up == 1)


def test_a_call_that_outlives_the_drain_is_cut_and_on_record(gateway: Start, raw: RawBackend) -> None:
    served = gateway(ROUTES.format(url=raw.url), GATEWAY_DRAIN_SECONDS="1")
    with calling(served.client("all"), "raw__hang"):
        until(lambda: raw.state.running == 1)
        assert served.stop() == 0
    assert _outcomes(served, "raw__hang") == ["aborted"]
    assert _good(served)


def test_a_killed_gateway_leaves_no_stdio_backend_behind(gateway: Start, raw: RawBackend) -> None:
    served = gateway(WITH_STDIO.format(url=raw.url, stdio=STDIO))
    assert served.process is not None
    children = descendants(served.process.pid)
    assert any(STDIO.name in command_of(pid) for pid in children)
    served.process.kill()
    served.process.wait()
    until(lambda: not [pid for pid in children if alive(pid)])


# Several workers


def test_two_workers_share_limits_sessions_and_metrics_and_are_replaced(
    gateway: Start, raw: RawBackend, valkey_server: str
) -> None:
    routes = ROUTES.format(url=raw.url).replace(
        "scopes: [all]", "scopes: [all], limits: [{name: w, per: principal, limit: 30, window: 1h}]"
    )
    served = gateway(routes, GATEWAY_WORKERS="2", GATEWAY_REDIS_URL=valkey_server)
    assert served.process is not None
    workers = _workers(served)
    assert len(workers) == 2
    client = served.client("all", subject=os.urandom(8).hex())
    replies = at_once([functools.partial(client.call, "raw__verbatim") for _ in range(40)])
    refused = sum(reply.json()["result"].get("isError", False) for reply in replies)
    assert refused == 10
    scrapes: list[str] = []

    def summed() -> bool:
        """Whichever worker answers, it has counted for both; what the other counted comes within a second."""
        scrapes[:] = [served.get("/metrics").text for _ in range(12)]
        wanted = {("ok", 30.0), ("rate_limited", 10.0)}
        return all(
            {(o, total(it, REQUESTS, method="tools/call", outcome=o)) for o, _ in wanted} == wanted for it in scrapes
        )

    until(summed)
    assert {total(it, "mcp_gateway_build_info") for it in scrapes} <= {1.0}
    assert metric(served, "mcp_gateway_request_duration_seconds_count", method="tools/call", route="raw") == 40
    client.initialize()
    assert {client.legacy("ping").status_code for _ in range(12)} == {200}
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: len(_workers(served)) == 2 and workers[0] not in _workers(served))
    until(lambda: served.get("/readyz").status_code == 200)
    assert metric(served, REQUESTS, method="tools/call", outcome="ok") == 30
    _survives_a_worker_that_cannot_start(served, routes)
    ended = served.client("all", subject=os.urandom(8).hex())
    ended.initialize()
    assert ended.session is not None
    headers = ended.headers(**{"Mcp-Session-Id": ended.session})
    assert ended.send("DELETE", ended.url, headers=headers).status_code == 204
    assert {ended.legacy("ping").status_code for _ in range(12)} == {404}
    both = _workers(served)
    served.write(routes.replace("raw,", "renamed,"))
    until(lambda: all("renamed__verbatim" in client.tools() for _ in range(8)))
    assert served.stop() == 0
    assert not [pid for pid in both if alive(pid)]
    records = [it for it in served.records() if it["tool"] == "raw__verbatim" and it["event"] != "intent"]
    assert len(records) == 40
    assert verify(served.audit, (base64.b64decode(KEYS),)).problems == ()


def _survives_a_worker_that_cannot_start(served: Gateway, routes: str) -> None:
    until(lambda: [len(list(Path(f"/proc/{pid}/task").iterdir())) > 1 for pid in _workers(served)] == [True, True])
    served.write("routes: 5\n")
    until(lambda: served.log.count("routes not reloaded") >= 2)  # both have read their routes before
    os.kill(_workers(served)[0], signal.SIGKILL)
    until(lambda: served.log.count("routes.yaml:") >= 4)  # the replacement says why it does not start, then again
    assert served.client("all").modern("server/discover").status_code == 200
    assert metric(served, REQUESTS, method="tools/call", outcome="ok") == 30
    served.write(routes)
    until(lambda: served.get("/metrics").text.count("mcp_gateway_config_last_reload_successful 1.0") == 1)
    until(lambda: len(_workers(served)) == 2)
    assert "Traceback" not in served.log


def _workers(served: Gateway) -> list[int]:
    assert served.process is not None
    return sorted(pid for pid in descendants(served.process.pid) if alive(pid) and "serve" in command_of(pid))


# How it starts


def test_operations_move_to_a_port_of_their_own(gateway: Start, raw: RawBackend) -> None:
    port = free_port()
    served = gateway(ROUTES.format(url=raw.url), ready=False, GATEWAY_OPS_PORT=str(port))

    def ask(path: str) -> int:
        try:
            return httpx2.get(f"http://127.0.0.1:{port}{path}", trust_env=False, verify=NO_TLS).status_code
        except httpx2.TransportError:
            return 599

    until(lambda: ask("/readyz") == 200, 30)
    assert [ask(path) for path in ("/healthz", "/metrics")] == [200, 200]
    assert [ask(path) for path in ("/mcp", "/.well-known/oauth-protected-resource/mcp")] == [404, 404]
    assert [served.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [404] * 3
    assert served.get("/.well-known/oauth-protected-resource/mcp").status_code == 200
    assert served.client("all").call("raw__verbatim").status_code == 200
    assert served.stop() == 0


def _serve(folder: Path, routes: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A start that must fail: its exit code and what it says."""
    (folder / "routes.yaml").write_text(routes)
    return subprocess.run(
        [sys.executable, "-m", "gateway", "serve"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "GATEWAY_CONFIG": str(folder / "routes.yaml"),
            "GATEWAY_AUDIT": f"file:{folder / 'audit.jsonl'}",
            "GATEWAY_PORT": "0",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


OPEN = 'routes: [{name: raw, backend: {url: "http://127.0.0.1:9"}, scopes: []}]\n'


@pytest.mark.parametrize(
    ("routes", "environ", "words"),
    [
        (OPEN, {"GATEWAY_HOST": "0.0.0.0"}, ["auth", "0.0.0.0", "hint"]),
        ("routes: [{name: 5}, {nam: x}]\n", {}, ["routes.yaml:1", "routes[0]", "routes[1]"]),
        (OPEN, {"GATEWAY_WORKERS": "2", "GATEWAY_PROT": "1"}, ["GATEWAY_REDIS_URL", "GATEWAY_KEYS", "GATEWAY_PORT?"]),
        (
            OPEN,
            {
                "GATEWAY_REDIS_URL": "redis://h?no_such=1",
                "GATEWAY_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            },
            ["GATEWAY_REDIS_URL", "no_such", "docs/scaling.md"],
        ),
    ],
    ids=["no auth on a public address", "broken routes", "broken environment", "broken Redis URL"],
)
def test_what_cannot_be_served_is_refused_with_every_reason(
    tmp_path: Path, routes: str, environ: dict[str, str], words: list[str]
) -> None:
    ended = _serve(tmp_path, routes, **environ)
    assert ended.returncode == 2
    for word in words:
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_said_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = _serve(tmp_path, OPEN, GATEWAY_PORT=str(port))
    assert (ended.returncode, len(ended.stderr.strip().splitlines()[-1:])) == (2, 1)
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


class _Open(Gateway):
    """A gateway without ``auth``."""

    def write(self, routes: str) -> None:
        self.config.write_text(routes)


def test_without_auth_it_serves_this_machine_alone_and_says_so_loudly(tmp_path: Path, raw: RawBackend) -> None:
    served = _Open(tmp_path, OPEN.replace("http://127.0.0.1:9", raw.url))
    served.start()
    try:
        nobody = Client(served.url, None)
        assert nobody.call("raw__verbatim").status_code == 200
        assert "NO AUTHENTICATION" in served.log
        assert served.get("/.well-known/oauth-protected-resource/mcp").status_code == 404
        assert nobody.post(b"{}", Host="rebinding.example").status_code == 421
    finally:
        assert served.stop() == 0
    (record,) = [it for it in served.records() if it["event"] == "outcome"]
    assert record["outcome"] == "ok"


def test_an_issuers_key_file_that_goes_missing_on_reload_changes_nothing(gateway: Start, raw: RawBackend) -> None:
    served = gateway(ROUTES.format(url=raw.url))
    client: Any = served.client("all")
    good = served.config.read_text()
    served.config.write_text(good.replace("jwks.json", "no-such-file.json"))
    until(lambda: metric(served, "mcp_gateway_config_last_reload_successful") == 0)
    assert client.call("raw__verbatim").status_code == 200
    served.config.write_text(good.replace("[all]", "[more]"))
    until(lambda: metric(served, "mcp_gateway_config_last_reload_successful") == 1)
    until(lambda: served.client("more").tools())
