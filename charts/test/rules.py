"""The alert rules and the dashboard.

``promtool`` checks and tests the rules; every alert has its section in docs/operations.md; rules and dashboard use only
metrics and labels that the gateway has. A real gateway is started and called, its metrics are linted, and a real
Prometheus that scrapes it must have a result for every expression of the dashboard; ``--prometheus URL`` asks that one
instead. With OPTIONAL=1 in the environment a missing promtool is no failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import live

HERE = Path(__file__).parent
FILES = HERE.parent / "mcp-gateway" / "files"
RULES = FILES / "rules.yaml"
MANUAL = HERE.parent.parent / "docs" / "operations.md"
REPOSITORY = "https://github.com/mcp-gateway/mcp-gateway/blob/main/"

METRICS = {
    "requests_total": "method route tool outcome era",
    "request_duration_seconds": "method route le",
    "backend_duration_seconds": "route le",
    "rate_limit_decisions_total": "limit decision",
    "backend_up": "route",
    "breaker_state": "route",
    "inflight": "route",
    "catalog_tools": "route",
    "catalog_age_seconds": "route",
    "catalog_omitted": "route",
    "catalog_quarantined": "route",
    "catalog_cleaned": "route",
    "sessions": "side",
    "parked_calls": "",
    "audit_events_total": "sink result",
    "config_last_reload_successful": "",
    "redis_up": "",
    "build_info": "version",
}
TARGET = {"namespace", "job", "pod", "instance"}
GRAFANA = {"$__rate_interval": "1m", "$job": ".*"}


def promtool() -> str:
    """Its path, after an installation when root may do one."""
    if not shutil.which("promtool") and os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-q"], ["install", "-qq", "-y", "--no-install-recommends", "prometheus"]):
            subprocess.run(["apt-get", *command], env=env, check=False, capture_output=True)
    found = shutil.which("promtool")
    if not found:
        print("rules: promtool is missing; it comes with Prometheus (Debian package prometheus)")
        raise SystemExit(0 if os.environ.get("OPTIONAL") == "1" else 1)
    return found


def expressions() -> list[tuple[str, str]]:
    """Every panel's title and expression of the dashboard."""
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    return [(p["title"], t["expr"]) for p in panels for t in p.get("targets", [])]


def unknown(where: str, expr: str, recorded: set[str]) -> Iterator[str]:
    """Metrics and labels in ``expr`` that nobody makes."""
    for name, matchers in re.findall(r"\b(mcp_gateway[:_][\w:]+)(?:\{([^}]*)\})?", expr):
        metric = re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name.removeprefix("mcp_gateway_"))
        if name in recorded:
            continue
        if metric not in METRICS:
            yield f"{where}: no metric {name}"
            continue
        labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
        yield from (f"{where}: {name} has no label {label}" for label in labels - {*METRICS[metric].split(), *TARGET})


def vocabulary() -> list[str]:
    """Rules and dashboard use metrics and labels that exist."""
    text = RULES.read_text()
    recorded = set(re.findall(r"- record: (\S+)", text))
    exprs = [("rules.yaml", block) for block in re.findall(r"expr: ((?:\|\n(?: {10,}.*\n)+)|.*)", text)]
    used = exprs + [(f"dashboard.json, {title}", expr) for title, expr in expressions()]
    return [problem for where, expr in used for problem in unknown(where, expr, recorded)]


def runbooks() -> list[str]:
    """Every alert points to its own section of the manual, and no section is left without one."""
    alerts = dict(re.findall(r"- alert: (\w+)\n(?:.*\n)+?\s+runbook_url: (\S+)", RULES.read_text()))
    named = re.findall(r"- alert: (\w+)", RULES.read_text())
    manual, section = MANUAL.read_text(), MANUAL.relative_to(HERE.parent.parent)
    headings = set(re.findall(r"^## (MCPGateway\w+)$", manual, re.M))
    problems = [f"{alert}: no section in {section}" for alert in named if alert not in headings]
    problems += [f"{section}: {heading} is no alert" for heading in headings - set(named)]
    problems += [f"{a}: wrong runbook_url" for a in named if alerts.get(a) != f"{REPOSITORY}{section}#{a.lower()}"]
    tested = (HERE / "rules_test.yaml").read_text()
    return problems + [f"{alert}: not in rules_test.yaml" for alert in named if alert not in tested]


def run(*command: str | Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).strip().splitlines()


def dashboard_results(url: str) -> list[str]:
    """Expressions of the dashboard without a result at a running Prometheus."""
    problems = []
    for title, template in expressions():
        expr = template
        for variable, value in GRAFANA.items():
            expr = expr.replace(variable, value)
        query = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        try:
            with urllib.request.urlopen(query, timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            problems.append(f"{title}: {error.code} {error.read().decode(errors='replace').strip()[:200]}")
            continue
        except urllib.error.URLError as error:
            return [f"{url}: {error.reason}"]
        if not result or all(sample["value"][1] == "NaN" for sample in result):
            problems.append(f"{title}: no result: {expr}")
    return problems


def in_time(look: Callable[[], list[str]], seconds: float = 60) -> list[str]:
    """What is still wrong when the numbers had time to arrive."""
    deadline = time.monotonic() + seconds
    while (problems := look()) and time.monotonic() < deadline:
        time.sleep(1)
    return problems


def lint(tool: str, url: str) -> list[str]:
    """What promtool finds in the metrics as they are exposed."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        exposed = answer.read()
    done = subprocess.run([tool, "check", "metrics"], input=exposed, capture_output=True, check=False)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).decode().strip().splitlines()


def main() -> int:
    """Runs all; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", metavar="URL", help="run the dashboard's expressions there")
    arguments = parser.parse_args()
    steps = {"every alert has its section and test": runbooks(), "metrics and labels exist": vocabulary()}
    tool = promtool()
    steps["promtool check rules"] = run(tool, "check", "rules", RULES)
    steps["promtool test rules"] = run(tool, "test", "rules", HERE / "rules_test.yaml")
    told = f"{len(expressions())} dashboard expressions have results"
    if arguments.prometheus:
        steps[told] = dashboard_results(arguments.prometheus)
    else:
        with live.running(RULES) as both:
            steps[told] = in_time(lambda: dashboard_results(both.prometheus))
            steps["promtool check metrics"] = lint(tool, f"{both.gateway}/metrics")
    for name, problems in steps.items():
        print(f"{'FAIL' if problems else 'ok  '} {name}")
        for problem in problems:
            print(f"       {problem}")
    return 1 if any(steps.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
