"""What a span says about a request, by the semantic conventions for MCP and GenAI; nothing secret, no session id.

Client → gateway → backend is one trace: the W3C context comes in ``_meta``, or else in headers, and goes on in
``_meta`` (``basic/index``, 2026-07-28).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.models import ClientRequest
from gateway.ports import Span

_CONTEXT = ("traceparent", "tracestate")
_TARGETS = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}
_LONGEST = 128


def described(request: ClientRequest, headers: Mapping[str, str]) -> tuple[str, Mapping[str, Any], dict[str, Any]]:
    """The arguments of ``Tracer.begin``: the name, where the parent is found, and the attributes."""
    method = request.method[:_LONGEST]
    attributes: dict[str, Any] = {
        "mcp.method.name": method,
        "mcp.protocol.version": request.revision,
        "jsonrpc.request.id": str(request.id)[:_LONGEST],
    }
    target, key = request.params.get("name"), _TARGETS.get(method)
    if key and isinstance(target, str):
        target = attributes[key] = target[:_LONGEST]
        if method == "tools/call":
            attributes["gen_ai.operation.name"] = "execute_tool"
        method = f"{method} {target}"
    return method, (request.meta if "traceparent" in request.meta else headers), attributes


def passed_on(meta: Mapping[str, Any], span: Span) -> Mapping[str, Any]:
    """``_meta`` for a backend whose parent is this span; where nothing is traced, the client's own context stays."""
    context = span.context()
    if not context:
        return meta
    return {**{key: value for key, value in meta.items() if key not in _CONTEXT}, **context}
