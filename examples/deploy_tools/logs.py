"""One JSON object a line on standard error: ours, the SDK's and the web server's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog

REQUEST_ID_META = "io.mcp-gateway/request-id"
TRACE_META = "traceparent"


def configure(level: str) -> None:
    """Send every log record of this process to standard error as JSON."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("mcp").setLevel("WARNING")


def correlation(meta: Mapping[str, Any]) -> dict[str, str]:
    """What ties our log lines to the caller's: a request id and a trace id (W3C Trace Context), where sent."""
    found: dict[str, str] = {}
    if isinstance(request_id := meta.get(REQUEST_ID_META), str):
        found["request_id"] = request_id[:128]
    if isinstance(parent := meta.get(TRACE_META), str) and len(parts := parent.split("-")) >= 4:
        found["trace_id"] = parts[1][:32]
    return found
