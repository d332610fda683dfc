"""The container tools of a Debian machine, with storage of their own that goes when the test ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "buildah": "buildah",
    "podman": "podman",
    "conmon": "conmon",
    "runc": "runc",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "openssl": "openssl",
    "curl": "curl",
    "make": "make",
}
LIBRARIES = {"/usr/lib/podman/netavark": "netavark", "/usr/lib/podman/aardvark-dns": "aardvark-dns"}
BUDGET = 360.0
"""Seconds for everything."""
_END = time.monotonic() + BUDGET


class Missing(Exception):  # noqa: N818 - not an error with OPTIONAL=1
    """What the test needs and cannot get, in one line."""


def left() -> float:
    """Seconds of the budget that are left.

    Raises:
        TimeoutError: none are.
    """
    rest = _END - time.monotonic()
    if rest <= 0:
        raise TimeoutError(f"not done within {BUDGET:g} s")
    return rest


def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it prints is shown only when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=left(),
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout)
    return done  # type: ignore[no-any-return]


def need_debian() -> None:
    """Install the programs that are not there.

    Raises:
        Missing: not root, or not Debian, or the packages cannot be had.
    """
    if os.geteuid() != 0:
        raise Missing("root is needed, to make base images and networks")
    wanted = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    wanted += [package for path, package in LIBRARIES.items() if not Path(path).exists()]
    if not wanted:
        return
    if not shutil.which("apt-get"):
        raise Missing(f"{', '.join(wanted)} missing, and no apt-get to install them")
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=60"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run([*apt, "update"], env=environment)
        run([*apt, "install", "-y", "--no-install-recommends", *wanted], env=environment)
    except subprocess.CalledProcessError as error:
        raise Missing(f"apt-get could not install {', '.join(wanted)}") from error


class Machine:
    """Storage, networks and settings in a folder of their own. ``close`` leaves nothing."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mcp-gateway-compose-", dir="/var/tmp"))
        self._chains_before = _chains()
        self._forwarding = _FORWARDING.read_text()
        self._write_settings()
        self.environment = {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
        }
        self._builds = ["--format", "docker", "--layers", *self._registries_of_packages()]

    def build(self, tags: Iterable[str], context: Path, file: Path | None = None, target: str | None = None) -> None:
        """Build one image."""
        options = [part for tag in tags for part in ("-t", tag)]
        options += ["-f", str(file)] if file else []
        options += ["--target", target] if target else []
        run(["buildah", "bud", *self._builds, *options, context], env=self.environment)

    def podman(self, *arguments: str) -> str:
        """What podman prints on standard output."""
        command = ["podman", *arguments]
        done = subprocess.run(
            command, text=True, capture_output=True, env=self.environment, timeout=left(), check=False
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def close(self) -> list[str]:
        """Remove everything, and say what would not go."""
        for _attempt in range(5):  # a container that is just being restarted resists
            self._try("podman", "rm", "--all", "--force", "--time", "1")
            if not self._try("podman", "ps", "--all", "--quiet"):
                break
        self._try("podman", "network", "prune", "--force")
        self._try("buildah", "rm", "--all")
        _end_names()
        _drop_chains(_chains() - self._chains_before)
        _FORWARDING.write_text(self._forwarding)
        for mount in sorted(_mounts_below(self.folder), key=len, reverse=True):
            subprocess.run(["umount", mount], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        rest = [f"iptables chain {chain}" for _table, chain in sorted(_chains() - self._chains_before)]
        rest += [f"process {number}" for number in _processes_of(self.folder)]
        return rest + ([f"folder {self.folder}"] if self.folder.exists() else [])

    def _try(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        return done.stdout.strip()

    def _write_settings(self) -> None:
        """No systemd here: cgroupfs, runc, events in a file. Limits of the machine's own, which need not be raised."""
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/storage"\nrunroot = "{self.folder}/run"\n'
        )
        (self.folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024","nproc=1024:1024"]\nlog_driver = "k8s-file"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\nlock_type = "file"\n'
            f'tmp_dir = "{self.folder}/tmp"\nvolume_path = "{self.folder}/volumes"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{self.folder}/networks"\n'
        )

    def _registries_of_packages(self) -> list[str]:
        """How this machine reaches package indexes, mounted into builds and so never part of an image."""
        pip, npm = self.folder / "pip.conf", self.folder / "npmrc"
        pip.write_text(_pip_settings())
        own = Path.home() / ".npmrc"
        npm.write_text((own.read_text() if own.exists() else "") + f"\ncafile={_AUTHORITIES}\n")
        mounts = {pip: "/etc/pip.conf", npm: _HOME_IN_BUILDS / ".npmrc", _AUTHORITIES.parent: str(_AUTHORITIES.parent)}
        return [part for source, target in mounts.items() for part in ("-v", f"{source}:{target}:ro")]


_HOME_IN_BUILDS = Path("/root")
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_NAMES = Path("/run/containers/networks/aardvark-dns/aardvark.pid")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def _pip_settings() -> str:
    """What pip is told here by files and environment, as one file. Folders of this machine mean nothing in a build."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], text=True, capture_output=True, check=False
    )
    pairs = re.findall(r"^[^.\n]+\.([a-z-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    lines = [f"{name} = {value}" for name, value in dict(pairs).items() if name != "cert" and not value.startswith("/")]
    return "\n".join(["[global]", f"cert = {_AUTHORITIES}", *lines, ""])


def _chains() -> set[tuple[str, str]]:
    found = set()
    for table in ("filter", "nat"):
        rules = subprocess.run(["iptables", "-t", table, "-S"], text=True, capture_output=True, check=False).stdout
        found |= {(table, chain) for chain in re.findall(r"^-N (NETAVARK\S*)", rules, re.MULTILINE)}
    return found


def _drop_chains(chains: set[tuple[str, str]]) -> None:
    """podman leaves its chains, and the rules that lead to them, after the last container."""
    for table in {table for table, _chain in chains}:
        names = {chain for of, chain in chains if of == table}
        rules = subprocess.run(["iptables", "-t", table, "-S"], text=True, capture_output=True, check=False).stdout
        for rule in rules.splitlines():
            target = re.search(r"-j (\S+)$", rule)
            if rule.startswith("-A ") and target and target.group(1) in names:
                script = f"iptables -t {table} -D {rule.removeprefix('-A ')}"
                subprocess.run(["sh", "-c", script], check=False, capture_output=True)
        for step in ("-F", "-X"):
            for name in names:
                subprocess.run(["iptables", "-t", table, step, name], check=False, capture_output=True)


def _mounts_below(folder: Path) -> list[str]:
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if point.startswith(f"{folder}/")]


def _end_names() -> None:
    """The name server of the networks ends with the last of them. If it died before, its file would stop the next."""
    networks = _NAMES.parent
    if _NAMES.exists() and [each.name for each in networks.iterdir()] == [_NAMES.name]:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(_NAMES.read_text()), signal.SIGTERM)
        _NAMES.unlink(missing_ok=True)


def _processes_of(folder: Path) -> list[str]:
    """The monitors of containers whose storage is there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if str(folder).encode() in command:
            found.append(process.name)
    return found
