"""From headers and a message to a ``ClientRequest``: which era it is, and that its parts agree.

The body decides the era, because policy acts on the body (``basic/versioning``):

1. ``params._meta`` names a protocol version: modern. Headers must mirror the body.
2. ``initialize``, a session id, or a version header of a handshake revision: legacy.
3. Any other version header: a modern request that lacks its envelope, or a version nobody speaks.
4. Nothing at all: legacy, and it needs a session.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from mcp.shared.inbound import NAME_BEARING_METHODS, decode_header_value
from msgspec.structs import replace

from gateway.errors import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION, InvalidRequest
from gateway.models import ClientRequest, Era
from gateway.protocol import jsonrpc, revisions, strict_json
from gateway.protocol.clients import LOG_LEVEL, LOG_LEVELS
from gateway.protocol.session import Session

ROUTING_HEADERS = frozenset({"mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id"})
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_FORWARDED = frozenset({"tools/call", "prompts/get", "resources/read", "completion/complete"})
RawParams = Mapping[str, msgspec.Raw]
"""The parameters of a request as the bytes that were received."""

_NO_RAW: RawParams = {}
_KEPT = 2048
"""Bytes of a ``_meta`` that is remembered."""


class Former:
    """What the last modern request under one head said of itself: the next mostly says the same.

    The same bytes of ``_meta`` and the same name under the same header lines were held against each other before.
    ``trace_id`` is that of the request.
    """

    __slots__ = ("_key", "_meta", "_name", "_request", "trace_id")

    def __init__(self) -> None:
        self._request: ClientRequest | None = None
        self._meta: msgspec.Raw | None = None
        self._key = self._name = ""
        self.trace_id: str | None = None

    def again(self, message: jsonrpc.Request, raw: RawParams) -> ClientRequest | None:
        """The request in ``message``, whose parameters are ``raw``, where it says the same; else None."""
        last, params = self._request, message.params
        if (
            last is None
            or message.method != last.method
            or raw.get("_meta") != self._meta
            or params.get(self._key) != self._name
        ):
            return None
        return ClientRequest(
            message.id,
            last.method,
            params,
            raw,
            last.meta,
            "modern",
            last.revision,
            last.capabilities,
            last.client_info,
            last.crossing,
        )

    def keep(self, request: ClientRequest, trace_id: str | None) -> None:
        """Remember a request that was read under this head, but nothing large of it."""
        key, meta = NAME_BEARING_METHODS.get(request.method), request.raw.get("_meta")
        if key is None or key not in request.params or meta is None or memoryview(meta).nbytes > _KEPT:
            return
        self._key, self._name, self._meta, self.trace_id = key, request.params[key], meta.copy(), trace_id
        crossing = crossing_meta({"_meta": self._meta}, request.meta)
        self._request = replace(request, id=0, params={}, raw={}, crossing=crossing)


class Inbound(msgspec.Struct, frozen=True):
    """What arrived on the endpoint, before anything of it is believed.

    ``headers`` has lower-case names; ``repeated`` names those that came more than once. ``authorization`` has every
    ``Authorization`` value. ``body`` is the whole body where it is here already; else ``read`` gives it, bounded.
    ``former`` is of requests with the same head.
    """

    request_id: str
    client_address: str
    toolset: str | None
    headers: Mapping[str, str]
    repeated: frozenset[str]
    authorization: tuple[bytes, ...]
    read: Callable[[], Awaitable[bytes]]
    body: bytes | None = None
    former: Former = msgspec.field(default_factory=Former)


def forwarded(message: jsonrpc.Request, body: bytes) -> RawParams:
    """The parameters of a request that may go to a backend, as the bytes they came in; of another none."""
    return strict_json.params(body) if message.method in _FORWARDED and message.params else _NO_RAW


def era_of(message: jsonrpc.Message, headers: Mapping[str, str]) -> Era:
    """Which era a message belongs to.

    Raises:
        InvalidRequest: -32602 or -32022 where a version header names neither.
    """
    method = ""
    if not isinstance(message, jsonrpc.Response):
        method, meta = message.method, message.params.get("_meta")
        if isinstance(meta, dict) and revisions.PROTOCOL_VERSION in meta:
            return "modern"
    header = headers.get("mcp-protocol-version")
    if method == "initialize" or "mcp-session-id" in headers or header is None or header in revisions.LEGACY:
        return "legacy"
    if header not in revisions.MODERN:
        raise unsupported_version(header)
    if isinstance(message, jsonrpc.Request):
        raise InvalidRequest(
            f"params._meta must carry {revisions.PROTOCOL_VERSION} and {revisions.CLIENT_CAPABILITIES}.",
            code=INVALID_PARAMS,
        )
    return "modern"


def unsupported_version(requested: str) -> InvalidRequest:
    """-32022 with the versions that are served (``basic/versioning``)."""
    return InvalidRequest(
        f"Protocol version {requested[:64]!a} is not served here.",
        code=UNSUPPORTED_VERSION,
        data={"supported": list(revisions.MODERN), "requested": requested[:64]},
    )


def refuse_repeated(repeated: frozenset[str]) -> None:
    """A routing header given twice is refused: readers of the first and of the last would disagree."""
    for name in repeated:
        if name in ROUTING_HEADERS or name.startswith("mcp-param-"):
            raise InvalidRequest(f"The header {name[:64]} appears more than once.", code=HEADER_MISMATCH)


def modern_request(message: jsonrpc.Request, headers: Mapping[str, str], raw: RawParams = _NO_RAW) -> ClientRequest:
    """A modern request whose envelope is complete and mirrored in its headers (``basic/transports``, 2026-07-28).

    Raises:
        InvalidRequest: -32602, -32020 or -32022, each with HTTP 400.
    """
    params = message.params
    meta = params["_meta"]
    version, capabilities = meta.get(revisions.PROTOCOL_VERSION), meta.get(revisions.CLIENT_CAPABILITIES)
    if not isinstance(capabilities, dict):
        raise InvalidRequest(f"params._meta needs {revisions.CLIENT_CAPABILITIES}, an object.", code=INVALID_PARAMS)
    _check_mirror(message.method, params, version, headers)
    if version not in revisions.MODERN:
        raise unsupported_version(version)
    client_info = meta.get(revisions.CLIENT_INFO)
    return ClientRequest(
        id=message.id,
        method=message.method,
        params=params,
        raw=raw,
        meta=meta,
        era="modern",
        revision=version,
        capabilities=capabilities,
        client_info=client_info if isinstance(client_info, dict) else None,
        crossing=crossing_meta(raw, meta),
    )


def _check_mirror(method: str, params: Mapping[str, Any], version: Any, headers: Mapping[str, str]) -> None:
    """The routing headers say what the body says; the SDK's ``classify_inbound_request`` is the oracle in tests."""
    if not isinstance(version, str) or headers.get("mcp-protocol-version") != version:
        raise _mismatch("MCP-Protocol-Version", "protocol version")
    if headers.get("mcp-method") != method:
        raise _mismatch("Mcp-Method", "method")
    key = NAME_BEARING_METHODS.get(method)
    if key is not None and key in params:
        name = headers.get("mcp-name")
        if (decode_header_value(name) if name is None or name.startswith("=?") else name) != params[key]:
            raise _mismatch("Mcp-Name", f"params.{key}")


