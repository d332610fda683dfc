"""JSON-RPC 2.0 messages: what kind a decoded body is, and that it is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import INVALID_PARAMS, InvalidRequest

MAX_ID_LENGTH = 1024

_MEMBERS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
# Names that decide something; the same name in other case would be read by a lenient parser as the same member.
_PARAMS = frozenset({"name", "arguments", "uri", "_meta", "cursor", "protocolVersion", "capabilities", "requestState"})


class Request(msgspec.Struct, frozen=True):
    """A request: it wants an answer under its ``id``."""

    id: str | int
    method: str
    params: Mapping[str, Any]


class Notification(msgspec.Struct, frozen=True):
    """A notification: nobody answers it."""

    method: str
    params: Mapping[str, Any]


class Response(msgspec.Struct, frozen=True):
    """An answer of a legacy client to a request of a server."""

    id: str | int
    body: Mapping[str, Any]


Message = Request | Notification | Response


def read(value: Any) -> Message:
    """The message in a decoded JSON value.

    Raises:
        InvalidRequest: -32600 where it is not one message; -32602 where ``params`` is not an object.
    """
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be one JSON-RPC object.")
    if value.get("jsonrpc") != "2.0":
        raise InvalidRequest('The member "jsonrpc" must be "2.0".')
    if not value.keys() <= _MEMBERS:
        _refuse_lookalikes(value, _MEMBERS)
    if "method" not in value:
        return _response(value)
    if "result" in value or "error" in value:
        raise InvalidRequest("The body is a request and a response at once.")
    method = value["method"]
    if not isinstance(method, str) or not method or len(method) > MAX_ID_LENGTH:
        raise InvalidRequest('The member "method" must be a non-empty string.')
    params = value.get("params", {})
    if not isinstance(params, dict) or not params.keys() <= _PARAMS:
        _check_params(params)
    if "id" not in value:
        return Notification(method, params)
    return Request(_id(value["id"]), method, params)


def id_of(value: Any) -> str | int | None:
    """The id to answer under, as far as one can be read."""
    candidate = value.get("id") if isinstance(value, dict) else None
    usable = isinstance(candidate, str | int) and not isinstance(candidate, bool)
    return candidate if usable and len(str(candidate)) <= MAX_ID_LENGTH else None


def _check_params(params: Any) -> None:
    if not isinstance(params, dict):
        raise InvalidRequest('The member "params" must be an object.', code=INVALID_PARAMS)
    _refuse_lookalikes(params, _PARAMS)


def _response(value: Mapping[str, Any]) -> Response:
    if ("result" in value) == ("error" in value):
        raise InvalidRequest("The body is neither a request, a notification nor a response.")
    return Response(_id(value.get("id")), value)


def _id(value: Any) -> str | int:
    if type(value) is int:
        if value.bit_length() <= 1024:
            return value
        raise InvalidRequest('The member "id" is too large.', rule="protocol.id")
    if type(value) is str:
        if len(value) <= MAX_ID_LENGTH:
            return value
        raise InvalidRequest('The member "id" is too long.', rule="protocol.id")
    raise InvalidRequest('The member "id" must be a string or an integer.', rule="protocol.id")


def _refuse_lookalikes(members: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in members:
        if key in known:
            continue
        folded = key.casefold()
        for name in known:
            if folded == name.casefold():
                raise InvalidRequest(f'A member differs from "{name}" in case only.', rule="protocol.lookalike_key")
