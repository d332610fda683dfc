"""The gateway as a process, a real issuer's key, and requests as clients write them."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from gateway.devtokens import DevIssuer

ROOT = Path(__file__).resolve().parents[2]
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
ISSUER = "https://issuer.test"
RESOURCE = "https://gateway.test/mcp"
KEYS = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Everything here is plain HTTP; loading the trusted authorities for each request would take 25 ms."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Any, seconds: float = 15.0) -> Any:
    """Poll until the condition holds; it fails with what it saw last."""
    deadline = time.monotonic() + seconds
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds} s; last seen: {seen!r}")
        time.sleep(0.02)


@dataclass
class Gateway:
    """One gateway process with its files in ``folder``."""

    folder: Path
    routes: str
    environ: Mapping[str, str] = field(default_factory=dict)
    issuer: DevIssuer = field(default_factory=lambda: DevIssuer.create(ISSUER))
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def config(self) -> Path:
        return self.folder / "routes.yaml"

    @property
    def audit(self) -> Path:
        return self.folder / "audit.jsonl"

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def token(self, scopes: str = "", subject: str = "alice", **claims: Any) -> str:
        return self.issuer.mint(subject, scopes.split(), claims.pop("aud", RESOURCE), **claims)

    def write(self, routes: str) -> None:
        (self.folder / "jwks.json").write_text(json.dumps(self.issuer.jwks()))
        auth = (
            f"auth:\n  resource: {RESOURCE}\n  issuers:\n"
            f"    - issuer: {ISSUER}\n      jwks_file: {self.folder / 'jwks.json'}\n"
        )
        partial = self.config.with_suffix(".new")
        partial.write_text(auth + routes)
        partial.replace(self.config)

    def start(self, *, ready: bool = True) -> "Gateway":
        self.write(self.routes)
        environ = {
            "PATH": os.environ["PATH"],
            "GATEWAY_CONFIG": str(self.config),
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_AUDIT": f"file:{self.audit}",
            "GATEWAY_KEYS": KEYS,
            "GATEWAY_DRAIN_DELAY_SECONDS": "0",
            "GATEWAY_DRAIN_SECONDS": "5",
            **self.environ,
        }
        with (self.folder / "gateway.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        if ready:
            until(self.is_ready, 30)
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        return self.get("/readyz").status_code == 200

    def get(self, path: str) -> httpx2.Response:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, verify=NO_TLS)
        except httpx2.TransportError:
            return httpx2.Response(599)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def records(self) -> list[dict[str, Any]]:
        """The audit so far."""
        lines = self.audit.read_bytes().splitlines() if self.audit.exists() else []
        return [json.loads(line) for line in lines]

    def client(self, scopes: str = "", **options: Any) -> "Client":
        return Client(self.url, self.token(scopes, **options))


@contextmanager
def running(folder: Path, routes: str, *, ready: bool = True, **environ: str) -> Iterator[Gateway]:
    gateway = Gateway(folder, routes, environ).start(ready=ready)
    try:
        yield gateway
    finally:
        gateway.stop()


class Client:
    """Raw requests of both eras; what real SDKs do is tested with the SDKs."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.token = token
        self.session: str | None = None
        self._id = 0

    def headers(self, **more: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers | more

    def send(
        self, method: str, url: str, content: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """One request on a connection of its own."""
        return httpx2.request(method, url, content=content, headers=headers, trust_env=False, verify=NO_TLS, timeout=30)

    def post(self, body: Any, **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", self.url, content, self.headers(**named))

    def modern(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        **headers: str,
    ) -> httpx2.Response:
        self._id += 1
        params = dict(params or {})
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            **(meta or {}),
        }
        routing = {"Mcp_Method": method, "MCP_Protocol_Version": MODERN}
        if "name" in params:
            routing["Mcp_Name"] = str(params["name"])
        body = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        return self.post(body, **(routing | headers))

    def call(self, name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> httpx2.Response:
        return self.modern("tools/call", {"name": name, "arguments": dict(arguments or {})}, **options)

    def tools(self) -> list[str]:
        return [tool["name"] for tool in self.modern("tools/list").json()["result"]["tools"]]

    def initialize(self, revision: str = LEGACY) -> httpx2.Response:
        params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        reply = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        self.session = reply.headers.get("mcp-session-id")
        return reply

    def legacy(self, method: str, params: Mapping[str, Any] | None = None, **headers: str) -> httpx2.Response:
        self._id += 1
        body = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": dict(params or {})}
        session = {"Mcp_Session_Id": self.session} if self.session else {}
        return self.post(body, **(session | headers))
