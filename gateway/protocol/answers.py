"""From a result, a backend's error or a refusal to the bytes of a JSON-RPC answer; how each refusal is said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from gateway.errors import INTERNAL_ERROR, MISSING_CAPABILITY, InvalidRequest, RateLimited, Refusal, UnknownMethod
from gateway.models import BackendReply, ClientRequest, Era, Limit, LimitState
from gateway.protocol import limits as limits_told
from gateway.protocol import revisions
from gateway.protocol.limits import Headers
from gateway.protocol.strict_json import encode, members
from gateway.protocol.structured import legacy_result

# What only the modern era knows of a result (2026-07-28); legacy schemas do not have it.
_MODERN_MEMBERS = ("resultType", "ttlMs", "cacheScope")
_COMPLETE = msgspec.Raw(b'"complete"')


class Answer(msgspec.Struct, frozen=True):
    """What goes back to the client: ``body`` is one JSON-RPC message, or empty where the status says all.

    With ``opens`` the answer is a stream, which whoever writes it enters.
    """

    status: int
    body: bytes = b""
    headers: Headers = ()
    opens: AbstractContextManager[Any] | None = None


def result(
    request_id: str | int,
    era: Era,
    parts: Mapping[str, Any],
    server_info: msgspec.Raw,
    *,
    relayed: bool = False,
    left: LimitState | None = None,
) -> bytes:
    """A result, completed for its era: ``resultType`` and ``serverInfo`` in the modern one, neither in the legacy one.

    Values may be ``msgspec.Raw`` and are copied as they are. Of a ``relayed`` result, keys of ``_meta`` that are
    reserved for the gateway are dropped. ``left`` is a limit to tell of.
    """
    complete = dict(parts if era == "modern" else legacy_result(parts))
    given = complete.pop("_meta", None)
    meta = {} if given is None else _own_meta(given) if relayed else dict(given)
    if era == "modern":
        complete.setdefault("resultType", _COMPLETE)
        meta[revisions.SERVER_INFO] = server_info
    else:
        for name in _MODERN_MEMBERS:
            complete.pop(name, None)
    if left is not None:
        meta[revisions.LIMITS] = limits_told.left_of(left)
    if meta:
        complete["_meta"] = meta
    return encode({"jsonrpc": "2.0", "id": request_id, "result": complete})


def error(request_id: str | int | None, code: int, message: str, data: Mapping[str, Any] | None = None) -> bytes:
    """A JSON-RPC error; ``id`` is null where none could be read."""
    body: dict[str, Any] = {"code": code, "message": message}
    if data:
        body["data"] = data
    return encode({"jsonrpc": "2.0", "id": request_id, "error": body})


def backend_answer(
    request: ClientRequest, reply: BackendReply, server_info: msgspec.Raw, left: LimitState | None = None
) -> Answer:
    """What a backend answered, under the client's id: 200, but for a capability that a modern client has not declared.

    That one is a 400 by the specification (``basic/index``), and the backend refused before it did anything. ``left``
    is a limit to tell of, in headers and in ``_meta``.
    """
    headers = () if left is None else limits_told.headers_of(left.limit, left.remaining, left.reset)
    if reply.result is not None:
        body = result(request.id, request.era, reply.result, server_info, relayed=True, left=left)
        return Answer(200, body, headers)
    undeclared = request.era == "modern" and (reply.error or {}).get("code") == MISSING_CAPABILITY
    body = encode({"jsonrpc": "2.0", "id": request.id, "error": reply.error})
    return Answer(400 if undeclared else 200, body, headers)


def refused(
    refusal: Refusal,
    *,
    request_id: str | int | None,
    era: Era,
    tool_call: bool,
    server_info: msgspec.Raw,
    over_http: bool = False,
    limits: tuple[Limit, ...] = (),
    in_session: bool = False,
) -> Answer:
    """A refusal as its reader needs it: a tool result for the agent, a status and an error for the client's software.

    ``over_http`` is ``refusals: http``. ``in_session``: inside a legacy session only the statuses that the
    specification demands are used, because some clients end the connection on any other.
    """
    headers = retry_headers(refusal, limits)
    fields = facts(refusal)
    if refusal.as_tool_result and tool_call and request_id is not None and not _as_status(refusal, over_http):
        parts = {
            "content": [{"type": "text", "text": encode(fields).decode()}],
            "isError": True,
            "_meta": {revisions.REFUSAL: fields},
        }
        return Answer(200, _tool_result(request_id, era, parts, server_info), headers)
    status = _status(refusal, over_http, request_id is not None and (era == "legacy" and in_session))
    plain = isinstance(refusal, InvalidRequest | UnknownMethod)
    data = {**refusal.data, "dispatched": False} if plain else fields
    return Answer(status, error(request_id, refusal.code, _sentence(refusal), data), headers)


def facts(refusal: Refusal) -> dict[str, Any]:
    """The fields every refusal of ours has, as agents and programs read them."""
    fields: dict[str, Any] = {
        "error": refusal.message,
        "code": refusal.outcome,
        "retryable": refusal.retryable,
        "hint": refusal.hint,
        "dispatched": refusal.dispatched,
    }
    if refusal.retry_after is not None:
        fields["retry_after_seconds"] = _exact(refusal.retry_after)
    return fields | refusal.data


def internal_error(request_id: str | int | None, trace: str, *, dispatched: bool) -> Answer:
    """The request's id to find it in the log by, and nothing else; 500 only where nothing was executed."""
    return Answer(
        200 if dispatched else 500,
        error(request_id, INTERNAL_ERROR, f"Internal error; report request {trace}.", {"dispatched": dispatched}),
    )