def _mismatch(header: str, member: str) -> InvalidRequest:
    message = f"The header {header} is missing or does not match the body's {member}."
    return InvalidRequest(message, code=HEADER_MISMATCH)


def legacy_request(message: jsonrpc.Request, session: Session, raw: RawParams = _NO_RAW) -> ClientRequest:
    """A request inside a legacy session, with what the session knows put where the modern form has it.

    Until a session sets its log level it hears everything.
    """
    meta = message.params.get("_meta", {})
    if not isinstance(meta, dict):
        raise InvalidRequest("params._meta must be an object.", code=INVALID_PARAMS, status=200)
    return ClientRequest(
        id=message.id,
        method=message.method,
        params=message.params,
        raw=raw,
        meta={**meta, LOG_LEVEL: session.log_level or LOG_LEVELS[0]},
        era="legacy",
        revision=session.revision,
        capabilities=session.capabilities,
        client_info=session.client_info,
        crossing=crossing_meta(raw, meta),
    )


def trace_id(message: jsonrpc.Request, headers: Mapping[str, str]) -> str | None:
    """The trace id of the W3C ``traceparent`` in ``_meta``, or else in the header of that name."""
    meta = message.params.get("_meta")
    parent = meta.get("traceparent") if isinstance(meta, dict) else None
    text = parent if isinstance(parent, str) else headers.get("traceparent")
    found = _TRACEPARENT.fullmatch(text) if text else None
    return found.group(1) if found else None


def crossing_meta(raw: RawParams, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What of a client's ``_meta`` may reach a backend: all but the reserved keys, which are ours on both legs."""
    for key in meta:  # as in ``_crosses``; most have none that does
        if key != "progressToken" and not key.startswith(_RESERVED):
            break
    else:
        return {}
    source: Mapping[str, Any] = msgspec.json.decode(raw["_meta"], type=dict[str, msgspec.Raw]) if raw else meta
    return {key: value for key, value in source.items() if _crosses(key)}


_RESERVED = (revisions.RESERVED_PREFIX, revisions.VENDOR_PREFIX)


def _crosses(key: str) -> bool:
    folded = key.casefold()  # for a backend that reads names in any case
    return folded != "progresstoken" and not folded.startswith(_RESERVED)
