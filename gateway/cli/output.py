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


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
