"""docs/start-compose.md as something to run."""

from __future__ import annotations

import re
import subprocess

from machine import ROOT, Machine, left

DOCUMENT = ROOT / "docs" / "start-compose.md"
DOCKER = """docker() {
    [ "$1" = compose ] || return 1
    shift
    case $1 in
        build) ;;                                                  # done before, with the indexes of this machine
        up) podman-compose up --detach --no-build ;;               # podman 4.3 cannot wait: the test does
        *) podman-compose "$@" ;;
    esac
}
"""


def commands() -> list[str]:
    """The blocks of commands, in order."""
    return re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def shell(machine: Machine, script: str) -> str:
    """What these commands print, with podman in place of docker."""
    done = subprocess.run(
        ["bash", "-eu", "-c", DOCKER + script],
        cwd=ROOT,
        env=machine.environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=left(),
    )
    if done.returncode:
        raise AssertionError(f"exit {done.returncode}: {script}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
