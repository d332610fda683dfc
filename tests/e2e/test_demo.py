"""The first thing that anybody tries: one command, a token, a call; and nothing is left when it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import ROOT, Client, until
from .wire import alive, descendants


class Demo:
    """The command in a folder of its own, which is a Git repository because one of its servers needs one."""

    def __init__(self, folder: Path, *options: str) -> None:
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True, timeout=30)
        self.folder = folder
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "demo", *options],
            cwd=folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "GATEWAY_CONFIG": str(ROOT / "config" / "routes.yaml"),
            "COLUMNS": "100",
        }

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.said += line

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._reader.join(10)
        return code

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Another command of ours in the same folder."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *command],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("demo"), "--port", "0")
    try:
        until(lambda: "Ctrl-C" in running.said or running.process.poll() is not None, 60)
        assert running.process.poll() is None, running.said
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def _block(demo: Demo, start: str) -> str:
    """What stands between this heading and the next empty line."""
    return demo.said.split(start)[1].partition("\n")[2].lstrip("\n").partition("\n\n")[0]


def _url(demo: Demo) -> str:
    found = re.search(r"http://127\.0\.0\.1:([1-9]\d*)/mcp", demo.said)
    assert found is not None
    return found[0]


def test_it_says_url_and_what_of_each_backend_was_reached(demo: Demo) -> None:
    assert _url(demo)
    for name in ("deploy", "time", "git"):
        assert re.search(rf"^ +{name} +\d+ tools$", demo.said, re.MULTILINE), demo.said


def test_its_token_lists_and_calls_the_tools_of_all_servers(demo: Demo) -> None:
    client = Client(_url(demo), _block(demo, "Token").strip())
    prefixes = {name.partition("__")[0] for name in client.tools()}
    assert prefixes == {"deploy", "time", "git"}
    for name, arguments in {
        "deploy__list_services": {},
        "time__get_current_time": {"timezone": "UTC"},
        "git__git_status": {"repo_path": "."},
    }.items():
        result = client.call(name, arguments).json()["result"]
        assert not result.get("isError"), result


def test_its_curl_works_as_printed(demo: Demo) -> None:
    command = _block(demo, "Try it:").strip()
    assert command.startswith("curl ")
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    answer = json.loads(ran.stdout)
    assert "checkout" in answer["result"]["content"][0]["text"]


def test_its_client_configuration_is_json_with_url_and_token(demo: Demo) -> None:
    text = demo.said.split("Client configuration:")[1]
    configuration: Any
    configuration, _ = json.JSONDecoder().raw_decode(text.lstrip())
    server = configuration["mcpServers"]["gateway"]
    assert (server["type"], server["url"]) == ("http", _url(demo))
    assert server["headers"]["Authorization"] == "Bearer " + _block(demo, "Token").strip()


def test_the_commands_that_it_names_work_beside_it(demo: Demo) -> None:
    listed = demo.run("tools", "--scopes", "deploy:read time:read", "--json")
    assert listed.returncode == 0, listed.stderr
    names = [tool["name"] for tool in json.loads(listed.stdout)]
    assert "deploy__list_services" in names
    assert "deploy__rollback" not in names
    called = demo.run("call", "deploy__list_services", "--scopes", "deploy:read")
    assert called.returncode == 0, called.stderr
    assert "checkout" in called.stdout
    refused = demo.run("call", "deploy__rollback", "{}", "--scopes", "deploy:read")
    assert refused.returncode == 1
    assert "deploy:write" in refused.stderr
    lock = demo.run("lock", "--check", "--json")
    assert lock.returncode == 1, lock.stderr
    assert json.loads(lock.stdout)["unreached"] == []
    verified = demo.run("audit", "verify", "var/demo/audit.jsonl")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_without_a_token_the_commands_say_how_to_give_one(demo: Demo) -> None:
    listed = demo.run("tools")
    assert listed.returncode == 1
    assert "Give --token or MCP_GATEWAY_TOKEN, or --scopes beside the demo." in listed.stderr
    explained = demo.run("explain")
    assert explained.returncode == 2
    assert "mcp-gateway token --scopes" in explained.stderr
    nothing = demo.run("tools", "--scopes", "")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "mcp-gateway explain says why" in nothing.stderr


def test_a_refusal_is_said_to_people_in_words(demo: Demo) -> None:
    called = demo.run("call", "deploy__rollback", "{}", "--scopes", "deploy:write")
    assert (called.returncode, called.stdout) == (1, "")
    error, hint = called.stderr.splitlines()
    assert error.startswith("The arguments do not fit the input schema of deploy__rollback: ")
    assert hint == "Correct the arguments and call again."
    told = demo.run("call", "deploy__rollback", "{}", "--scopes", "deploy:write", "--json")
    assert json.loads(json.loads(told.stdout)["content"][0]["text"])["code"] == "invalid_arguments"


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--token", "secret-a\nb"), 2, "was more copied than the token?"),
        (("--token", "x", "--url", "http://127.0.0.1:9/mcp"), 1, "cannot be reached at http://127.0.0.1:9/mcp"),
        (("--token", "x", "--url", "{root}/elsewhere"), 1, "/elsewhere: Not Found; the URL of a gateway ends in /mcp"),
    ],
)
def test_what_cannot_be_asked_is_said_with_the_next_step(
    demo: Demo, options: tuple[str, ...], code: int, word: str
) -> None:
    root = _url(demo).removesuffix("/mcp")
    done = demo.run("tools", *(option.format(root=root) for option in options))
    assert (done.returncode, done.stdout) == (code, "")
    assert word in done.stderr
    assert "secret" not in done.stderr


def test_the_audit_of_the_demo_is_shown_without_naming_it(demo: Demo) -> None:
    demo.run("call", "deploy__rollback", "--scopes", "deploy:read")
    shown = demo.run("audit", "tail", "--tool", "deploy__roll*", "--outcome", "insufficient_scope")
    assert shown.returncode == 0
    assert "routes.deploy.tools.rollback.scopes" in shown.stdout


def test_interrupt_ends_everything_that_it_started(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--port", "0")
    until(lambda: "Ctrl-C" in demo.said, 60)
    children = descendants(demo.process.pid)
    assert len(children) >= 3
    assert demo.interrupt() == 0
    until(lambda: not [pid for pid in children if alive(pid)])
    state = {path.name for path in (tmp_path / "var" / "demo").iterdir()}
    assert state == {"audit.jsonl", "audit.jsonl.head"}
    assert "Traceback" not in demo.said


def test_a_port_that_is_taken_is_said_and_the_demo_that_has_it_keeps_its_state(demo: Demo) -> None:
    port = _url(demo).split(":")[2].partition("/")[0]
    second = demo.run("demo", "--port", port)
    assert second.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr
    listed = demo.run("tools", "--scopes", "time:read", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {tool["name"] for tool in json.loads(listed.stdout)} == {"time__get_current_time", "time__convert_time"}