def retry_headers(refusal: Refusal, limits: tuple[Limit, ...] = ()) -> Headers:
    """``Retry-After`` in whole seconds, rounded up, and ``RateLimit`` fields for the limit that refused."""
    if refusal.retry_after is None:
        return ()
    seconds = str(max(1, math.ceil(refusal.retry_after)))
    headers: Headers = (("retry-after", seconds),)
    if isinstance(refusal, RateLimited):
        for limit in limits:
            if limit.name == refusal.limit_name:
                headers += limits_told.headers_of(limit, 0, max(1, refusal.retry_after))
    return headers


def _tool_result(request_id: str | int, era: Era, parts: dict[str, Any], server_info: msgspec.Raw) -> bytes:
    if era == "modern":
        parts["resultType"] = _COMPLETE
        parts["_meta"][revisions.SERVER_INFO] = server_info
    return encode({"jsonrpc": "2.0", "id": request_id, "result": parts})


def _own_meta(value: Any) -> dict[str, Any]:
    """A result's ``_meta`` without what only the gateway may say; empty where it is no object."""
    meta = value
    if isinstance(value, msgspec.Raw):
        try:
            meta = members(value)
        except msgspec.ValidationError:
            return {}
    if not isinstance(meta, dict):
        return {}
    return {
        key: part
        for key, part in meta.items()
        if key != revisions.SERVER_INFO and not key.startswith(revisions.VENDOR_PREFIX)
    }


def _as_status(refusal: Refusal, over_http: bool) -> bool:
    """``refusals: http`` turns what was not dispatched into a status; what was dispatched is never an error status."""
    return over_http and not refusal.dispatched and refusal.status in (429, 503)


def _status(refusal: Refusal, over_http: bool, in_session: bool) -> int:
    if refusal.dispatched:
        return 200
    if refusal.code == INTERNAL_ERROR and not over_http:
        return 200
    if in_session and not _demanded(refusal) and not _as_status(refusal, over_http):
        return 200
    return refusal.status


def _demanded(refusal: Refusal) -> bool:
    return refusal.status in (401, 403, 404, 413, 503) and not isinstance(refusal, UnknownMethod)


def _sentence(refusal: Refusal) -> str:
    """What must be acted on stands in the message: most clients drop ``data``."""
    return f"{refusal.message} {refusal.hint}".strip()


def _exact(seconds: float) -> float | int:
    """Milliseconds, rounded up: a call after exactly this long is admitted."""
    rounded = math.ceil(round(seconds * 1000, 3)) / 1000
    return int(rounded) if rounded.is_integer() else rounded
