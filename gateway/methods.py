"""The methods of MCP as the gateway serves them, by era: what it answers itself, and the way to the backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway import calls, watching
from gateway.errors import UnknownMethod
from gateway.exchange import Exchange, Policy
from gateway.models import Kind
from gateway.protocol import answers, clients, lifecycle
from gateway.protocol.session import LIFETIME
from gateway.protocol.structured import legacy_definition

Method = Callable[[Exchange, Policy], Awaitable[answers.Answer]]


def answer(exchange: Exchange, policy: Policy) -> Awaitable[answers.Answer]:
    """Serve the exchange's method.

    Raises:
        UnknownMethod: there is none of that name in this era, or its feature is not advertised.
    """
    request = exchange.request
    method = METHODS.get((request.era, request.method))
    feature = _FEATURES.get(request.method)
    if method is None or (feature and feature not in exchange.rules.catalog.capabilities(exchange.inbound.toolset)):
        raise UnknownMethod(f"This server has no method {request.method[:64]!a}.")
    return method(exchange, policy)


async def _ping(exchange: Exchange, policy: Policy) -> answers.Answer:
    return _complete(exchange, policy, {})


async def _discover(exchange: Exchange, policy: Policy) -> answers.Answer:
    capabilities = exchange.rules.catalog.capabilities(exchange.inbound.toolset)
    return _complete(exchange, policy, lifecycle.discover_result(capabilities))


def _list(kind: Kind, member: str) -> Method:
    async def served(exchange: Exchange, policy: Policy) -> answers.Answer:
        lifecycle.refuse_cursor(exchange.request.params)
        rendered = exchange.rules.catalog.rendered(exchange.inbound.toolset, exchange.principal, kind)
        if not exchange.modern and kind == "tool":
            rendered = tuple(map(legacy_definition, rendered))
        backends = exchange.rules.backends
        stale = [route for route in exchange.rules.catalog.routes(exchange.inbound.toolset) if not backends[route].up]
        return _complete(exchange, policy, lifecycle.list_result(member, rendered, stale))

    return served


async def _listen(exchange: Exchange, policy: Policy) -> answers.Answer:
    asked = policy.hub.asked(exchange.request.params)
    opens = policy.hub.listen(exchange.request.id, asked, **watching.as_one(exchange, policy))
    exchange.event.outcome = "ok"
    return answers.Answer(200, opens=opens)


async def _subscribe(exchange: Exchange, policy: Policy) -> answers.Answer:
    entry = calls.resource(exchange, policy, exchange.request.params.get("uri"))
    await calls.decided(exchange, policy, entry, {})
    session_id = exchange.inbound.headers["mcp-session-id"]
    policy.hub.subscribe(session_id, entry.backend_name, **watching.as_one(exchange, policy))
    policy.elsewhere.subscribed(session_id, entry.backend_name, exchange.principal, exchange.inbound.toolset)
    return _complete(exchange, policy, {})


async def _unsubscribe(exchange: Exchange, policy: Policy) -> answers.Answer:
    session_id, uri = exchange.inbound.headers["mcp-session-id"], str(exchange.request.params.get("uri"))
    policy.hub.unsubscribe(session_id, uri)
    policy.elsewhere.unsubscribed(session_id, uri)
    return _complete(exchange, policy, {})


async def _set_level(exchange: Exchange, policy: Policy) -> answers.Answer:
    level = exchange.request.params.get("level")
    if level not in clients.LOG_LEVELS:
        raise clients.unknown_level()
    await policy.sessions.set_log_level(exchange.inbound.headers["mcp-session-id"], level, LIFETIME)
    return _complete(exchange, policy, {})


def _complete(exchange: Exchange, policy: Policy, members: Mapping[str, Any]) -> answers.Answer:
    exchange.event.outcome = "ok"
    request = exchange.request
    return answers.Answer(200, answers.result(request.id, request.era, members, policy.server_info))


_BOTH: Mapping[str, Method] = {
    "tools/list": _list("tool", "tools"),
    "tools/call": calls.call_tool,
    "prompts/list": _list("prompt", "prompts"),
    "prompts/get": calls.get_prompt,
    "resources/list": _list("resource", "resources"),
    "resources/templates/list": _list("template", "resourceTemplates"),
    "resources/read": calls.read_resource,
    "completion/complete": calls.complete,
}

METHODS: Mapping[tuple[str, str], Method] = {
    **{("modern", name): method for name, method in _BOTH.items()},
    **{("legacy", name): method for name, method in _BOTH.items()},
    ("modern", "server/discover"): _discover,
    ("modern", "subscriptions/listen"): _listen,
    ("legacy", "ping"): _ping,
    ("legacy", "logging/setLevel"): _set_level,
    ("legacy", "resources/subscribe"): _subscribe,
    ("legacy", "resources/unsubscribe"): _unsubscribe,
}

_FEATURES: Mapping[str, str] = {
    "prompts/list": "prompts",
    "prompts/get": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resources",
    "resources/read": "resources",
    "resources/subscribe": "resources",
    "resources/unsubscribe": "resources",
    "completion/complete": "completions",
    "logging/setLevel": "logging",
}
"""A method behind a feature that no backend has is unknown (``server/discover``)."""
