"""A backend of the modern era over HTTP: every request is a POST of its own (2026-07-28, ``streamable-http``).

Rules of this file
- Ids, progress tokens and the reserved keys of ``_meta`` are ours on this leg, never the client's.
- An answer counts only with our id. Whatever else comes in its place ends the exchange as ``BackendUnavailable``.
- No message holds a URL, a host name or a word of the backend's.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Container, Mapping
from functools import lru_cache
from importlib import metadata
from time import perf_counter
from typing import Any

import msgspec
from mcp.shared.inbound import encode_header_value

from gateway.backends import link, probe
from gateway.backends.asks import ASKING_METHODS, NoQuestion, missing_capability, undeclared
from gateway.backends.cause import because
from gateway.backends.envelope import Error, Exchange, decode_object
from gateway.backends.http1 import HttpClient, HttpError, HttpResponse, HttpTimeout, render_headers
from gateway.backends.http1_connection import ConnectionClosed, TooLarge
from gateway.backends.introduction import SUBSCRIPTION_ID, Introductions
from gateway.errors import (
    HEADER_MISMATCH,
    METHOD_NOT_FOUND,
    UNSUPPORTED_VERSION,
    BackendTimeout,
    BackendUnavailable,
)
from gateway.models import ANONYMOUS, BackendReply, BackendRequest, JsonObject
from gateway.ports import Notify
from gateway.protocol.revisions import MODERN

logger = logging.getLogger(__name__)

MAX_PAGES = 20
MAX_ENTRIES = 2_000
MAX_ENTRY_BYTES = 200_000
MAX_PAGE_BYTES = 8 * 2**20

_HEADERS = (
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json, text/event-stream"),
    (b"MCP-Protocol-Version", MODERN[0].encode()),
)
_PROGRESS, _LOG = "notifications/progress", "notifications/message"
_LISTENED = (
    "notifications/subscriptions/acknowledged",
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
)
_NO_VERDICT = (408, 425, 429)
"""Statuses below 500 that say nothing of what a server speaks."""

_NOT_SERVED = (404, 405, 501)
_COMPLETE = msgspec.Raw(b'"complete"')


class NotModern(Exception):  # noqa: N818 - an answer, not a failure
    """The backend answered ``server/discover`` as no modern server does."""


class StaleHeaders(BackendUnavailable):
    """-32020: the backend's tool has other ``Mcp-Param-*`` headers now. Nothing was executed."""


class EraChanged(link.WrongEra):
    """-32022: the backend no longer serves our revision. Nothing was executed."""


_encode = msgspec.json.Encoder().encode
_entries_decoder = msgspec.json.Decoder(list[msgspec.Raw])


