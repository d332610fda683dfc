"""Everything that is not MCP, as ordinary FastAPI: metadata for clients, health and metrics for operators."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from gateway.exchange import Rules
from gateway.protocol.authorization import protected_resource_metadata

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Probes:
    """What operators ask: ``problems`` names what keeps the process from being ready, empty when it is.

    ``degraded`` names what is away and does not keep it from serving.
    """

    problems: Callable[[], list[str]]
    degraded: Callable[[], list[str]]
    exposition: Callable[[], tuple[bytes, str]]
    metrics_token: str | None


def metadata_app(rules: Callable[[], Rules]) -> FastAPI:
    """RFC 9728: which authorization servers and scopes, for the whole gateway and for each toolset."""
    app = _bare("mcp-gateway metadata")

    @app.get(WELL_KNOWN)
    @app.get(WELL_KNOWN + "/mcp")
    async def whole() -> Response:
        return _metadata(rules(), None)

    @app.get(WELL_KNOWN + "/mcp/{toolset}")
    async def of_toolset(toolset: str) -> Response:
        return _metadata(rules(), toolset)

    return app


def operations_app(probes: Probes) -> FastAPI:
    """``/healthz``, ``/readyz`` and ``/metrics``."""
    app = _bare("mcp-gateway operations")

    @app.get("/healthz")
    async def healthz() -> Mapping[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        problems = probes.problems()
        status = "not ready" if problems else "ready"
        told = {"status": status, "problems": problems, "degraded": probes.degraded()}
        return JSONResponse(told, 503 if problems else 200)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        if not _may_scrape(request, probes.metrics_token):
            return JSONResponse(
                {"error": "a bearer token is needed"}, 401, {"www-authenticate": 'Bearer realm="metrics"'}
            )
        body, content_type = probes.exposition()
        return Response(body, media_type=content_type)

    return app


def _bare(title: str) -> FastAPI:
    """No documentation pages, no schema, no redirects of slashes: nothing exists that is not declared."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @app.exception_handler(404)
    async def missing(request: Request, error: Any) -> Response:
        return JSONResponse({"error": "not found"}, 404)

    return app


def _metadata(rules: Rules, toolset: str | None) -> Response:
    auth = rules.routes.auth
    if auth is None or not rules.catalog.has(toolset):
        return JSONResponse({"error": "not found"}, 404)
    document = protected_resource_metadata(auth, toolset, rules.scopes.get(toolset, frozenset()))
    return JSONResponse(document, headers={"cache-control": "max-age=300", "access-control-allow-origin": "*"})


def _may_scrape(request: Request, token: str | None) -> bool:
    if token is None:
        return True
    given = request.headers.get("authorization", "").encode()
    return hmac.compare_digest(given, f"Bearer {token}".encode())
