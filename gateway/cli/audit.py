"""``audit``: what auditors do with the log."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.audit import Report, arguments_digest, result_digest
from gateway.audit.reading import Wanted
from gateway.cli.audit_tail import MOST_OF_A_LINE, Shown, watch
from gateway.cli.output import NO, UNUSABLE, as_json, fail, out, printable
from gateway.cli.serve import read_settings
from gateway.cli.tokens import DEMO_AUDIT, DemoIssuer
from gateway.errors import outcomes
from gateway.stores import audit_reader
from gateway.stores.audit_tail import FileTail, StreamTail, Tail

app = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)

_STREAM = "redis:"
_AS_JSON = typer.Option("--json", help="For programs.")


@app.callback()
def _group() -> None:
    """Read and verify the audit log."""


@app.command()
def verify(
    log: Annotated[
        list[str],
        typer.Argument(help="Its files in any order, patterns, its folder, or redis:STREAM (at GATEWAY_REDIS_URL)."),
    ],
    partial: Annotated[bool, typer.Option(help="The beginning was deleted or trimmed on purpose.")] = False,
    json_output: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Find any edit, gap, reordering or truncation, and list calls without an outcome. Exit 1 when there is one.

    With GATEWAY_KEYS set, the head beside the log is checked against forgery too.
    """
    try:
        report = _judge(log, _keys(), partial=partial)
    except OSError as error:
        fail(f"{error.filename or log[0]} cannot be read: {error.strerror}", UNUSABLE)
    except ValueError as error:
        fail(str(error), UNUSABLE)
    if json_output:
        as_json(asdict(report))
    else:
        _say_report(report, log[-1])
    raise typer.Exit(0 if report.ok else NO)


@app.command()
def export(
    stream: Annotated[str, typer.Argument(help="redis:STREAM, at GATEWAY_REDIS_URL.")],
    path: Annotated[Path, typer.Argument(help="A new file; its head is written beside it.")],
) -> None:
    """Copy a log out of Redis, line by line as it is, before it is trimmed there."""
    try:
        count = audit_reader.export(_redis_url(), _stream(stream), path)
    except OSError as error:
        fail(f"{error.filename or stream} cannot be copied: {error.strerror}", UNUSABLE)
    except ValueError as error:
        fail(str(error), UNUSABLE)
    _say(f"{path}: {count} record(s).", None)


@app.command()
def tail(
    log: Annotated[
        str | None,
        typer.Argument(help="A file, or redis:STREAM; by default the first file of GATEWAY_AUDIT, or the demo's."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, over rotations.")] = False,
    count: Annotated[int, typer.Option("-n", min=0, help="How many of the last events.")] = 20,
    principal: Annotated[str, typer.Option(help="Subject or client id; * and ? stand for others.")] = "",
    tool: Annotated[str, typer.Option(help="Public name; * and ? stand for others.")] = "",
    outcome: Annotated[list[str] | None, typer.Option(help="How it ended; may be given again.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="The lines as they are.")] = False,
) -> None:
    """Show the last events, one line each, and with --follow what comes. Exit 1 when a line is no record."""
    if unknown := sorted(set(outcome or ()) - outcomes()):
        fail(f"there is no outcome {', '.join(unknown)}; outcomes are {', '.join(sorted(outcomes()))}", UNUSABLE)
    shown = Shown(Wanted(principal, tool, outcome or ()), as_they_are=json_output)
    place = log or str(_first_file())
    try:
        watch(_tail_of(place, shown, count), shown, count, follow=follow)
    except OSError as error:
        fail(f"{error.filename or place} cannot be read: {error.strerror}", UNUSABLE)
    except ValueError as error:
        fail(str(error), UNUSABLE)
    raise typer.Exit(NO if shown.invalid else 0)


def _tail_of(place: str, shown: Shown, count: int) -> Tail:
    if place.startswith(_STREAM):
        return StreamTail(_redis_url(), _stream(place), last=count if shown.everything else None)
    return FileTail(Path(place), from_end=count * MOST_OF_A_LINE if shown.everything else None)


def _first_file() -> Path:
    path = next((sink.path for sink in read_settings(os.environ).audit if sink.path is not None), None)
    if path is None and "GATEWAY_AUDIT" not in os.environ and DemoIssuer.load() is not None:
        path = DEMO_AUDIT
    if path is None:
        fail("GATEWAY_AUDIT has no file, and no demo runs in this folder: name the log", UNUSABLE)
    return path


@app.command()
def digest(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="JSON, byte for byte as it was sent; - is the input.")],
    arguments: Annotated[bool, typer.Option(help="They are arguments, not a result.")] = False,
) -> None:
    """Say which digest a result has in the record, or arguments, under the first of GATEWAY_KEYS."""
    key = next(iter(_keys()), None)
    if key is None:
        fail("GATEWAY_KEYS is not set: digests are made with its first key", UNUSABLE)
    text = file.read()
    try:
        value = json.loads(text)
    except ValueError as error:
        fail(f"this is not JSON: {error}", UNUSABLE)
    _say(arguments_digest(key, value)[0] if arguments else result_digest(key, text), None)


def _keys() -> tuple[bytes, ...]:
    return read_settings({"GATEWAY_KEYS": os.environ.get("GATEWAY_KEYS", "")}).key_ring


def _judge(log: list[str], keys: tuple[bytes, ...], *, partial: bool) -> Report:
    if log[0].startswith(_STREAM):
        if len(log) > 1:
            raise ValueError("a stream is a log of its own: name it alone")
        return audit_reader.verify_stream(_redis_url(), _stream(log[0]), keys, partial=partial)
    return audit_reader.judge(log, keys, partial=partial)


def _stream(text: str) -> str:
    stream = text.removeprefix(_STREAM)
    if stream in ("", text):
        raise ValueError(f"{text} is not redis:STREAM")
    return stream


def _redis_url() -> str:
    url = os.environ.get("GATEWAY_REDIS_URL", "")
    if not url:
        raise ValueError("GATEWAY_REDIS_URL is not set: it says where the stream is")
    return url


def _say_report(report: Report, log: str) -> None:
    for problem in report.problems:
        where = f"line {problem.line}: " if problem.line else ""
        _say(f"{problem.path or log}: {where}{problem.message}", "red")
    for intent in report.open_intents:
        told = f"request {intent.request_id} at {intent.time}, {intent.tool}"
        _say(f"{intent.path or log}: line {intent.line}: sent, outcome unknown: {told}", "yellow")
    verdict = "good" if report.ok else "NOT GOOD"
    _say(f"{log}: {verdict}. {report.records} record(s) of {report.writers} writer(s).", None)


def _say(line: str, style: str | None) -> None:
    out.print(printable(line), style=style, markup=False, highlight=False, soft_wrap=True)
