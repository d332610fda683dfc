"""Structured logs on standard error: one JSON object a line, with the request's id where there is one."""

from __future__ import annotations

import logging
import sys

import structlog

_OWN_LOGGERS = ("mcp", "uvicorn", "uvicorn.error", "httpx2", "httpcore2", "asyncio", "watchfiles")


def configure(level: str, *, human: bool = False) -> None:
    """Send every log of the process through one JSON formatter.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        human: coloured text instead of JSON, for the demo.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _OWN_LOGGERS:
        # The libraries tell of every connection at INFO; calls belong into the audit, not into the log.
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level) if level != "DEBUG" else logging.DEBUG)
