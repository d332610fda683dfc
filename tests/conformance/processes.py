"""The fixture servers and the gateway as processes: started on free ports, ended by their pid."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .install import ROOT, Missing

START_SECONDS = 30.0
KEYS = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="


def end_in_order(seconds: int) -> None:
    """Let SIGTERM, and the end of this many seconds, stop what was started instead of leaving it behind."""

    def terminated(*_: object) -> None:
        raise SystemExit(143)

    def late(*_: object) -> None:
        raise Missing(f"the run did not end within {seconds} s")

    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)


def last_words(text: str) -> str:
    """The last line that says something; frames and rulers do not."""
    said = (line.strip() for line in reversed(text.splitlines()) if any(map(str.isalnum, line)))
    return next(said, "it said nothing")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def fixture(folder: Path, era: str = "both") -> Iterator[str]:
    """A fixture server; its URL."""
    port = free_port()
    command = [sys.executable, "-m", "tests.conformance.server", "--port", str(port), "--era", era]
    log = folder / f"fixture-{era}-{port}.log"
    with _process(command, log) as process:
        _until_open(process, port, "the fixture server", log)
        yield f"http://127.0.0.1:{port}/mcp"


@contextmanager
def gateway(
    folder: Path, backends: Mapping[str, str], credentials: str = "", secrets: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """A gateway without authentication and limits; the URL at which each backend is exposed with its own names.

    A second backend, called ``beside``, is mounted with prefixed names where ``backends`` has it. ``credentials`` are
    shown to all of them; ``secrets`` are the variables that they refer to.
    """
    port = free_port()
    config = folder / "config/routes.yaml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(routes(backends, credentials))
    environ = {
        **(secrets or {}),
        "GATEWAY_CONFIG": str(config),
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_AUDIT": f"file:{folder / 'audit.jsonl'}",
        "GATEWAY_KEYS": KEYS,
        "GATEWAY_DRAIN_DELAY_SECONDS": "0",
        "GATEWAY_DRAIN_SECONDS": "1",
    }
    log = folder / "gateway.log"
    with _process([sys.executable, "-m", "gateway", "serve"], log, environ) as process:
        _until_open(process, port, "the gateway", log, "/readyz")
        yield {name: f"http://127.0.0.1:{port}/mcp/{name}" for name in backends if name != "beside"}


def routes(backends: Mapping[str, str], credentials: str = "") -> str:
    """routes.yaml: each backend public and, but for ``beside``, with a toolset of its own that leaves names alone."""
    lines = ["routes:"]
    for name, url in backends.items():
        shown = f", credentials: {credentials}" if credentials else ""
        lines += [f"  - name: {name}", f"    backend: {{url: '{url}'{shown}}}", "    scopes: []"]
    lines.append("toolsets:")
    lines += [f"  {name}: {{routes: [{name}], names: plain}}" for name in backends if name != "beside"]
    return "\n".join(lines) + "\n"


@contextmanager
def _process(
    command: list[str], log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_open(process: subprocess.Popen[bytes], port: int, what: str, log: Path, path: str | None = None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _open(port, path):
        if process.poll() is not None:
            raise Missing(
                f"{what} ended at its start with exit code {process.returncode}: {last_words(log.read_text())}"
            )
        if time.monotonic() > deadline:
            raise Missing(f"{what} was not ready within {START_SECONDS:.0f} s")
        time.sleep(0.05)


def _open(port: int, path: str | None) -> bool:
    if path is None:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
