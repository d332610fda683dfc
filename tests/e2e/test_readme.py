"""What the README tells a newcomer to type does what it says beside it, as written but for the port."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .harness import NO_TLS, ROOT, free_port, until

README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN, CALL, LOOK, OWN = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[:4]


@dataclass(frozen=True)
class Checkout:
    """The files of this one in a folder of their own, with what is installed already and nothing that ran before."""

    folder: Path
    port: int

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_DRAIN_DELAY_SECONDS": "0",
            "COLUMNS": "200",
        }

    def sh(self, script: str) -> "subprocess.CompletedProcess[str]":
        script = script.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def said(self) -> str:
        """What runs has printed."""
        return self._said.read_text()

    @property
    def _said(self) -> Path:
        return self.folder / f"said-{self.port}.txt"

    @contextmanager
    def running(self, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
        with self._said.open("wb") as said:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            until(lambda: self._ready(process), 60)
            yield process
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(20)

    def _ready(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, self.said
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            return httpx2.get(url, trust_env=False, verify=NO_TLS).status_code == 200
        except httpx2.TransportError:
            return False


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "config", "examples", "gateway"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True, timeout=30)
    return Checkout(folder, free_port())


@pytest.fixture(scope="module")
def demo(checkout: Checkout) -> Iterator[Checkout]:
    command = [*shlex.split(RUN), f"PORT={checkout.port}", "--old-file=install"]
    with checkout.running(*command):
        until(lambda: "Ctrl-C" in checkout.said)
        yield checkout


def test_the_first_call_is_answered(demo: Checkout) -> None:
    called = demo.sh(CALL)
    assert called.returncode == 0, called.stderr
    answer = json.loads(called.stdout)
    assert "checkout" in answer["result"]["content"][0]["text"], answer


def test_each_command_that_follows_does_what_stands_beside_it(demo: Checkout) -> None:
    token = CALL.splitlines()[0]
    tools, call, explain, verify = LOOK.splitlines()

    listed = demo.sh(tools)
    assert (listed.returncode, len(set(re.findall(r"deploy__\w+", listed.stdout)))) == (0, 2), listed.stderr
    all_four = demo.sh(tools.replace("deploy:read", "'deploy:read deploy:write'"))
    assert len(set(re.findall(r"deploy__\w+", all_four.stdout))) == 4
    refused = demo.sh(call)
    assert (refused.returncode, "deploy:write" in refused.stderr) == (1, True), refused.stderr
    explained = demo.sh(f"{token}\n{explain}")
    assert re.search(r"config/routes\.yaml:\d+", explained.stdout), explained.stdout + explained.stderr
    verified = demo.sh(verify)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_client_configuration_is_the_demos(demo: Checkout) -> None:
    (text,) = re.findall(r"^```json\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    written: Any = json.loads(text)
    said = demo.said.split("Client configuration:")[1].lstrip()
    printed, _end = json.JSONDecoder().raw_decode(said)
    server = printed["mcpServers"]["gateway"]
    server["headers"]["Authorization"] = "Bearer TOKEN"
    server["url"] = server["url"].replace(str(demo.port), "8080")
    assert written == printed


def test_the_shipped_routes_are_good_and_served(checkout: Checkout) -> None:
    check, serve = (line.partition("#")[0].strip() for line in OWN.splitlines())
    alone = Checkout(checkout.folder, free_port())
    checked = alone.sh(check)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with alone.running(*shlex.split(serve)):
        pass
