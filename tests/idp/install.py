"""Keycloak from Maven Central and oidc-provider from npm, each below ``.venv-slow``."""

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLOW = ROOT / ".venv-slow" / "idp"
KEYCLOAK = "26.7.3"
PROVIDER = ROOT / "examples" / "oidc-provider"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_JAVA = 21
_SECONDS = 240


class Missing(Exception):  # noqa: N818 - what it says is the word
    """A part that is not to be had; the message is one line that says why."""


def java() -> Path:
    """The home of a Java that Keycloak runs on: of ``JAVA_HOME``, of the path, or where Linux keeps them.

    Raises:
        Missing: there is none.
    """
    for home in _homes():
        found = re.search(r'version "(\d+)', _said([str(home / "bin/java"), "-version"]))
        if found and int(found[1]) >= _JAVA:
            return home
    raise Missing(f"Java {_JAVA} or newer for Keycloak (JAVA_HOME)")


def keycloak() -> Path:
    """The folder of an unpacked Keycloak."""
    folder = SLOW / f"keycloak-{KEYCLOAK}"
    if not (folder / "complete").exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise Missing("Maven (mvn), which fetches Keycloak")
        archive = SLOW / f"keycloak-quarkus-dist-{KEYCLOAK}.zip"
        artifact = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{KEYCLOAK}:zip"
        command = [maven, "-q", "-B", _COPY, artifact, f"-DoutputDirectory={_made(SLOW)}"]
        _run(command, f"Keycloak {KEYCLOAK} from Maven Central", SLOW)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(SLOW)
        archive.unlink()
        (folder / "bin" / "kc.sh").chmod(0o755)
        (folder / "complete").touch()
    return folder


def provider() -> tuple[Path, Path]:
    """Node.js and the example's ``server.mjs`` with its packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("Node.js 20 or newer with npm for oidc-provider")
    folder = _made(SLOW / "oidc-provider")
    done, wanted = folder / "installed", (PROVIDER / "package-lock.json").read_text()
    for name in ("package.json", "package-lock.json", "server.mjs"):
        shutil.copy(PROVIDER / name, folder)
    if not done.exists() or done.read_text() != wanted:
        _run([npm, "ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts"], "oidc-provider from npm", folder)
        done.write_text(wanted)
    return Path(node), folder / "server.mjs"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / ".venv-slow" / ".gitignore").write_text("*\n")
    return folder


def _homes() -> Iterator[Path]:
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"])
    if found := shutil.which("java"):
        yield Path(found).resolve().parents[1]
    yield from sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout + done.stderr


def _run(command: list[str], what: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"could not install {what}: {type(error).__name__}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise Missing(f"could not install {what}: {lines[-1]}")
