"""Drives the demo with clients of other SDKs, none of them changed: what each lists, calls and is told when refused.

    python tests/clients/run.py                  all clients, about a minute and a half
    python tests/clients/run.py inspector mcp-1  those whose name has one of these words

A client passes when it lists the tools of all three servers, calls one of each, hands its caller the seconds of a
rate limit and the scope that its token lacks, and does all of that in the era that is expected of it: clients fall
back to the old era in silence, so a broken modern path would look like a working slow one.

Exit codes: 0 passed, 1 not, 2 something is missing (0 with OPTIONAL=1).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.clients.demo import LIMIT, Demo, demo
from tests.clients.install import HERE, SLOW, Missing, Places, install

CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("deploy", "deploy__list_services", {}),
    ("time", "time__get_current_time", {"timezone": "UTC"}),
    ("git", "git__git_status", {"repo_path": "."}),
)
LIMITED = ("limit", "deploy__get_deploy_status", {"service": "checkout", "environment": "production"})
FORBIDDEN = ("scope", "deploy__rollback", {**LIMITED[2], "reason": "to see a refusal"})
STEPS = (*CALLS, LIMITED, FORBIDDEN)
SERVERS = {"deploy", "time", "git"}
CLIENT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ClientUnderTest:
    """One client. ``runtime`` names what of ``Places`` it needs, ``era`` is what it opens with and keeps to.

    ``scope`` is what its caller can read of a missing scope: the 1.x Python SDK shows the status alone, and the
    Inspector calls nothing that is not listed.
    """

    name: str
    runtime: str
    driver: tuple[str, ...]
    era: str
    scope: str = "deploy:write"


CLIENTS = (
    ClientUnderTest("typescript-sdk-1.32", "node", ("typescript.mjs", "sdk"), "legacy"),
    ClientUnderTest("typescript-client-2.3", "node", ("typescript.mjs", "client"), "legacy"),
    ClientUnderTest("typescript-client-2.3-auto", "node", ("typescript.mjs", "client", "auto"), "modern"),
    ClientUnderTest("inspector-2.12", "node", ("inspector", "legacy"), "legacy", scope="tool_not_found"),
    ClientUnderTest("inspector-2.12-auto", "node", ("inspector", "auto"), "modern", scope="tool_not_found"),
    ClientUnderTest("python-mcp-1.30", "mcp1", ("python_mcp1.py", "sdk"), "legacy", scope="403"),
    ClientUnderTest("langchain-0.3", "mcp1", ("python_mcp1.py", "langchain"), "legacy", scope="403"),
    ClientUnderTest("openai-agents-0.24", "mcp2", ("python_mcp2.py", "openai-agents"), "modern"),
    ClientUnderTest("pydantic-ai-2.68", "mcp2", ("python_mcp2.py", "pydantic-ai"), "modern"),
)

Said = dict[str, tuple[bool, Any]]
"""By step: whether it was an error, and what the caller could read."""


def main(words: list[str]) -> int:
    """Run the chosen clients and print the table."""
    chosen = [client for client in CLIENTS if not words or any(word in client.name for word in words)]
    places = install()
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, demo(Path(folder)) as running:
        results = {client.name: _judge(client, places, running) for client in chosen}
    sys.stdout.write(_table(chosen, results))
    missing = {str(problem) for result in results.values() if isinstance(problem := result, Missing)}
    sys.stdout.writelines(f"missing: {line}\n" for line in sorted(missing))
    if any(isinstance(result, list) and result for result in results.values()):
        return 1
    return 2 if missing and os.environ.get("OPTIONAL") != "1" else 0


def _judge(client: ClientUnderTest, places: Places, running: Demo) -> list[str] | Missing:
    """What is wrong with how the client fared."""
    runtime = getattr(places, client.runtime)
    if isinstance(runtime, Missing):
        return runtime
    running.spend(client.name, *LIMITED[1:], times=LIMIT)
    environ = {
        **os.environ,
        "HOME": str(running.state),
        "PATH": f"{runtime.parent}:{os.environ.get('PATH', os.defpath)}",
        "URL_OF_GATEWAY": running.about.url,
        "TOKEN": running.token(client.name),
        "STEPS": json.dumps(STEPS),
    }
    try:
        if client.driver[0] == "inspector":
            said = dict(_inspect(runtime, client.driver[1], environ))
        else:
            said = _drive(runtime, client.driver, environ)
    except subprocess.TimeoutExpired:
        return [f"hangs: not done after {CLIENT_SECONDS} s"]
    return [*_wrong(client, said), *_wrong_era(client, running)]


def _drive(runtime: Path, driver: tuple[str, ...], environ: dict[str, str]) -> Said:
    script = (SLOW / "npm" if driver[0].endswith(".mjs") else HERE / "drivers") / driver[0]
    ended = _run([str(runtime), str(script), *driver[1:]], environ)
    steps = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    said: Said = {step["step"]: (step.get("error", False), step["said"]) for step in steps}
    if ended.returncode:
        said["exit"] = (True, ended.stderr.strip()[-300:])
    return said


def _inspect(node: Path, era: str, environ: dict[str, str]) -> Iterator[tuple[str, tuple[bool, Any]]]:
    """The Inspector's command line, a process a step."""
    script = SLOW / "npm/node_modules/.bin/mcp-inspector"
    common = [str(node), str(script), "--cli", environ["URL_OF_GATEWAY"], "--transport", "http"]
    common += ["--header", f"Authorization: Bearer {environ['TOKEN']}", "--protocol-era", era]
    listed = _run([*common, "--method", "tools/list"], environ)
    if listed.returncode:
        yield "list", (True, listed.stderr[-300:])
        return
    yield "list", (False, [tool["name"] for tool in json.loads(listed.stdout)["tools"]])
    for step, tool, arguments in STEPS:
        command = [*common, "--method", "tools/call", "--tool-name", tool]
        for name, value in arguments.items():
            command += ["--tool-arg", f"{name}={value}"]
        ended = _run(command, environ)
        yield step, (ended.returncode != 0, ended.stdout + ended.stderr)


