"""The methods of MCP as the gateway serves them: one function each, in the canonical form of both eras."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from mcp.shared.inbound import mcp_param_headers, validate_mcp_param_headers

from gateway.audit import AuditEvent
from gateway.catalog import Catalog
from gateway.errors import INVALID_PARAMS, InvalidRequest, UnknownMethod, UnknownTool
from gateway.models import BackendReply, BackendRequest, Call, ClientRequest, Principal, Tool
from gateway.policy.authorize import permits
from gateway.ports import AuditLog, Authenticate, Backend, Check, Notify
from gateway.protocol import answers, lifecycle
from gateway.protocol.inbound import Inbound, crossing_meta
from gateway.routes import Routes

_TASKS = "io.modelcontextprotocol/tasks"
_TRUE = (True, msgspec.Raw(b"true"))


@dataclass(frozen=True, slots=True)
class Rules:
    """One snapshot of everything that decides: a request reads it once, a reload replaces it as a whole."""

    authenticate: Authenticate
    routes: Routes
    catalog: Catalog
    backends: Mapping[str, Backend]
    scopes: Mapping[str | None, frozenset[str]]
    redact: Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class Exchange:
    """One request of a client and what is known of it so far."""

    rules: Rules
    inbound: Inbound
    notify: Notify
    event: AuditEvent
    principal: Principal
    request: ClientRequest
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What every exchange needs: the checks in their order, the audit, and who we are."""

    checks: tuple[Check, ...]
    audit: AuditLog
    server_info: msgspec.Raw


Method = Callable[[Exchange, Policy], Awaitable[answers.Answer]]


async def answer(exchange: Exchange, policy: Policy) -> answers.Answer:
    """Serve the exchange's method.

    Raises:
        UnknownMethod: there is none of that name in this era.
    """
    method = METHODS.get((exchange.request.era, exchange.request.method))
    if method is None:
        raise UnknownMethod(f"This server has no method {exchange.request.method[:64]!a}.")
    return await method(exchange, policy)


async def _ping(exchange: Exchange, policy: Policy) -> answers.Answer:
    return _complete(exchange, policy, {})


async def _discover(exchange: Exchange, policy: Policy) -> answers.Answer:
    return _complete(exchange, policy, lifecycle.discover_result())


async def _list_tools(exchange: Exchange, policy: Policy) -> answers.Answer:
    lifecycle.refuse_cursor(exchange.request.params)
    rendered = exchange.rules.catalog.rendered(exchange.inbound.toolset, exchange.principal)
    return _complete(exchange, policy, lifecycle.tools_result(rendered))


async def _call_tool(exchange: Exchange, policy: Policy) -> answers.Answer:
    call = exchange.call = _read_call(exchange)
    for check in policy.checks:
        await check(call)
    exchange.event.dispatched = True
    await policy.audit.intend(exchange.event)
    backend = exchange.rules.backends[call.tool.route]
    reply = await backend.request(_to_backend(call), exchange.notify)
    exchange.event.backend_ms = reply.seconds * 1000
    exchange.event.outcome = _outcome(reply)
    return answers.backend_answer(exchange.request, reply, policy.server_info)


def _read_call(exchange: Exchange) -> Call:
    """The call that is to be decided; from here on nothing reads the body again."""
    request, event = exchange.request, exchange.event
    name, arguments = request.params.get("name"), request.params.get("arguments", {})
    if not isinstance(name, str):
        raise InvalidRequest("tools/call needs params.name, a string.", code=INVALID_PARAMS, status=200)
    tool = _find(exchange, name)
    event.tool, event.route, event.backend_tool = tool.name, tool.route, tool.backend_name
    event.rule, event.scopes_needed = tool.policy.rule, tool.policy.scopes
    if not isinstance(arguments, dict):
        raise InvalidRequest("params.arguments must be an object.", code=INVALID_PARAMS, status=200)
    event.arguments, event.redact = arguments, exchange.rules.redact[tool.route]
    headers = _param_headers(exchange, tool, arguments)
    return Call(exchange.principal, tool, request, arguments, exchange.inbound.toolset, headers)


def _find(exchange: Exchange, name: str) -> Tool:
    tool = exchange.rules.catalog.find(exchange.inbound.toolset, name)
    hide = exchange.rules.routes.hide_unpermitted
    if tool is None or (hide and not permits(exchange.principal, tool)):
        raise UnknownTool(f"There is no tool {name[:128]!a} here.", hint="tools/list shows what you may call.")
    return tool


def _param_headers(exchange: Exchange, tool: Tool, arguments: Mapping[str, Any]) -> Mapping[str, str]:
    """Check the mirrored arguments of a modern request and build those that the backend's leg needs."""
    if not tool.param_headers:
        return {}
    if exchange.request.era == "modern":
        schema = tool.definition["inputSchema"]
        rejection = validate_mcp_param_headers(schema, arguments, exchange.inbound.headers)
        if rejection is not None:
            raise InvalidRequest(rejection.message, code=rejection.code)
    return mcp_param_headers(tool.param_headers, arguments)


def _to_backend(call: Call) -> BackendRequest:
    """The same call under the backend's names; what the client sent of it goes as the bytes it sent."""
    request, tool = call.request, call.tool
    params = {**(request.raw or request.params)}
    params.pop("_meta", None)
    params["name"] = tool.backend_name
    return BackendRequest(
        method="tools/call",
        params=params,
        principal=call.principal,
        meta=crossing_meta(request.raw, request.meta),
        capabilities=_carried(request),
        client_info=request.client_info,
        name=tool.backend_name,
        headers=call.param_headers,
        wants_progress=request.progress_token is not None,
        timeout=tool.policy.timeout,
        max_timeout=tool.policy.max_timeout,
        idempotent=tool.idempotent,
    )


def _carried(request: ClientRequest) -> Mapping[str, Any]:
    """The capabilities that this gateway carries end to end; a backend must not ask for what would get lost."""
    if request.era == "legacy":
        return {}
    extensions = request.capabilities.get("extensions")
    if not isinstance(extensions, dict) or _TASKS not in extensions:
        return request.capabilities
    kept = {name: value for name, value in extensions.items() if name != _TASKS}
    return {**request.capabilities, "extensions": kept}


def _outcome(reply: BackendReply) -> str:
    if reply.result is None:
        return "backend_error"
    return "tool_error" if reply.result.get("isError") in _TRUE else "ok"


def _complete(exchange: Exchange, policy: Policy, members: Mapping[str, Any]) -> answers.Answer:
    exchange.event.outcome = "ok"
    request = exchange.request
    return answers.Answer(200, answers.result(request.id, request.era, members, policy.server_info))


METHODS: Mapping[tuple[str, str], Method] = {
    ("modern", "server/discover"): _discover,
    ("modern", "ping"): _ping,
    ("modern", "tools/list"): _list_tools,
    ("modern", "tools/call"): _call_tool,
    ("legacy", "ping"): _ping,
    ("legacy", "tools/list"): _list_tools,
    ("legacy", "tools/call"): _call_tool,
}
