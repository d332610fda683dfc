"""The demo as a process, tokens of its issuer, and what its audit says."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from gateway.cli.tokens import DemoIssuer
from gateway.devtokens import DevIssuer

ROOT = Path(__file__).resolve().parents[2]
SCOPES = ("deploy:read", "time:read", "git:read")
MODERN = "2026-07-28"
STARTED_SECONDS = 60.0
LIMIT = 3
"""Calls an hour of ``deploy__get_deploy_status``: config/routes.yaml gives one back every two seconds, which is sooner
than some of these clients have started."""

_AS_SHIPPED, _SLOWER = "limit: 30, window: 60s", f"limit: {LIMIT}, window: 1h"


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that runs. ``state`` is its folder."""

    about: DemoIssuer
    state: Path

    def token(self, subject: str) -> str:
        """A token that may read everything and deploy nothing."""
        issuer = DevIssuer.create(self.about.issuer, Path(self.about.key))
        return issuer.mint(subject, SCOPES, self.about.audience, "clients-test")

    def spend(self, subject: str, tool: str, arguments: dict[str, Any], times: int) -> None:
        """Use up a limit of a subject before its client comes."""
        meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        headers = {
            "Authorization": f"Bearer {self.token(subject)}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        with httpx2.Client(headers=headers, trust_env=False, timeout=10) as http:
            for number in range(times):
                message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
                http.post(self.about.url, json=message).raise_for_status()

    def eras(self, subject: str) -> list[tuple[str, str]]:
        """Method and era of everything that a subject's client sent, in order, what was spent before it left out."""
        found = []
        for line in (self.state / "audit.jsonl").read_bytes().splitlines():
            record = json.loads(line)
            if record["event"] != "intent" and (record["principal"] or {}).get("subject") == subject:
                found.append((record["method"], record["era"]))
        return found


@contextmanager
def demo(folder: Path) -> Iterator[Demo]:
    """Start it in a folder that is a Git repository, because one of its servers needs one; end it with the block.

    Raises:
        RuntimeError: it did not start; the message is what it said.
    """
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True, timeout=30)
    said = folder / "demo.log"
    shipped = (ROOT / "config" / "routes.yaml").read_text()
    assert shipped.count(_AS_SHIPPED) == 1
    routes = folder / "config" / "routes.yaml"
    routes.parent.mkdir()
    routes.write_text(shipped.replace(_AS_SHIPPED, _SLOWER))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with said.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "demo", "--port", "0"],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        state = folder / "var" / "demo"
        _wait(process, said)
        about = DemoIssuer.load(state)
        assert about is not None
        yield Demo(DemoIssuer(about.issuer, about.audience, about.url, str(folder / about.key)), state)
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: "subprocess.Popen[bytes]", said: Path) -> None:
    deadline = time.monotonic() + STARTED_SECONDS
    while "Ctrl-C" not in said.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the demo did not start: {said.read_text()[-500:]}")
        time.sleep(0.1)
