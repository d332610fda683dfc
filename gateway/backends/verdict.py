"""What an error of the SDK's dispatcher means: the backend's own answer, or a failure of the way to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx2
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED

from gateway.backends import link
from gateway.backends.cause import because
from gateway.backends.wire import Exchange
from gateway.errors import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from gateway.models import JsonObject, Principal

HTTP_ERRORS = (httpx2.HTTPError, httpx2.StreamError)
"""What opening a session over HTTP may raise, beside ``OSError``."""

NOBODY = Principal(issuer="", subject="mcp-gateway")
"""For whom the gateway asks in its own matters."""

_OF_THE_SDK = (
    (CONNECTION_CLOSED, ("SSE stream failed: Server-sent event exceeded",), link.too_large),
    (CONNECTION_CLOSED, ("Connection closed", "SSE stream"), link.broken),
    (PARSE_ERROR, ("Failed to parse",), link.unusable),
    (INVALID_REQUEST, ("Unexpected content type", "server answered a request with 202", "Redirect to"), link.unusable),
)
"""How the SDK (2.3) words its own failures. A backend that copies them is taken at its word."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To a step of the greeting: a result, an error, or neither when none came in time."""

    result: JsonObject | None
    error: MCPError | None
    exchange: Exchange


def of_error(
    route: str, exchange: Exchange, error: MCPError, *, retire: Callable[[], None], reason: str = ""
) -> JsonObject:
    """The backend's error to be relayed; ``retire`` is called when the session is of no more use.

    ``reason`` is why the session has ended, if that is known.

    Raises:
        BackendUnavailable: it is none of the backend's.
    """
    raise_fault(route, exchange)
    _raise_status(route, exchange.status or 200, error.code, retire)
    for code, beginnings, failure in _OF_THE_SDK:
        if error.code == code and error.message.startswith(beginnings):
            raise because(failure(route), reason)
    return error.error.model_dump(mode="json", by_alias=True, exclude_unset=True)


def raise_fault(route: str, exchange: Exchange) -> None:
    """Raise what ended the exchange without an answer, if anything did."""
    if exchange.fault == "refused":
        reason = exchange.cause.__cause__ if isinstance(exchange.cause, httpx2.ConnectError) else exchange.cause
        if isinstance(reason, link.NoCredentials):
            raise reason
        raise link.refused(route) from exchange.cause
    if exchange.fault == "broken":
        raise link.broken(route) from exchange.cause
    if exchange.fault == "too_large":
        raise link.too_large(route)


def raise_refusal(route: str, status: int) -> None:
    """Raise for an HTTP status that is no answer of MCP."""
    if status in (401, 403):
        raise link.not_admitted(route)
    if status == 429:
        raise link.busy(route)
    if status >= 500:
        raise link.unusable(route)


def _raise_status(route: str, status: int, code: int, retire: Callable[[], None]) -> None:
    raise_refusal(route, status)
    if status == 404 and code != METHOD_NOT_FOUND:
        retire()
        raise link.session_ended(route)
    # Servers that lost their sessions also say so with 400 and a code of the transport.
    if status >= 400 and code in (INTERNAL_ERROR, INVALID_REQUEST, CONNECTION_CLOSED):
        retire()
        raise link.unusable(route)
