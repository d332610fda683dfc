"""What a run of a suite found, check by check, and how two runs compare. No I/O."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Label = str
Checks = dict[Label, str]
Run = dict[str, Checks]
"""Scenario → check → ``SUCCESS``, ``WARNING``, ``FAILURE``, ``SKIPPED`` or ``INFO``."""

ABSENT = "ABSENT"
_RANK = {"SUCCESS": 0, "INFO": 0, "WARNING": 1, "FAILURE": 2, "SKIPPED": 2, ABSENT: 2}
_BAD = ("WARNING", "FAILURE")


class ExpectationsError(Exception):
    """expected_failures.yaml is not what it should be; the message says where."""


def label(checks: Iterable[Mapping[str, Any]]) -> Checks:
    """Name the checks of one scenario: id, and where that repeats the name and a number.

    Notes that a scenario takes of its own messages (``INFO`` for each request) are left out when they repeat.
    """
    found = [(str(check["id"]), str(check.get("name", "")), str(check["status"])) for check in checks]
    ids = Counter(identity for identity, _, _ in found)
    seen: Counter[tuple[str, str]] = Counter()
    named: Checks = {}
    for identity, name, status in found:
        if status == "INFO" and ids[identity] > 1:
            continue
        seen[identity, name] += 1
        number = f"#{seen[identity, name]}" if seen[identity, name] > 1 else ""
        named[identity if ids[identity] == 1 else f"{identity}/{name}{number}"] = status
    return named


def passes(checks: Checks) -> bool:
    """As the suites judge a scenario: nothing failed."""
    return "FAILURE" not in checks.values()


@dataclass(frozen=True, slots=True)
class Worse:
    """A check that is worse through the gateway."""

    scenario: str
    check: str
    direct: str
    through: str


def compare(direct: Run, through: Run) -> list[Worse]:
    """Every check that is worse through the gateway, does not run there, or skips only there."""
    found: list[Worse] = []
    for scenario, expected in direct.items():
        seen = through.get(scenario, {})
        for check in sorted(expected.keys() | seen.keys()):
            before, after = expected.get(check), seen.get(check)
            if _worse(before, after):
                found.append(Worse(scenario, check, before or ABSENT, after or ABSENT))
    return found


def _worse(before: str | None, after: str | None) -> bool:
    if before is None:
        return after in (*_BAD, "SKIPPED")
    if before == "INFO" and after is None:
        return False
    return _RANK[after or ABSENT] > _RANK[before]


@dataclass(frozen=True, slots=True)
class Score:
    """Scenarios passed of those run, and checks by how they ended."""

    passed: int
    scenarios: int
    checks: Counter[str]

    def __str__(self) -> str:
        detail = f"{self.checks['SUCCESS']} ok"
        for status, word in (("FAILURE", "failed"), ("WARNING", "warned"), ("SKIPPED", "skipped")):
            if self.checks[status]:
                detail += f", {self.checks[status]} {word}"
        return f"{self.passed}/{self.scenarios} ({detail})"


def score(run: Run, scenarios: Sequence[str] | None = None) -> Score:
    """The score of the named scenarios, or of all."""
    chosen = [run[name] for name in (run if scenarios is None else scenarios) if name in run]
    total = len(chosen) if scenarios is None else len(scenarios)
    statuses = Counter(status for checks in chosen for status in checks.values())
    return Score(sum(map(passes, chosen)), total, statuses)


@dataclass(slots=True)
class Verdict:
    """How what was found worse stands to what was expected to be."""

    unexpected: list[Worse] = field(default_factory=list)
    expected: list[tuple[Worse, str]] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)


def judge(worse: Sequence[Worse], expected: Mapping[str, Mapping[str, str]], ran: Iterable[str]) -> Verdict:
    """Sort what is worse into expected and not, and find expectations of scenarios that ran and are stale."""
    verdict = Verdict()
    for one in worse:
        reason = expected.get(one.scenario, {}).get(one.check)
        if reason is None:
            verdict.unexpected.append(one)
        else:
            verdict.expected.append((one, reason))
    hits = {(one.scenario, one.check) for one in worse}
    for scenario in ran:
        verdict.stale += [
            f"{scenario}: {check}" for check in expected.get(scenario, {}) if (scenario, check) not in hits
        ]
    return verdict


def expectations(document: Any, sets: Iterable[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Set → scenario → check → reason, from the content of expected_failures.yaml.

    Raises:
        ExpectationsError: a set that does not exist, an entry without a reason or checks, or one given twice.
    """
    known = set(sets)
    found: dict[str, dict[str, dict[str, str]]] = {name: {} for name in known}
    for name, entries in (document or {}).items():
        if name not in known:
            raise ExpectationsError(f"there is no set {name!r}")
        for entry in entries or []:
            scenario, checks, reason = (entry.get(key) for key in ("scenario", "checks", "reason"))
            if not scenario or not checks or not str(reason or "").strip():
                raise ExpectationsError(f"{name}: an entry needs scenario, checks and reason: {entry!r}")
            for check in checks:
                if check in found[name].setdefault(scenario, {}):
                    raise ExpectationsError(f"{name}: {scenario}: {check} is there twice")
                found[name][scenario][check] = " ".join(str(reason).split())
    return found
