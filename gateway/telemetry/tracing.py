"""Traces over OTLP, where the standard variables of OpenTelemetry name a collector; otherwise nothing is imported."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.telemetry.otlp import OtlpTracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"

log = logging.getLogger(__name__)


def open_tracer(environ: Mapping[str, str], *, version: str) -> OtlpTracer | None:
    """The tracer that the environment asks for, or None; what prevents one is logged and prevents nothing else.

    Everything else of ``OTEL_*`` (sampler, headers, service name, batching) is read by OpenTelemetry itself.
    """
    endpoint = _first(environ, ENDPOINTS)
    if not endpoint or _is_off(environ):
        return None
    problem = _problem(endpoint, _first(environ, _PROTOCOLS) or _SPOKEN)
    if problem:
        log.warning("no traces are sent: %s", problem)
        return None
    try:
        from gateway.telemetry.otlp import OtlpTracer
    except ImportError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        log.warning("no traces are sent: OpenTelemetry is not installed; install mcp-gateway[otel]")
        return None
    return OtlpTracer(version)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next(filter(None, (environ.get(name, "").strip() for name in names)), "")


def _is_off(environ: Mapping[str, str]) -> bool:
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _problem(endpoint: str, protocol: str) -> str:
    if protocol != _SPOKEN:
        return f"OTEL_EXPORTER_OTLP_PROTOCOL must be {_SPOKEN}, which collectors take on port 4318"
    if not endpoint.startswith(("http://", "https://")):
        return "the OTLP endpoint must start with http:// or https://"
    return ""
