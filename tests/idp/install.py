"""Keycloak from Maven Central and oidc-provider from npm, each below ``.venv-slow``."""

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests import install as shared
from tests.install import Missing

SLOW = shared.SLOW / "idp"
KEYCLOAK = "26.7.3"
PROVIDER = shared.ROOT / "examples" / "oidc-provider"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_JAVA = 21


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
        command = [maven, "-q", "-B", _COPY, artifact, f"-DoutputDirectory={shared.made(SLOW)}"]
        shared.run(command, f"Keycloak {KEYCLOAK} from Maven Central", SLOW)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(SLOW)
        archive.unlink()
        (folder / "bin" / "kc.sh").chmod(0o755)
        (folder / "complete").touch()
    return folder


def provider() -> tuple[Path, Path]:
    """Node.js and the example's ``server.mjs`` with its packages."""
    packages = shared.npm("idp/oidc-provider", PROVIDER)
    return shared.node(), Path(shutil.copy(PROVIDER / "server.mjs", packages))


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
