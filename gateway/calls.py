"""Requests for an entry of the catalogue: decided by the checks, recorded, carried to the backend that owns it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from mcp.shared.inbound import mcp_param_headers, validate_mcp_param_headers
from msgspec.structs import replace

from gateway import rounds
from gateway.definitions.lock import rule_of
from gateway.errors import (
    INVALID_PARAMS,
    InvalidRequest,
    Quarantined,
    Refusal,
    UnknownTool,
)
from gateway.exchange import Exchange, Policy
from gateway.models import BackendReply, BackendRequest, Call, Entry, Kind
from gateway.policy.authorize import permits, refusal
from gateway.ports import NO_SPAN
from gateway.protocol import answers, clients, lifecycle
from gateway.protocol.limits import tightest
from gateway.protocol.tracing import passed_on
from gateway.routes import Route

RESOURCE_NOT_FOUND = -32002
"""What the legacy era says of an unknown resource; the modern one says -32602."""

_UNLISTED = "(unlisted resource)"
"""The name that everything counts under which a backend named in a result and lists nowhere."""

_NO_HEADERS: Mapping[str, str] = {}

_OURS = frozenset({"_meta", "inputResponses", "requestState", "task"})
"""Parameters that do not go on as they came; who asks for a task of 2025-11-25 gets a call."""


def call_tool(exchange: Exchange, policy: Policy) -> Awaitable[answers.Answer]:
    """``tools/call``."""
    entry = _find(exchange, exchange.request.params.get("name"), "tool")
    return _governed(exchange, policy, entry, _object(exchange, "arguments"))


def get_prompt(exchange: Exchange, policy: Policy) -> Awaitable[answers.Answer]:
    """``prompts/get``."""
    entry = _find(exchange, exchange.request.params.get("name"), "prompt")
    return _governed(exchange, policy, entry, _object(exchange, "arguments"))


def read_resource(exchange: Exchange, policy: Policy) -> Awaitable[answers.Answer]:
    """``resources/read``: by the catalogue, by a template, or by a URI that a backend named in a result."""
    entry = resource(exchange, policy, exchange.request.params.get("uri"))
    return _governed(exchange, policy, entry, {})


def complete(exchange: Exchange, policy: Policy) -> Awaitable[answers.Answer]:
    """``completion/complete``: a reference to a prompt or a resource template leads to its owner."""
    reference = _object(exchange, "ref")
    if reference.get("type") == "ref/prompt":
        entry = _find(exchange, reference.get("name"), "prompt")
    elif reference.get("type") == "ref/resource":
        uri = reference.get("uri")
        entry = _template(exchange, uri) or resource(exchange, policy, uri)
    else:
        raise InvalidRequest("params.ref must be a ref/prompt or a ref/resource.", code=INVALID_PARAMS, status=200)
    return _governed(exchange, policy, entry, _object(exchange, "argument"))


def _template(exchange: Exchange, uri: Any) -> Entry | None:
    """The resource template of this text, if there is one."""
    catalog, toolset, text = exchange.rules.catalog, exchange.inbound.toolset, str(uri)
    template = catalog.find(toolset, text, "template")
    if template is not None:
        return _shown(exchange, template, "resource", text)
    held = catalog.quarantined(toolset, text, "template")
    if held is not None:
        raise _withheld(exchange, held, held, "resource", text)
    return None


def resource(exchange: Exchange, policy: Policy, uri: Any) -> Entry:
    """The resource of a URI, with what the routes say about exactly this URI.

    Raises:
        UnknownTool: nobody owns it.
        Quarantined: what owns it is not as pinned.
    """
    if not isinstance(uri, str) or not uri:
        raise InvalidRequest("The request needs params.uri, a string.", code=INVALID_PARAMS, status=200)
    held = exchange.rules.catalog.withheld_owner(exchange.inbound.toolset, uri)
    if held is not None:
        owner = exchange.rules.by_name[held.route]
        raise _withheld(exchange, _concrete(held.name, uri, owner), held, "resource", uri)
    known = exchange.rules.catalog.owner(exchange.inbound.toolset, uri)
    if known is not None and known.kind == "resource":
        return _shown(exchange, known, "resource", uri)
    named = policy.seen.route_of(exchange.principal, uri)
    route = exchange.rules.by_name.get(known.route if known else named or "")
    if route is None or (known is None and not exchange.rules.catalog.reaches(exchange.inbound.toolset, route.name)):
        raise _unknown(exchange, "resource", uri)
    concrete = _concrete(known.name if known is not None else _UNLISTED, uri, route)
    return _shown(exchange, concrete, "resource", uri)


def _concrete(name: str, uri: str, route: Route) -> Entry:
    """A resource by exactly this URI; it counts under ``name``."""
    return Entry(
        name=name,
        backend_name=uri,
        route=route.name,
        definition={},
        rendered=b"",
        input_schema=b"",
        policy=route.decide(uri, "resource"),
        idempotent=True,
        kind="resource",
    )


async def decided(exchange: Exchange, policy: Policy, entry: Entry, arguments: Mapping[str, Any]) -> Call:
    """The call, once every check has let it pass; what it is about is on record whether it has or not.

    Raises:
        Refusal: that of the first check that does not.
    """
    event = exchange.event
    event.tool, event.route, event.backend_tool = entry.name, entry.route, entry.backend_name
    event.rule, event.scopes_needed = entry.policy.rule, entry.policy.scopes
    event.arguments, event.redact = arguments, exchange.rules.by_name[entry.route].redact
    headers = _param_headers(exchange, entry, arguments) if entry.param_headers else _NO_HEADERS
    call = Call(exchange.principal, entry, exchange.request, arguments, exchange.inbound.toolset, headers)
    exchange.call = call
    for check in policy.checks:
        waits = check(call)
        if waits is not None:
            await waits
    if call.grant.watching:
        event.rule += f" (not enforced: {', '.join(limit.name for limit in call.grant.watching)})"
    return call


async def _governed(exchange: Exchange, policy: Policy, entry: Entry, arguments: Mapping[str, Any]) -> answers.Answer:
    """Decide, record, carry, answer: the one path of everything that reaches a backend."""
    event = exchange.event
    call = await decided(exchange, policy, entry, arguments)
    outgoing, holder = _to_backend(exchange, policy, call)
    await policy.audit.intend(event)
    event.dispatched = True
    exchange.channel.dispatched()
    reply = await rounds.carried(exchange, policy, call, outgoing, holder)
    event.backend_ms = reply.seconds * 1000
    event.outcome = _outcome(reply)
    if exchange.request.method == "resources/read" and exchange.modern and reply.result is not None:
        reply = replace(reply, result=lifecycle.with_caching_hints(reply.result))
    left = tightest(call.grant.left()) if exchange.rules.routes.tell_limits else None
    answer = answers.backend_answer(exchange.request, reply, policy.server_info, left)
    if reply.result is not None:
        event.answer = answer.body
    return answer


def _find(exchange: Exchange, name: Any, kind: Kind) -> Entry:
    if not isinstance(name, str) or not name:
        raise InvalidRequest("The request needs a name, a string.", code=INVALID_PARAMS, status=200)
    entry = exchange.rules.catalog.find(exchange.inbound.toolset, name, kind)
    if entry is None:
        raise _missing(exchange, kind, name)
    return _shown(exchange, entry, kind, name) if exchange.rules.routes.hide_unpermitted else entry


def _missing(exchange: Exchange, kind: Kind, name: str) -> Refusal:
    """Unknown; but to those who might use it, it may be quarantined."""
    entry = exchange.rules.catalog.quarantined(exchange.inbound.toolset, name, kind)
    return _unknown(exchange, kind, name) if entry is None else _withheld(exchange, entry, entry, kind, name)


def _withheld(exchange: Exchange, entry: Entry, held: Entry, kind: Kind, name: str) -> Refusal:
    """The refusal of ``entry``, whose definition ``held`` has in quarantine."""
    permitted = permits(exchange.principal, _shown(exchange, entry, kind, name))
    _record_entry(exchange, entry)
    if not permitted:
        return refusal(exchange.principal, entry)
    return Quarantined(
        f"{held.name} is quarantined: its definition is new or has changed, and nobody has approved it yet.",
        hint="Do not ask for it again; go on without it, or ask the operator of the gateway to review it.",
        rule=rule_of(held.route, held.backend_name, held.kind),
    )


def _record_entry(exchange: Exchange, entry: Entry) -> None:
    event = exchange.event
    event.tool, event.route, event.backend_tool = entry.name, entry.route, entry.backend_name
    event.rule, event.scopes_needed = entry.policy.rule, entry.policy.scopes


def _shown(exchange: Exchange, entry: Entry, kind: Kind, name: str) -> Entry:
    """With ``hide_unpermitted``, what may not be used is like what is not there."""
    if exchange.rules.routes.hide_unpermitted and not permits(exchange.principal, entry):
        _record_entry(exchange, entry)
        unknown = _unknown(exchange, kind, name)
        unknown.rule = entry.policy.rule
        raise unknown
    return entry


def _unknown(exchange: Exchange, kind: Kind, name: str) -> UnknownTool:
    unknown = UnknownTool(f"There is no {kind} {name[:128]!a} here.", hint=lifecycle.WHERE_LISTED[kind])
    if kind == "resource":
        unknown.data = {"uri": name[:2048]}
        if not exchange.modern:
            unknown.code = RESOURCE_NOT_FOUND
    return unknown


def _param_headers(exchange: Exchange, entry: Entry, arguments: Mapping[str, Any]) -> Mapping[str, str]:
    """Check the mirrored arguments of a modern request and build those that the backend's leg needs."""
    if exchange.modern:
        schema = entry.definition["inputSchema"]
        rejection = validate_mcp_param_headers(schema, arguments, exchange.inbound.headers)
        if rejection is not None:
            raise InvalidRequest(rejection.message, code=rejection.code)
    return mcp_param_headers(entry.param_headers, arguments)


