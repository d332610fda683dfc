"""Numbers of processes from ``/proc``, and the load generator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SOURCE = Path(__file__).with_name("load.c")


@dataclass(frozen=True, slots=True)
class Sample:
    """One round at one target. ``cpu_us`` is user and system time of its whole process tree for each answer."""

    rps: float
    p50_us: float
    p99_us: float
    cpu_us: float
    rss_mb: float
    answers: int
    wrong: int
    first_wrong: str


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the third on (proc(5)); empty where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree, children that have ended included."""
    return sum(sum(map(int, stat[11:15])) for one in tree(pid) if (stat := _stat(one))) / TICKS


def rss_mb(pid: int) -> float:
    """Resident memory of a process tree in MB (10^6 bytes); pages that are shared count for each."""
    return sum(int(stat[21]) * PAGE for one in tree(pid) if (stat := _stat(one))) / 1e6


def pinned(core: int, command: list[str]) -> list[str]:
    """The command, on one core only."""
    return ["taskset", "--cpu-list", str(core), *command]


def compile_load(folder: Path) -> Path:
    """The load generator, built into ``folder``.

    Raises:
        RuntimeError: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("there is no C compiler: apt-get install gcc libc6-dev")
    built = folder / "load"
    done = subprocess.run(
        [compiler, "-O2", "-o", str(built), str(SOURCE)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the load generator does not compile: {done.stderr[:500]}")
    return built


@dataclass(frozen=True, slots=True)
class Load:
    """The load generator on its core."""

    binary: Path
    core: int

    def run(  # what is called, how, and by whom
        self, port: int, tool: str, connections: int, seconds: float, bearer: str | None, pid: int
    ) -> Sample:
        """Load a target for ``seconds`` and read what its process tree ``pid`` used for that.

        Raises:
            RuntimeError: the target refused the connection.
        """
        command = [str(self.binary), "127.0.0.1", str(port), "/mcp", tool, str(connections), str(seconds)]
        before = cpu_seconds(pid)
        done = subprocess.run(
            pinned(self.core, [*command, *([bearer] if bearer else [])]),
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=False,
        )
        used = cpu_seconds(pid) - before
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        found = json.loads(done.stdout)
        return Sample(
            rps=found["rps"],
            p50_us=found["p50_us"],
            p99_us=found["p99_us"],
            cpu_us=used / max(found["answers"], 1) * 1e6,
            rss_mb=rss_mb(pid),
            answers=found["answers"],
            wrong=found["wrong"],
            first_wrong=found["first_wrong"],
        )