def _run(command: list[str], environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS,
        check=False,
    )


def _wrong(client: ClientUnderTest, said: Said) -> list[str]:
    problems = []
    failed, names = said.get("list", (True, "nothing"))
    if failed or {name.partition("__")[0] for name in names} != SERVERS:
        problems.append(f"list: {names}")
    elif FORBIDDEN[1] in names:
        problems.append(f"list: {FORBIDDEN[1]} is shown to a token that may not call it")
    for step, *_ in CALLS:
        failed, text = said.get(step, (True, "not reached"))
        if failed:
            problems.append(f"{step}: {text}")
    for step, word in (("limit", "retry_after_seconds"), ("scope", client.scope)):
        failed, text = said.get(step, (False, "not reached"))
        if not failed or word not in str(text):
            problems.append(f"{step}: {word} is not told: {text}")
    if "exit" in said:
        problems.append(f"exit: {said['exit'][1]}")
    return [problem[:400] for problem in problems]


def _wrong_era(client: ClientUnderTest, running: Demo) -> list[str]:
    """The audit is asked what era each message was in; ``spend`` came before, in the modern one."""
    sent = running.eras(client.name)[LIMIT:]
    others = sorted({f"{method} in the {era} era" for method, era in sent if era != client.era})
    if not sent or others:
        return [f"era: expected {client.era} alone, seen {', '.join(others) or 'nothing'}"]
    return []


def _table(chosen: list[ClientUnderTest], results: dict[str, list[str] | Missing]) -> str:
    width = max(len(client.name) for client in chosen)
    lines = [f"{'client':<{width}}  era     verdict"]
    for client in chosen:
        result = results[client.name]
        verdict = "missing" if isinstance(result, Missing) else "FAILED" if result else "passed"
        lines.append(f"{client.name:<{width}}  {client.era:<6}  {verdict}")
        lines += [f"    {problem}" for problem in (result if isinstance(result, list) else ())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
