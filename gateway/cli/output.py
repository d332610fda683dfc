"""What every command says in the same way."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

NO = 1
UNUSABLE = 2


def fail(message: str, code: int = NO) -> NoReturn:
    """Say why on standard error and end."""
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def printable(text: str) -> str:
    """The text with what could steer a terminal or break a line written as an escape; a backslash is doubled."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(each if each.isprintable() and each != "\\" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
