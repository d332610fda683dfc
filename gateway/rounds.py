"""The rounds of one call: what its backend answers, what it asks in between, and who is asked.

A modern client is asked with the answer, and comes again; a legacy client is asked on the stream of its call, which
goes on here (2026-07-28, ``basic/patterns/mrtr``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.errors import MISSING_CAPABILITY, BackendTimeout, BackendUnavailable
from gateway.exchange import Exchange, Policy
from gateway.models import BackendReply, BackendRequest, Call, JsonObject
from gateway.protocol import asked, clients

MAX_ROUNDS = 16
"""How often a backend may ask a legacy client within one call."""

MAX_QUESTIONS = 20
"""How much it may ask at once."""

ANSWER_SECONDS = 600.0
"""How long a person may think."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds between tries where a backend wants no answer, but to be called again."""

TRUE = (True, msgspec.Raw(b"true"))
"""As a backend may say it."""

_COMPLETE = msgspec.Raw(b'"complete"')


async def carried(
    exchange: Exchange, policy: Policy, call: Call, outgoing: BackendRequest, holder: str
) -> BackendReply:
    """The backend's answer; what it asks in between goes sealed to a modern client and is put to a legacy one.

    ``holder`` is the process that holds the call, where it was parked.
    """
    route = call.entry.route
    backend = exchange.rules.backends[route]
    elsewhere = bool(holder) and holder != policy.elsewhere.here and backend.keeps_state
    waited = 0.0
    for _ in range(MAX_ROUNDS):
        if elsewhere:
            reply = await policy.elsewhere.resume(holder, route, outgoing, exchange.channel.notify)
        else:
            reply = await backend.request(outgoing, exchange.channel.notify)
        if reply.undeclared is not None:
            reply = _as_undeclared(exchange, reply)
        if reply.result is None:
            return _as_tool_result(exchange, reply)
        kind = reply.result.get("resultType")
        if kind is None or kind == _COMPLETE or not _asks(call, kind):
            _note(exchange, policy, call, reply.result)
            return reply
        if exchange.modern:
            return _sealed(policy, call, reply, holder if elsewhere else policy.elsewhere.here)
        outgoing = await _asked(exchange, call, outgoing, reply.result)
        if not outgoing.answers:
            waited = await _back_off(policy, call, waited)
    raise BackendUnavailable(
        f"The {call.entry.route} backend asked more than {MAX_ROUNDS} times within one call.",
        dispatched=True,
        retryable=False,
    )


def _note(exchange: Exchange, policy: Policy, call: Call, result: JsonObject) -> None:
    """Remember the resources that a result names; the other processes need those that no list has."""
    named = policy.seen.note(call.principal, call.entry.route, call.request.method, result)
    if named:
        owner = exchange.rules.catalog.owner
        unlisted = [uri for uri in named if owner(exchange.inbound.toolset, uri) is None]
        if unlisted:
            policy.elsewhere.named(call.principal, call.entry.route, unlisted)


def _asks(call: Call, kind: Any) -> bool:
    """Whether the backend wants answers of the client, by the ``resultType`` of a result that is not complete.

    Raises:
        BackendUnavailable: it made a task of the call, which no client was declared to take.
    """
    said = _plain(kind)
    if said == "task":
        raise BackendUnavailable(
            f"The {call.entry.route} backend made a task of the call, which this gateway does not carry.",
            dispatched=True,
            retryable=False,
        )
    return bool(said == "input_required")


def _sealed(policy: Policy, call: Call, reply: BackendReply, holder: str) -> BackendReply:
    result = asked.by(call.entry.route, reply.result or {})
    state = _plain(result.get("requestState"))
    if isinstance(state, str):
        result["requestState"] = policy.states.seal(call, state, holder)
    return replace(reply, result=result)


async def _asked(exchange: Exchange, call: Call, outgoing: BackendRequest, result: JsonObject) -> BackendRequest:
    """Put the backend's questions to a legacy client and make the request that brings the answers."""
    given: dict[str, Any] = {}
    for key, (method, params) in _questions(call, outgoing, _plain(result.get("inputRequests"))).items():
        question = clients.question(method, asked.named(call.entry.route, params), exchange.request.revision)
        given[key] = await exchange.channel.ask(method, question, ANSWER_SECONDS)
    state = _plain(result.get("requestState"))
    return replace(outgoing, answers=given, state=state if isinstance(state, str) else None)


async def _back_off(policy: Policy, call: Call, waited: float) -> float:
    """Wait before a try that brings no answers, as long as before all others together; the seconds waited in all.

    Raises:
        BackendTimeout: the end of the call would be reached.
    """
    pause = min(max(FIRST_PAUSE, waited), LONGEST_PAUSE)
    if waited + pause > call.entry.policy.max_timeout:
        raise BackendTimeout(
            f"The {call.entry.route} backend asked to be called again until the time of the call was over.",
            dispatched=True,
            hint="Check what the call has done before you repeat it.",
        )
    await policy.pause(pause)
    return waited + pause


def _questions(call: Call, outgoing: BackendRequest, requests: Any) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """What a backend asks, if it asks no more and nothing else than it may.

    Raises:
        BackendUnavailable: it does.
    """
    questions: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for key, each in requests.items() if isinstance(requests, dict) else ():
        method, params = (each.get("method"), each.get("params", {})) if isinstance(each, dict) else (None, {})
        declared = isinstance(method, str) and clients.ASKED.get(method) in outgoing.capabilities
        if not declared or not isinstance(params, dict) or len(questions) == MAX_QUESTIONS:
            raise BackendUnavailable(
                f"The {call.entry.route} backend asked something that no client answers.",
                dispatched=True,
                retryable=False,
            )
        questions[key] = (str(method), params)
    return questions


def _as_undeclared(exchange: Exchange, reply: BackendReply) -> BackendReply:
    """A modern client is told what it lacks, where the call failed for it; a legacy agent reads the backend's words."""
    failed = reply.result is None or reply.result.get("isError") in TRUE
    return replace(reply, result=None, error=reply.undeclared) if exchange.modern and failed else reply


def _as_tool_result(exchange: Exchange, reply: BackendReply) -> BackendReply:
    """A legacy agent reads what its client cannot do; a modern client is told by the code (-32021)."""
    error = reply.error or {}
    if exchange.modern or exchange.request.method != "tools/call" or error.get("code") != MISSING_CAPABILITY:
        return reply
    text = f"This tool needs something that your client cannot do: {error.get('message', '')}"
    return replace(reply, result={"content": [{"type": "text", "text": text}], "isError": True}, error=None)


def _plain(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
