"""The gateway in front of the example server, as ``examples/keycloak`` has it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.harness import ROOT, Client, Gateway, free_port, until

from .issuers import RESOURCE, http

READ, WRITE = "deploy__list_services", "deploy__rollback"
ARGUMENTS = {READ: {}, WRITE: {"service": "checkout", "environment": "staging", "reason": "to see it"}}
SOON = "  leeway: 1s\n  jwks: {ttl: 2s, cooldown: 1s, stale: 1h}\n"
"""Keys are looked at often, so that what a change of them does is seen at once."""


class Behind(Gateway):
    """One whose ``auth:`` is its own."""

    def write(self, routes: str) -> None:
        self.config.write_text(routes)

    def call(self, token: str, tool: str = READ) -> Any:
        """The answer to one call."""
        return Client(self.url, token).call(tool, ARGUMENTS[tool])

    def takes(self, token: str, tool: str = READ) -> bool:
        """Whether the call was executed; what the tool makes of it is its own affair."""
        reply = self.call(token, tool)
        return reply.status_code == 200 and "dispatched" not in reply.text

    def reason(self, token: str) -> str:
        """Why a token is refused, as the audit says; records arrive a moment after the answer."""
        known = len(self._refused())
        assert self.call(token).status_code == 401
        return str(until(lambda: self._refused()[known:])[-1]["rule"])

    def _refused(self) -> list[dict[str, Any]]:
        return [record for record in self.records() if record["outcome"] == "unauthenticated"]


@contextmanager
def deploy_tools() -> Iterator[str]:
    """The example server over HTTP."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.deploy_tools", "--transport", "http", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "DEPLOY_TOOLS_LATENCY_MS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _listens(port), 30)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def gateway(folder: Path, auth: str, **environ: str) -> Iterator[Behind]:
    """Start it with this ``auth`` and the routes of ``examples/keycloak``."""
    routes = (ROOT / "examples/keycloak/routes.yaml").read_text().partition("\nroutes:")[2]
    folder.mkdir()
    one = Behind(folder, f"{auth}routes:{routes}", environ, port=int(RESOURCE.rsplit(":", 1)[1].partition("/")[0]))
    one.start()
    try:
        yield one
    finally:
        one.stop()


def shipped_auth() -> str:
    """``auth:`` of ``examples/keycloak/routes.yaml``."""
    return (ROOT / "examples/keycloak/routes.yaml").read_text().partition("\nroutes:")[0] + "\n"


def _listens(port: int) -> bool:
    try:
        http("GET", f"http://127.0.0.1:{port}/")
    except OSError:
        return False
    except Exception:  # noqa: BLE001 - a connection that is refused, in the words of the client
        return False
    return True
