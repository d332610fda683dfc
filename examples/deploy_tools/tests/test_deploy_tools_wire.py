"""Over the wire: the process as it is started, with a real SDK client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import RequestParamsMeta

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {"DEPLOY_TOOLS_LATENCY_MS": "0"}
STATUS = {"service": "checkout", "environment": "production"}
WAIT = 20.0
REVISIONS = {"auto": "2026-07-28", "legacy": "2025-11-25"}


def start(
    *arguments: str, cwd: Path = ROOT, module: str = "examples.deploy_tools", **env: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listening(process: subprocess.Popen[str]) -> int:
    """The port from the log, which comes before anything could be slow."""
    assert process.stderr
    for line in process.stderr:
        entry = json.loads(line)
        if entry["event"] == "listening":
            return int(entry["port"])
    raise AssertionError("it ended before it listened")


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=WAIT)


@pytest.fixture
def served() -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = start("--transport", "http", "--port", "0")
    try:
        yield process, f"http://127.0.0.1:{listening(process)}/mcp"
    finally:
        end(process)


async def deploy_and_roll_back(client: Client, mode: str) -> None:
    assert client.protocol_version == REVISIONS[mode]
    steps: list[float] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    arguments: dict[str, Any] = {**STATUS, "version": "9.0.0"}
    done = await client.call_tool("start_deploy", arguments, progress_callback=progress)
    assert (done.structured_content or {})["state"] == "succeeded"
    assert steps == sorted(steps)
    assert len(steps) > 1
    back = await client.call_tool("rollback", {**STATUS, "reason": "errors doubled"})
    assert (back.structured_content or {})["rolled_back_from"] == "9.0.0"
    assert (await client.call_tool("get_deploy_status", {**STATUS, "environment": "moon"})).is_error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_it_serves_streamable_http_in_both_eras(served: tuple[subprocess.Popen[str], str], mode: str) -> None:
    async with Client(served[1], mode=mode) as client:
        await deploy_and_roll_back(client, mode)


@pytest.mark.parametrize(
    ("module", "cwd", "mode"),
    [("examples.deploy_tools", ROOT, "auto"), ("deploy_tools", ROOT / "examples", "legacy")],
)
async def test_it_serves_stdio_in_both_eras_from_both_places(module: str, cwd: Path, mode: str) -> None:
    command = StdioServerParameters(command=sys.executable, args=["-m", module], env=ENVIRONMENT, cwd=cwd)
    async with Client(command, mode=mode) as client:
        await deploy_and_roll_back(client, mode)


async def test_an_outage_from_the_start_is_told() -> None:
    process = start("--transport", "http", "--port", "0", DEPLOY_TOOLS_OUTAGE="1")
    try:
        async with Client(f"http://127.0.0.1:{listening(process)}/mcp") as client:
            result = await client.call_tool("list_services", {})
            assert result.is_error
    finally:
        end(process)


async def test_logs_are_json_on_stderr_with_the_callers_request_id(served: tuple[subprocess.Popen[str], str]) -> None:
    process, url = served
    meta = cast(RequestParamsMeta, {"io.mcp-gateway/request-id": "r-42"})
    async with Client(url) as client:
        await client.call_tool("get_deploy_status", STATUS, meta=meta)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=WAIT)
    entries = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [entry["tool"] for entry in entries if entry.get("request_id") == "r-42"] == ["get_deploy_status"]


def test_sigterm_ends_http_with_0(served: tuple[subprocess.Popen[str], str]) -> None:
    process, url = served
    with httpx2.Client() as client:
        client.get(url.removesuffix("/mcp"))  # whatever the answer: it is up, and not just listening
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 0


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.mark.parametrize("how", ["SIGTERM", "end of input"])
def test_stdio_ends_with_0(how: str) -> None:
    process = start("--transport", "stdio")
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(INITIALIZE) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "deploy-tools"
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
            process.stdin = None
        assert process.wait(WAIT) == 0
    finally:
        end(process)


def test_a_bad_setting_is_an_error_at_start() -> None:
    process = start("--transport", "http", "--port", "0", DEPLOY_TOOLS_LATENCY_MS="-1")
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode != 0
    assert "latency_ms" in err