def _to_backend(exchange: Exchange, policy: Policy, call: Call) -> tuple[BackendRequest, str]:
    """The same request under the backend's names, and the process that holds the call, if it was parked.

    What the client sent of it goes as the bytes it sent.
    """
    request, entry = call.request, call.entry
    received: Mapping[str, Any] = request.raw or request.params
    params = {**received}
    for name in _OURS.intersection(params):
        del params[name]
    if request.method == "completion/complete":
        if entry.kind == "prompt":
            params["ref"] = {**request.params["ref"], "name": entry.backend_name}
    elif entry.kind in ("tool", "prompt"):
        params["name"] = entry.backend_name
    outgoing = BackendRequest(
        request.method,
        params,
        call.principal,
        meta=passed_on(request.crossing, exchange.span) if exchange.span is not NO_SPAN else request.crossing,
        capabilities=clients.carried_capabilities(
            request,
            can_ask=request.era == "legacy" and exchange.channel.can_ask,
            urls=entry.route in exchange.rules.opening_urls,
        ),
        client_info=request.client_info,
        name=entry.backend_name if request.method != "completion/complete" else None,
        headers=call.param_headers,
        log_level=clients.log_level_of(request) if clients.LOG_LEVEL in request.meta else None,
        wants_progress="progressToken" in request.meta and request.progress_token is not None,
        timeout=entry.policy.timeout,
        max_timeout=entry.policy.max_timeout,
        idempotent=entry.idempotent,
    )
    if "inputResponses" in request.params or "requestState" in request.params:
        return _come_again(call, policy, outgoing)
    return outgoing, ""


def _come_again(call: Call, policy: Policy, outgoing: BackendRequest) -> tuple[BackendRequest, str]:
    """The request with the answers and the state that the backend asked for."""
    given, sealed = call.request.params.get("inputResponses"), call.request.params.get("requestState")
    if given is not None and not isinstance(given, dict):
        raise InvalidRequest("params.inputResponses must be an object.", code=INVALID_PARAMS, status=200)
    state, holder = policy.states.open(call, sealed) if sealed is not None else (None, "")
    return replace(outgoing, answers=given, state=state), holder


def _object(exchange: Exchange, name: str) -> Mapping[str, Any]:
    value = exchange.request.params.get(name, {})
    if not isinstance(value, dict):
        raise InvalidRequest(f"params.{name} must be an object.", code=INVALID_PARAMS, status=200)
    return value


def _outcome(reply: BackendReply) -> str:
    if reply.result is None:
        return "backend_error"
    said = reply.result.get("isError")
    return "ok" if said is None or said not in rounds.TRUE else "tool_error"
