"""Structured logs on standard error: one JSON object a line, with the request's id where there is one."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

_OWN_LOGGERS = ("mcp", "uvicorn", "uvicorn.error", "httpx2", "httpcore2", "asyncio", "watchfiles")


def configure(level: str, *, human: bool = False) -> None:
    """Send every log of the process through one JSON formatter.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        human: text instead of JSON, for the demo; coloured where a terminal shows it and ``NO_COLOR`` is not set.
    """
    handler = logging.StreamHandler(sys.stderr)
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(formatter(human=human, coloured=coloured))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _OWN_LOGGERS:
        # The libraries tell of every connection at INFO; calls belong into the audit, not into the log.
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level) if level != "DEBUG" else logging.DEBUG)


def formatter(*, human: bool, coloured: bool = False) -> logging.Formatter:
    """Makes a line of a record. Whatever is in it, it cannot begin a line of its own or steer a terminal.

    Text for people keeps the line ends of the message itself, which reports have.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [structlog.processors.JSONRenderer()]
    if human:
        last = [_harmless, structlog.dev.ConsoleRenderer(colors=coloured)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *last,
        ],
    )


def _harmless(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    lines = {"event": "\n", "exception": "\n"}
    return {name: _escaped(value, lines.get(name, "")) for name, value in event.items()}


def _escaped(value: Any, kept: str) -> Any:
    if not isinstance(value, str):
        return value
    return "".join(
        each if each.isprintable() or each == kept else each.encode("unicode_escape", "backslashreplace").decode()
        for each in value
    )
