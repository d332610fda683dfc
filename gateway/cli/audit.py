"""``audit``: what auditors do with the log."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.output import NO, as_json, fail, out
from gateway.cli.serve import read_settings
from gateway.stores.audit_files import verify as verify_file

app = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Read and verify the audit log."""


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="The log, as in GATEWAY_AUDIT=file:PATH.")],
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Find any edit, gap, reordering or truncation, and list calls without an outcome. Exit 1 when there is one.

    With GATEWAY_KEYS set, the head beside the log is checked against forgery too.
    """
    keys = read_settings({"GATEWAY_KEYS": os.environ.get("GATEWAY_KEYS", "")}).key_ring
    try:
        report = verify_file(path, keys or None)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")
    if json_output:
        as_json(asdict(report))
        raise typer.Exit(0 if report.ok else NO)
    for problem in report.problems:
        where = f"line {problem.line}: " if problem.line else ""
        out.print(f"{path}: {where}{problem.message}", style="red", markup=False, highlight=False)
    for intent in report.open_intents:
        out.print(f"{path}: executed, outcome unknown: {intent}", style="yellow", markup=False, highlight=False)
    verdict = "good" if report.ok else "NOT GOOD"
    out.print(f"{path}: {verdict}. {report.records} record(s) of {report.writers} writer(s).", highlight=False)
    raise typer.Exit(0 if report.ok else NO)
