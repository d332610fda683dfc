"""The sets that are run, and how the suites are started and read."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from .install import ROOT, Missing, Tools
from .processes import last_words
from .scores import Run, label

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
SUITE_SECONDS = 100
_STAMP = re.compile(r"-\d{4}-\d\d-\d\dT[\dZ-]+$")


@dataclass(frozen=True, slots=True)
class ServerSet:
    """A suite that plays the client, against the fixture directly and through the gateway.

    ``required`` is the revision whose frozen list counts for the score; None: every scenario that was run.
    ``fixture`` is the era to which the fixture behind the gateway is pinned; directly it always speaks both.
    """

    suite: str
    options: tuple[str, ...]
    required: str | None = None
    fixture: str = "both"


@dataclass(frozen=True, slots=True)
class ClientSet:
    """A suite that plays the server, for the SDK's client directly and with the gateway in between.

    ``extension``: the scenarios are of no revision.
    """

    revision: str
    scenarios: tuple[str, ...]
    extension: bool = False


_REQUIRED = {revision: ("--requirements", revision) for revision in (MODERN, LEGACY)}

SETS: dict[str, ServerSet | ClientSet] = {
    "server-2026-07-28": ServerSet("current", _REQUIRED[MODERN], MODERN),
    "server-2025-11-25": ServerSet("current", _REQUIRED[LEGACY], LEGACY),
    "server-2025-06-18": ServerSet("current", ("--spec-version", "2025-06-18")),
    "server-0.1": ServerSet("stable", ("--suite", "all")),
    "modern-to-legacy": ServerSet("current", _REQUIRED[MODERN], MODERN, fixture="legacy"),
    "legacy-to-modern": ServerSet("current", _REQUIRED[LEGACY], LEGACY, fixture="modern"),
    "client-2026-07-28": ClientSet(
        MODERN,
        (
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
            "json-schema-2020-12-preservation",
        ),
    ),
    "client-2025-11-25": ClientSet(
        LEGACY,
        (
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        ),
    ),
    "client-credentials": ClientSet(
        LEGACY, ("auth/client-credentials-basic", "auth/client-credentials-jwt"), extension=True
    ),
}


def required(tools: Tools, chosen: ServerSet) -> list[str] | None:
    """The scenarios that count, or None where all do."""
    if chosen.required is None:
        return None
    document = YAML(typ="safe").load(tools.requirements(chosen.suite, chosen.required))
    return [str(name) for name in document["server"]]


def run_server(tools: Tools, chosen: ServerSet, url: str, folder: Path, scenario: str | None = None) -> Run:
    """Run a server set against a URL.

    Raises:
        Missing: the suite did not end in time, or left no results.
    """
    options = list(chosen.options)
    if scenario is not None:
        options = ["--scenario", scenario]
        if chosen.suite == "current":
            options += ["--spec-version", chosen.required or chosen.options[-1]]
    command = [*tools.command(chosen.suite), "server", "--url", url, *options, "-o", str(folder)]
    _run(command, folder)
    run = results(folder, "server-")
    if not run:
        raise Missing(f"the suite left no results; see {folder}/output.log (with --keep)")
    return run


def run_client(
    tools: Tools, chosen: ClientSet, command: str, folder: Path, environ: Mapping[str, str], scenario: str | None = None
) -> Run:
    """Run a client set with a command that is given the URL of the suite's server.

    Raises:
        Missing: as of ``run_server``.
    """
    run: Run = {}
    for name in chosen.scenarios if scenario is None else (scenario,):
        place = folder / name.replace("/", "-")
        options = ["--scenario", name, "--spec-version", chosen.revision, "--command", command, "--timeout", "30000"]
        options += ["--force"] if chosen.extension else []
        _run([*tools.command("current"), "client", *options, "-o", str(place)], place, environ)
        _tell_failure(place / "output.log", name)
        run |= results(place, "")
    return run


def _tell_failure(log: Path, scenario: str) -> None:
    """Say why the client under test ended early: its checks alone would only be absent."""
    text = log.read_text()
    if "Client exited with code" in text:
        said = text.partition("Stderr:")[2].partition("Results saved")[0]
        sys.stderr.write(f"{scenario}: the client ended early: {last_words(said)}\n")


def results(folder: Path, prefix: str) -> Run:
    """The checks that a suite left in its output folder."""
    run: Run = {}
    for file in sorted(folder.rglob("checks.json")):
        stamped = file.parent.name.removeprefix(prefix)
        run[_STAMP.sub("", stamped)] = label(json.loads(file.read_text()))
    return run


def _run(command: list[str], folder: Path, environ: Mapping[str, str] | None = None) -> None:
    """The exit code says how many failed, which the results say better."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.log").open("wb") as output:
        try:
            subprocess.run(
                command,
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=SUITE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Missing(f"the suite did not end within {SUITE_SECONDS} s; see {folder}/output.log") from error
