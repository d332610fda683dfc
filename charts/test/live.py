"""A real gateway under load and a real Prometheus that scrapes it, for what only numbers can show."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30

ROUTES = """
limits:
  - {{name: everyone, per: principal, limit: 6000, window: 60s}}
routes:
  - name: deploy
    backend: {{url: "http://127.0.0.1:{backend}/mcp"}}
    scopes: []
    tools:
      get_deploy_status: {{limits: [{{name: polling, per: principal, limit: 5, window: 60s}}]}}
"""
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: mcp-gateway
    static_configs: [{{targets: ["127.0.0.1:{gateway}"], labels: {{namespace: test, pod: mcp-gateway-0}}}}]
"""
CALLS = (
    ("deploy__list_services", {}),
    ("deploy__get_deploy_status", {"service": "checkout", "environment": "production"}),
    ("deploy__get_deploy_status", {"service": 5}),
    ("deploy__none", {}),
)


@dataclass(frozen=True)
class Live:
    """Where both answer."""

    gateway: str
    prometheus: str


@contextmanager
def running(rules: Path) -> Iterator[Live]:
    """Start the example server, the gateway, calls without end, and Prometheus; end them all."""
    backend, gateway, prometheus = (_free_port() for _ in range(3))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "routes.yaml").write_text(ROUTES.format(backend=backend))
        (folder / "prometheus.yml").write_text(PROMETHEUS.format(rules=rules, gateway=gateway))
        python = sys.executable
        stack.enter_context(
            _process(folder, [python, "-m", "examples.deploy_tools", "--transport", "http", "--port", str(backend)])
        )
        _until_listening(backend)
        audit = folder / "audit" / "audit.jsonl"
        stack.enter_context(
            _process(
                folder,
                [python, "-m", "gateway", "serve"],
                GATEWAY_CONFIG=str(folder / "routes.yaml"),
                GATEWAY_PORT=str(gateway),
                GATEWAY_AUDIT=f"file:{audit}",
            )
        )
        _until_listening(gateway)
        live = Live(f"http://127.0.0.1:{gateway}", f"http://127.0.0.1:{prometheus}")
        stack.enter_context(_load(f"{live.gateway}/mcp"))
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{prometheus}",
        ]
        stack.enter_context(_process(folder, command))
        _until_listening(prometheus)
        yield live


@contextmanager
def _process(folder: Path, command: list[str], **environ: str) -> Iterator[None]:
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _load(url: str) -> Iterator[None]:
    stop = threading.Event()

    def call() -> None:
        while not stop.wait(0.02):
            for name, arguments in CALLS:
                _call(url, name, arguments)

    worker = threading.Thread(target=call)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


def _call(url: str, name: str, arguments: dict[str, object]) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": name, "arguments": arguments, "_meta": meta}
    request = urllib.request.Request(
        url,
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode(),
        {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": name,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
    except urllib.error.URLError:  # the gateway is starting or ending; what counts is what it counted
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"rules: nothing listens on port {port} after {START_SECONDS} s")
