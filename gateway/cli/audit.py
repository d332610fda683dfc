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
    paths: Annotated[
        list[Path], typer.Argument(help="The log as in GATEWAY_AUDIT=file:PATH; rotated ones oldest first.")
    ],
    partial: Annotated[bool, typer.Option(help="The first file need not be the first there ever was.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Find any edit, gap, reordering or truncation, and list calls without an outcome. Exit 1 when there is one.

    With GATEWAY_KEYS set, the head beside the log is checked against forgery too.
    """
    keys = read_settings({"GATEWAY_KEYS": os.environ.get("GATEWAY_KEYS", "")}).key_ring
    try:
        report = verify_file(paths, keys or None, partial=partial)
    except OSError as error:
        fail(f"{error.filename} cannot be read: {error.strerror}")
    if json_output:
        as_json(asdict(report))
        raise typer.Exit(0 if report.ok else NO)
    for problem in report.problems:
        where = f"line {problem.line}: " if problem.line else ""
        _say(f"{problem.path or paths[-1]}: {where}{problem.message}", "red")
    for intent in report.open_intents:
        told = f"request {intent.request_id} at {intent.time}, {intent.tool}"
        _say(f"{intent.path or paths[-1]}: line {intent.line}: sent, outcome unknown: {told}", "yellow")
    verdict = "good" if report.ok else "NOT GOOD"
    _say(f"{paths[-1]}: {verdict}. {report.records} record(s) of {report.writers} writer(s).", None)
    raise typer.Exit(0 if report.ok else NO)


def _say(line: str, style: str | None) -> None:
    out.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
