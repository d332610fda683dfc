"""Servers and clients that know one era only, and a gateway between them. Run by run.py, which installs them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Gateway, running

HERE = Path(__file__).parent
collect_ignore_glob = [] if "BRIDGE_PYTHON" in os.environ else ["test_*.py"]

ROUTES = """
routes:
  - name: http
    backend: {{url: "http://127.0.0.1:{legacy}/mcp", era: legacy, url_elicitation: true}}
    scopes: [all]
  - name: sse
    backend: {{url: "http://127.0.0.1:{sse}/sse", url_elicitation: true}}
    scopes: [all]
  - name: stdio
    backend: {{command: ["{python}", "{servers}/legacy.py", stdio], era: legacy, url_elicitation: true}}
    scopes: [all]
  - name: typescript
    backend: {{command: ["{node}", "{packages}/node_modules/{everything}/dist/index.js", stdio], era: legacy}}
    scopes: [all]
  - name: modern
    backend: {{url: "http://127.0.0.1:{modern}/mcp", era: modern, url_elicitation: true}}
    scopes: [all]
toolsets:
  http: {{routes: [http], names: plain}}
  sse: {{routes: [sse], names: plain}}
  stdio: {{routes: [stdio], names: plain}}
  typescript: {{routes: [typescript], names: plain}}
  modern: {{routes: [modern], names: plain}}
"""


@contextmanager
def _server(interpreter: str, program: str, *arguments: str) -> Iterator[str]:
    process = subprocess.Popen(
        [interpreter, str(HERE / "servers" / program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, f"{program} did not start"
        yield port
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    python, node, packages = (os.environ[f"BRIDGE_{it}"] for it in ("PYTHON", "NODE", "PACKAGES"))
    with ExitStack() as stack:
        routes = ROUTES.format(
            legacy=stack.enter_context(_server(python, "legacy.py", "http")),
            sse=stack.enter_context(_server(python, "legacy.py", "sse")),
            modern=stack.enter_context(_server(sys.executable, "modern.py")),
            python=python,
            node=node,
            packages=packages,
            everything="@modelcontextprotocol/server-everything",
            servers=HERE / "servers",
        )
        yield stack.enter_context(running(tmp_path_factory.mktemp("bridge"), routes))


LegacyClient = Callable[..., dict[str, Any]]


@pytest.fixture(params=["python-1.x", "typescript-1.x"])
def legacy_client(request: pytest.FixtureRequest, served: Gateway) -> LegacyClient:
    """Does steps in one session with the modern backend; see drivers/legacy.py for what it takes and says."""
    packages = Path(os.environ["BRIDGE_PACKAGES"])
    command = [os.environ["BRIDGE_PYTHON"], str(HERE / "drivers/legacy.py")]
    if request.param == "typescript-1.x":
        shutil.copy(HERE / "drivers/legacy.mjs", packages)
        command = [os.environ["BRIDGE_NODE"], str(packages / "legacy.mjs")]

    def session(*steps: list[Any], able: bool = True) -> dict[str, Any]:
        environ = {
            **os.environ,
            "URL_OF_GATEWAY": f"{served.url}/modern",
            "TOKEN": served.token("all", subject=request.node.name),
            "ABLE": "1" if able else "0",
        }
        ended = subprocess.run(
            command,
            env=environ,
            input=json.dumps(steps),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        said: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return said

    return session