class ModernHttp:
    """Implements ``ports.Backend``.

    Args:
        client: to the backend's URL, with the gateway's credentials.
        route: the word for the backend in messages and logs.
        version: of the gateway, for ``clientInfo``; default: the installed one.
    """

    def __init__(self, client: HttpClient, *, route: str = "requested", version: str | None = None) -> None:
        self._client = client
        self._route = route
        info = {"name": "mcp-gateway", "version": version or metadata.version("mcp-gateway")}
        self._introductions = Introductions(info)
        # Unique also beside other workers and former processes; far below 2**53, so exact for any JSON reader.
        self._ids = itertools.count(secrets.randbits(48))

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """Send and wait. Cancelling closes the connection, which is what cancels in this era.

        Raises:
            StaleHeaders, EraChanged: refresh what is known of the backend, then send again.
            BackendTimeout, BackendUnavailable: ``dispatched`` says whether it had left.
        """
        started = perf_counter()
        wanted = [_PROGRESS] if request.wants_progress else []
        if request.log_level is not None:
            wanted.append(_LOG)
        exchange, response = await self._exchange(request, notify, wanted)
        reply = self._reply(exchange, response, perf_counter() - started)
        kind = reply.result.get("resultType") if reply.result is not None else None
        if kind is None or kind == _COMPLETE or not _asks(kind):
            return reply
        return self._question(request, reply)

    async def listen(self, wanted: Mapping[str, Any], notify: Notify, *, idle: float, longest: float) -> BackendReply:
        """Hold one ``subscriptions/listen`` stream open; returns when the backend ends it.

        ``wanted`` is the filter. ``notify`` is told only what carries this stream's subscription id. ``idle`` is in
        seconds without a byte, ``longest`` in seconds in all. -32601 is also what a backend means that knows no such
        path or method of HTTP.

        Raises:
            BackendUnavailable: the stream broke, or was never one.
        """
        request = BackendRequest(
            "subscriptions/listen", {"notifications": wanted}, ANONYMOUS, timeout=idle, max_timeout=longest
        )
        started = perf_counter()
        request_id = next(self._ids)

        def told(method: str, params: Mapping[str, Any]) -> None:
            meta = params.get("_meta")
            if isinstance(meta, dict) and meta.get(SUBSCRIPTION_ID) == request_id:
                notify(method, params)

        exchange, response = await self._exchange(request, told, _LISTENED, request_id=request_id)
        if response.status in _NOT_SERVED:
            return BackendReply(None, {"code": METHOD_NOT_FOUND, "message": ""}, perf_counter() - started)
        return self._reply(exchange, response, perf_counter() - started)

    async def discover(self, timeout: float) -> JsonObject:  # noqa: ASYNC109 - seconds, held by the client
        """Return the decoded result of ``server/discover``.

        Raises:
            NotModern: the backend answered, as a server of the legacy era or of no MCP at all.
            BackendUnavailable: what happened says nothing of the era (network, timeout, 5xx, 401, 403).
        """
        request = BackendRequest("server/discover", {}, ANONYMOUS, timeout=timeout, max_timeout=timeout)
        exchange, response = await self._exchange(request, _ignore, (), idempotent=True)
        status = response.status
        if status in (401, 403):
            raise because(link.not_admitted(self._route), f"HTTP status {status}")
        if status >= 500 or 300 <= status < 400 or status in _NO_VERDICT:
            raise because(link.unreachable(self._route), f"HTTP status {status}")
        message = exchange.message(response)
        error = message.error if message is not None else msgspec.UNSET
        if error is not msgspec.UNSET:
            if probe.era_of_error(error.code, error.data) == "legacy":
                raise NotModern
            raise because(link.unusable(self._route), f"server/discover: error {error.code}")
        if status >= 400 or not (response.body or exchange.heard):
            raise NotModern
        result = self._decoded(self._reply(exchange, response, 0.0).result or {})
        if probe.era_of_result(result) == "legacy":
            raise NotModern
        return result

    async def list_all(
        self,
        method: str,
        key: str,
        timeout: float,  # noqa: ASYNC109 - seconds, held by the client
        *,
        optional: bool = False,
    ) -> list[JsonObject]:
        """Return all entries under ``key`` over all pages of a list, all of it within ``timeout`` seconds.

        Entries that are no objects or over ``MAX_ENTRY_BYTES`` are left out and logged. An ``optional`` list that the
        backend does not know (-32601) is empty.

        Raises:
            BackendUnavailable: a page failed, or the pages hold too much. A part is never taken for the whole.
        """
        until = perf_counter() + timeout
        found: list[JsonObject] = []
        cursors: set[str] = set()
        params: JsonObject = {}
        while True:
            left = until - perf_counter()
            if left <= 0:
                raise link.late(self._route, timeout)
            request = BackendRequest(method, params, ANONYMOUS, timeout=left, max_timeout=left)
            exchange, response = await self._exchange(request, _ignore, (), idempotent=True)
            reply = self._reply(exchange, response, 0.0)
            if optional and reply.error is not None and reply.error["code"] == METHOD_NOT_FOUND:
                return []
            if reply.result is None or key not in reply.result:
                raise because(link.unusable(self._route), f"{method}: no list in the answer")
            result = reply.result
            found += self._entries(method, result[key])
            cursor = self._cursor(result)
            if cursor is None:
                return found
            if cursor in cursors or len(cursors) + 1 >= MAX_PAGES or len(found) > MAX_ENTRIES:
                logger.warning("%s: %s does not end within bounds", self._route, method)
                raise because(link.unusable(self._route), f"{method} does not end within bounds")
            cursors.add(cursor)
            params = {"cursor": cursor}

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def _exchange(
        self,
        request: BackendRequest,
        notify: Notify,
        wanted: Container[str],
        *,
        request_id: int | None = None,
        idempotent: bool = False,
    ) -> tuple[Exchange, HttpResponse]:
        exchange = Exchange(next(self._ids) if request_id is None else request_id, notify, wanted)
        started = perf_counter()
        try:
            response = await self._client.request(
                b"POST",
                _lines(request),
                self._body(request, exchange.id),
                timeout=request.timeout,
                max_timeout=request.max_timeout,
                on_event=exchange.on_event,
                idempotent=idempotent,
            )
        except HttpError as error:
            raise self._failure(error, request, perf_counter() - started) from error
        return exchange, response

    def _body(self, request: BackendRequest, request_id: int) -> bytes:
        params = {**request.params, "_meta": self._introductions.of(request, request_id)}
        if request.answers is not None:
            params["inputResponses"] = request.answers
        if request.state is not None:
            params["requestState"] = request.state
        return _encode({"jsonrpc": "2.0", "id": request_id, "method": request.method, "params": params})

    def _failure(self, error: HttpError, request: BackendRequest, seconds: float) -> BackendUnavailable:
        if isinstance(error, HttpTimeout):
            if not error.sent:
                return BackendTimeout(f"The {self._route} backend could not be reached in time.", dispatched=False)
            over = seconds >= request.max_timeout - 0.01
            return link.late(self._route, request.max_timeout if over else request.timeout)
        if not error.sent:
            return link.refused(self._route)
        if isinstance(error, TooLarge):
            return link.too_large(self._route)
        return link.broken(self._route) if isinstance(error, ConnectionClosed) else link.unusable(self._route)

    def _reply(self, exchange: Exchange, response: HttpResponse, seconds: float) -> BackendReply:
        if response.status in (401, 403):
            raise because(link.not_admitted(self._route), f"HTTP status {response.status}")
        message = exchange.message(response)
        if message is None:
            raise because(link.unusable(self._route), f"no answer of MCP, HTTP status {response.status}")
        if message.error is not msgspec.UNSET:
            return BackendReply(None, self._error(message.error), seconds)
        if message.result is msgspec.UNSET or not 200 <= response.status < 300:
            raise because(link.unusable(self._route), f"HTTP status {response.status}")
        return BackendReply(dict(message.result), None, seconds)

    def _question(self, request: BackendRequest, reply: BackendReply) -> BackendReply:
        """An ``input_required`` result, or -32021 where the client did not declare what is asked of it."""
        members = reply.result or {}
        asked = decode_object(members.get("inputRequests", b"{}"))
        known = request.method in ASKING_METHODS and (asked or "requestState" in members)
        try:
            lacking = undeclared((asked or {}).values(), request.capabilities) if known else {}
        except NoQuestion:
            known = False
        if not known:
            raise because(link.unusable(self._route), "an input_required result that is none")
        if lacking:
            return BackendReply(None, missing_capability(self._route, lacking), reply.seconds)
        return reply

    def _error(self, error: Error) -> JsonObject:
        if error.code == HEADER_MISMATCH:
            raise StaleHeaders(f"The {self._route} backend has changed; nothing was executed.", dispatched=False)
        if error.code == UNSUPPORTED_VERSION:
            raise EraChanged(f"The {self._route} backend has changed; nothing was executed.", dispatched=False)
        said = {"code": error.code, "message": error.message}
        return said if error.data is msgspec.UNSET else {**said, "data": error.data}

    def _entries(self, method: str, raw: msgspec.Raw) -> list[JsonObject]:
        try:
            entries = _entries_decoder.decode(raw)
        except msgspec.DecodeError:
            raise link.unusable(self._route) from None
        if sum(map(_size, entries)) > MAX_PAGE_BYTES:
            raise link.too_large(self._route)
        fit = [entry for raw_entry in entries if (entry := _entry(raw_entry)) is not None]
        if len(fit) < len(entries):
            logger.warning("%s: %d entries of %s are left out", self._route, len(entries) - len(fit), method)
        return fit

    def _cursor(self, result: Mapping[str, msgspec.Raw]) -> str | None:
        if "nextCursor" not in result:
            return None
        try:
            return msgspec.json.decode(result["nextCursor"], type=str | None)
        except msgspec.DecodeError:
            raise link.unusable(self._route) from None

    def _decoded(self, result: Mapping[str, Any]) -> JsonObject:
        try:
            return {key: msgspec.json.decode(value) for key, value in result.items()}
        except (msgspec.DecodeError, RecursionError):
            raise link.unusable(self._route) from None


def _asks(kind: msgspec.Raw) -> bool:
    try:
        return bool(msgspec.json.decode(kind) == "input_required")  # however it is escaped
    except msgspec.DecodeError:
        return False


def _lines(request: BackendRequest) -> bytes:
    fixed = _fixed_lines(request.method, request.name)
    if not request.headers:
        return fixed
    return fixed + render_headers([(name.encode(), value.encode()) for name, value in request.headers.items()])


@lru_cache(maxsize=4096)
def _fixed_lines(method: str, name: str | None) -> bytes:
    headers = (*_HEADERS, (b"Mcp-Method", method.encode()))
    named = () if name is None else ((b"Mcp-Name", encode_header_value(name).encode("ascii")),)
    return render_headers((*headers, *named))


def _entry(raw: msgspec.Raw) -> JsonObject | None:
    return decode_object(raw) if _size(raw) <= MAX_ENTRY_BYTES else None


def _size(raw: msgspec.Raw) -> int:
    return memoryview(raw).nbytes


def _ignore(_method: str, _params: Mapping[str, Any]) -> None:
    return None
