"""``tools.lock`` on disk, beside routes.yaml."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.definitions.lock import FILE_NAME, MAX_BYTES, NO_LOCK, Lock, Unreadable, parse, render
from gateway.errors import ConfigError, Problem

_HINT = "restore it, or remove it and have mcp-gateway lock write it anew"


def lock_path(routes_file: Path) -> Path:
    """Where the lock of a routes file is."""
    return routes_file.with_name(FILE_NAME)


def read_lock(path: Path) -> Lock:
    """The lock, or ``NO_LOCK`` where there is no file.

    Raises:
        ConfigError: it cannot be used.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return NO_LOCK
    except OSError as error:
        raise ConfigError([Problem(str(path), None, "", f"cannot be read: {error.strerror}", _HINT)]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError([Problem(str(path), None, "", "is larger than 16MiB", "split the gateway by teams")])
    try:
        return parse(content.decode())
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), None, "", "is not UTF-8 text", _HINT)]) from None
    except Unreadable as error:
        raise ConfigError([Problem(str(path), None, error.where, str(error), _HINT)]) from None


def write_lock(path: Path, lock: Lock) -> None:
    """Replace the file as a whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(render(lock), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
