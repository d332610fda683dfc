"""Measures ``tools/call`` in a closed loop: the backend alone, behind nginx, behind the gateway. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from measure import Load, Sample, compile_load
from targets import LOAD_CORE, TARGET_CORE, TARGETS, Bench, Target, Unavailable

FLOOR_CONNECTIONS = 16
MIN_RPS_RATIO, MAX_CPU_RATIO, MAX_RSS_MB = 0.15, 6.0, 150.0
MAX_LEGACY_CPU_US = 1000.0
WARM_UP_SECONDS = 0.5

Samples = dict[tuple[str, int], list[Sample]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each target in each round")
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--targets", default=",".join(name for name in TARGETS if name != "legacy"))
    parser.add_argument("--json", metavar="FILE", help="all samples and ratios, to a file or to - (standard output)")
    options = parser.parse_args()
    options.connections = [int(part) for part in options.connections.split(",")]
    options.targets = options.targets.split(",")
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"unknown targets {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.rounds < 1 or options.seconds <= 0 or min(options.connections) < 1:
        parser.error("rounds, seconds and connections are positive")
    return options


def say(line: str) -> None:
    """A line about the run, beside the results."""
    print(line, file=sys.stderr, flush=True)


def start(bench: Bench, names: Sequence[str], load: Load) -> list[Target]:
    """The targets that can be measured here, warm. Ends where the gateway, which all this is about, does not start."""
    found = []
    for name in names:
        try:
            target = bench.start(name)
        except Unavailable as missing:
            if name == "gateway":
                sys.exit(f"bench: {missing}")
            say(f"{name}: left out: {missing}")
            continue
        warm = load.run(target.port, target.tool, FLOOR_CONNECTIONS, WARM_UP_SECONDS, target.bearer, target.pid)
        if warm.wrong:
            say(f"{name}: {warm.wrong} of {warm.answers} answers are wrong while warming up: {warm.first_wrong}")
        found.append(target)
    return found


def measure(targets: list[Target], load: Load, options: argparse.Namespace) -> Samples:
    """All rounds. Targets take turns within a round, so that noise of the machine meets all of them."""
    samples: Samples = {}
    for number in range(options.rounds):
        for connections in options.connections:
            for target in targets[number % len(targets) :] + targets[: number % len(targets)]:
                sample = load.run(target.port, target.tool, connections, options.seconds, target.bearer, target.pid)
                samples.setdefault((target.name, connections), []).append(sample)
        say(f"round {number + 1} of {options.rounds} done")
    return samples


def ratio(samples: Samples, connections: int, name: str, base: str, value: Callable[[Sample], float]) -> float | None:
    """Median of the ratios of two targets in the same round, or None where one is missing."""
    mine, theirs = samples.get((name, connections), []), samples.get((base, connections), [])
    ratios = [value(a) / value(b) for a, b in zip(mine, theirs, strict=False) if value(b)]
    return median(ratios) if ratios else None


def summary(samples: Samples) -> list[dict[str, object]]:
    """One row for each target and number of connections: medians over rounds, and ratios to nginx."""
    rows: list[dict[str, object]] = []
    for (name, connections), taken in sorted(samples.items(), key=lambda item: (item[0][1], TARGETS.index(item[0][0]))):
        rows.append(
            {
                "target": name,
                "connections": connections,
                "rps": median(sample.rps for sample in taken),
                "p50_us": median(sample.p50_us for sample in taken),
                "p99_us": median(sample.p99_us for sample in taken),
                "cpu_us": median(sample.cpu_us for sample in taken),
                "rss_mb": max(sample.rss_mb for sample in taken),
                "wrong": sum(sample.wrong for sample in taken),
                "rps_to_nginx": ratio(samples, connections, name, "nginx", lambda sample: sample.rps),
                "cpu_to_nginx": ratio(samples, connections, name, "nginx", lambda sample: sample.cpu_us),
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows for people."""
    lines = [
        "| conns | target | calls/s | p50 us | p99 us | CPU us/call | RSS MB | wrong | calls/s : nginx | CPU : nginx |"
    ]
    lines.append("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        rps, cpu = (f"{row[key]:.2f}" if row[key] is not None else "" for key in ("rps_to_nginx", "cpu_to_nginx"))
        lines.append(
            f"| {row['connections']} | {row['target']} | {row['rps']:,.0f} | {row['p50_us']:,.0f} "
            f"| {row['p99_us']:,.0f} | {row['cpu_us']:.1f} | {row['rss_mb']:.0f} | {row['wrong']} | {rps} | {cpu} |"
        )
    return "\n".join(lines)


def verdicts(samples: Samples) -> list[tuple[bool, str]]:
    """The floors: whether each holds, and in words. What was not measured is not judged."""
    wrong = sum(sample.wrong for taken in samples.values() for sample in taken)
    first = next((sample.first_wrong for taken in samples.values() for sample in taken if sample.wrong), "")
    found = [(wrong == 0, f"wrong answers: {wrong} (none allowed) {first}".rstrip())]
    rps = ratio(samples, FLOOR_CONNECTIONS, "gateway", "nginx", lambda sample: sample.rps)
    cpu = ratio(samples, FLOOR_CONNECTIONS, "gateway", "nginx", lambda sample: sample.cpu_us)
    if rps is not None and cpu is not None:
        found.append(
            (rps >= MIN_RPS_RATIO, f"calls/s to nginx at 16 connections: {rps:.2f} (at least {MIN_RPS_RATIO})")
        )
        found.append(
            (cpu <= MAX_CPU_RATIO, f"CPU a call to nginx at 16 connections: {cpu:.1f} (at most {MAX_CPU_RATIO})")
        )
    bridged = [sample.cpu_us for sample in samples.get(("legacy", FLOOR_CONNECTIONS), [])]
    if bridged:
        cpu_us = median(bridged)
        what = f"CPU a call to a legacy backend at 16 connections: {cpu_us:.0f} us (under {MAX_LEGACY_CPU_US:.0f})"
        found.append((cpu_us < MAX_LEGACY_CPU_US, what))
    memory = [sample.rss_mb for (name, _), taken in samples.items() if name == "gateway" for sample in taken]
    if memory:
        found.append((max(memory) < MAX_RSS_MB, f"resident memory: {max(memory):.0f} MB (under {MAX_RSS_MB:.0f})"))
    return found


def check_machine() -> None:
    """End with a word where the method does not hold."""
    if missing := {TARGET_CORE, LOAD_CORE} - os.sched_getaffinity(0):
        sys.exit(f"bench: needs cores 0 and 1; this process may not use {sorted(missing)}")
    if shutil.which("taskset") is None:
        sys.exit("bench: needs taskset (apt-get install util-linux)")


def main() -> int:
    """Run, print the table, and return 1 when a floor does not hold."""
    options = arguments()
    check_machine()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        try:
            load = Load(compile_load(folder), LOAD_CORE)
        except RuntimeError as error:
            sys.exit(f"bench: {error}")
        with Bench(folder, Path(sys.executable).with_name("mcp-gateway")) as bench:
            targets = start(bench, options.targets, load)
            if not targets:
                sys.exit("bench: nothing to measure")
            samples = measure(targets, load, options)
    return report(samples, options.json)


def report(samples: Samples, json_file: str | None) -> int:
    """Print what was found. Returns the exit code."""
    rows, floors = summary(samples), verdicts(samples)
    document = {
        "rows": rows,
        "floors": [{"holds": holds, "what": what} for holds, what in floors],
        "samples": [
            {"target": name, "connections": connections, **asdict(sample)}
            for (name, connections), taken in samples.items()
            for sample in taken
        ],
    }
    if json_file == "-":
        print(json.dumps(document, indent=1))
    else:
        print(table(rows))
        print("\n".join(f"{'ok  ' if holds else 'FAIL'} {what}" for holds, what in floors))
        if json_file:
            Path(json_file).write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(holds for holds, _ in floors) else 1


if __name__ == "__main__":
    sys.exit(main())
