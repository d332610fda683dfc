"""The official conformance suites, directly against the fixture server and through the gateway.

    python tests/conformance/run.py                       every set, about two minutes
    python tests/conformance/run.py --set server-0.1      one set (repeat for more)
    python tests/conformance/run.py --scenario caching    one scenario of the chosen sets
    python tests/conformance/run.py --write               also generate the scores in docs/protocol.md when it passes

The run passes when the fixture itself is perfect, no check is worse through the gateway than directly unless
expected_failures.yaml says so with a reason, and nothing stands there that has come right. Exit codes: 0 passed, 1 not,
2 something is missing (0 with OPTIONAL=1).
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from . import report
from .install import Missing, Tools, install
from .processes import end_in_order, fixture, gateway
from .scores import ExpectationsError, Run, Score, Verdict, compare, expectations, judge, score
from .suites import SETS, ClientSet, ServerSet, required, run_client, run_server

RUN_SECONDS = 350
EXPECTED = Path(__file__).parent / "expected_failures.yaml"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one set came to. ``complete``: the fixture, asked directly, passed all that counts."""

    name: str
    direct: Score
    through: Score
    verdict: Verdict
    complete: bool

    @property
    def passed(self) -> bool:
        return self.complete and not self.verdict.unexpected and not self.verdict.stale


class Bench:
    """The servers that run while sets are run, started when a set first needs them."""

    def __init__(self, tools: Tools, folder: Path, scenario: str | None) -> None:
        self._tools = tools
        self._folder = folder
        self._scenario = scenario
        self._stack = ExitStack()
        self._direct = ""
        self._through: dict[str, str] = {}
        self._runs: dict[tuple[str, tuple[str, ...]], Run] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, name: str) -> tuple[Run, Run, list[str] | None]:
        """A set directly and through the gateway, and the scenarios that count."""
        chosen = SETS[name]
        if isinstance(chosen, ServerSet):
            return self._run_server(name, chosen)
        return self._run_client(name, chosen)

    def _run_server(self, name: str, chosen: ServerSet) -> tuple[Run, Run, list[str] | None]:
        self._start()
        key = (chosen.suite, chosen.options)
        if key not in self._runs:
            place = self._folder / name / "direct"
            self._runs[key] = run_server(self._tools, chosen, self._direct, place, self._scenario)
        place = self._folder / name / "through"
        through = run_server(self._tools, chosen, self._through[chosen.fixture], place, self._scenario)
        counted = required(self._tools, chosen) if self._scenario is None else None
        return self._runs[key], through, counted

    def _run_client(self, name: str, chosen: ClientSet) -> tuple[Run, Run, None]:
        runs = []
        for way in ("direct", "gateway"):
            command = f"{sys.executable} -m tests.conformance.client_driver {way}"
            place = self._folder / name / way
            runs.append(run_client(self._tools, chosen, command, place, os.environ, self._scenario))
        return runs[0], runs[1], None

    def _start(self) -> None:
        """One fixture of each kind, one more beside them, and one gateway in front of all."""
        if self._direct:
            return
        eras = {era: self._stack.enter_context(fixture(self._folder, era)) for era in ("both", "legacy", "modern")}
        beside = self._stack.enter_context(fixture(self._folder))
        self._through = self._stack.enter_context(gateway(self._folder, {**eras, "beside": beside}))
        self._direct = eras["both"]


def _chosen(arguments: argparse.Namespace) -> list[str]:
    """The sets to run: those asked for, and of them those that have the scenario."""
    names = arguments.set or list(SETS)
    scenario = arguments.scenario
    if scenario is None:
        return list(names)
    clients = {name for name in names if isinstance(SETS[name], ClientSet)}
    having = {name for name in clients if scenario in getattr(SETS[name], "scenarios", ())}
    return [name for name in names if name in having] or [name for name in names if name not in clients]


def _judged(bench: Bench, name: str, expected: dict[str, dict[str, str]]) -> Outcome:
    direct, through, counted = bench.run(name)
    through = {scenario: through.get(scenario, {}) for scenario in direct}
    verdict = judge(compare(direct, through), expected, direct)
    directly = score(direct, counted)
    complete = directly.passed == directly.scenarios > 0
    return Outcome(name, directly, score(_failing_when_empty(through), counted), verdict, complete)


def _failing_when_empty(run: Run) -> Run:
    """A scenario without a single check did not pass."""
    return {name: checks or {"ran": "FAILURE"} for name, checks in run.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The official conformance suites through the gateway")
    parser.add_argument("--set", action="append", choices=list(SETS), help="run this set only; may be repeated")
    parser.add_argument("--scenario", help="run this scenario only")
    parser.add_argument("--write", action="store_true", help="generate the scores in docs/protocol.md when all passes")
    parser.add_argument("--propose", action="store_true", help="print entries for what is unexpected")
    parser.add_argument("--keep", type=Path, help="leave the suites' results and all logs in this folder")
    arguments = parser.parse_args()
    if arguments.write and (arguments.set or arguments.scenario):
        parser.error("--write needs every set")
    return arguments


def main() -> int:
    """Run what was asked for; the exit code."""
    arguments = _arguments()
    try:
        end_in_order(RUN_SECONDS)
        expected = expectations(YAML(typ="safe").load(EXPECTED), SETS)
        with ExitStack() as stack:
            folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
            folder.mkdir(parents=True, exist_ok=True)
            bench = stack.enter_context(Bench(install(), folder, arguments.scenario))
            outcomes = []
            for name in _chosen(arguments):
                outcomes.append(_judged(bench, name, expected[name]))
                report.say(outcomes[-1])
    except Missing as missing:
        sys.stderr.write(f"conformance: {missing}\n")
        return 0 if os.environ.get("OPTIONAL") == "1" else 2
    except ExpectationsError as error:
        sys.stderr.write(f"{EXPECTED.name}: {error}\n")
        return 2
    report.summary(outcomes)
    if arguments.propose:
        report.propose(outcomes)
    passed = all(outcome.passed for outcome in outcomes)
    if arguments.write and passed:
        report.write(outcomes)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
