"""A backend of the modern era over HTTP: every request is a POST of its own (2026-07-28, ``streamable-http``).

What comes back is read no deeper than its envelope: the members of a result stay the bytes that the backend sent.

Rules of this file
- Ids, progress tokens and the reserved keys of ``_meta`` are ours on this leg, never the client's.
- An answer counts only with our id. Whatever else comes in its place ends the exchange as ``BackendUnavailable``.
- No message holds a URL, a host name or a word of the backend's.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from time import perf_counter
from typing import Any, Literal

import msgspec
from mcp.shared.inbound import encode_header_value

from gateway.backends import link, probe
from gateway.backends.http1 import HttpClient, HttpError, HttpResponse, HttpTimeout
from gateway.backends.http1_connection import ConnectionClosed, TooLarge, is_event_stream
from gateway.errors import HEADER_MISMATCH, UNSUPPORTED_VERSION, BackendTimeout, BackendUnavailable
from gateway.models import ANONYMOUS, BackendReply, BackendRequest, JsonObject
from gateway.ports import Notify
from gateway.protocol.revisions import CLIENT_CAPABILITIES, CLIENT_INFO, MODERN, PROTOCOL_VERSION, VENDOR_PREFIX

logger = logging.getLogger(__name__)

MAX_PAGES = 20
MAX_ENTRIES = 2_000
MAX_ENTRY_BYTES = 200_000
MAX_PAGE_BYTES = 8 * 2**20

ORIGINAL_CLIENT_INFO = VENDOR_PREFIX + "client-info"
"""``_meta`` key under which a backend finds whom the gateway speaks for; unverified, as ``clientInfo`` is."""

_OURS = frozenset({PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, "progressToken"})
_HEADERS = (
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json, text/event-stream"),
    (b"MCP-Protocol-Version", MODERN[0].encode()),
)
_NOTIFICATIONS = ("notifications/progress", "notifications/message")
_NO_VERDICT = (408, 425, 429)
"""Statuses below 500 that say nothing of what a server speaks."""


class NotModern(Exception):  # noqa: N818 - an answer, not a failure
    """The backend answered ``server/discover`` as no modern server does."""


class StaleHeaders(BackendUnavailable):
    """-32020: the backend's tool has other ``Mcp-Param-*`` headers now. Nothing was executed."""


class EraChanged(link.WrongEra):
    """-32022: the backend no longer serves our revision. Nothing was executed."""


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Any = msgspec.UNSET


class _Message(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: dict[str, msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    error: _Error | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_Message)
_params_decoder = msgspec.json.Decoder(dict[str, Any])
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
        self._info = {"name": "mcp-gateway", "version": version or metadata.version("mcp-gateway")}
        # Unique also beside other workers and former processes; far below 2**53, so exact for any JSON reader.
        self._ids = itertools.count(secrets.randbits(48))

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        """Send and wait. Cancelling closes the connection, which is what cancels in this era.

        Raises:
            StaleHeaders, EraChanged: refresh what is known of the backend, then send again.
            BackendTimeout, BackendUnavailable: ``dispatched`` says whether it had left.
        """
        started = perf_counter()
        exchange, response = await self._exchange(request, notify, idempotent=False)
        return self._reply(exchange, response, perf_counter() - started)

    async def discover(self, timeout: float) -> JsonObject:  # noqa: ASYNC109 - seconds, held by the client
        """Return the decoded result of ``server/discover``.

        Raises:
            NotModern: the backend answered, as a server of the legacy era or of no MCP at all.
            BackendUnavailable: what happened says nothing of the era (network, timeout, 5xx, 401, 403).
        """
        request = BackendRequest("server/discover", {}, ANONYMOUS, timeout=timeout, max_timeout=timeout)
        exchange, response = await self._exchange(request, _ignore, idempotent=True)
        status = response.status
        if status in (401, 403):
            raise link.not_admitted(self._route)
        if status >= 500 or 300 <= status < 400 or status in _NO_VERDICT:
            raise link.unreachable(self._route)
        message = exchange.message(response)
        error = message.error if message is not None else msgspec.UNSET
        if error is not msgspec.UNSET:
            if probe.era_of_error(error.code, error.data) == "legacy":
                raise NotModern
            raise link.unusable(self._route)
        if status >= 400 or not (response.body or exchange.heard):
            raise NotModern
        result = self._decoded(self._reply(exchange, response, 0.0).result or {})
        if probe.era_of_result(result) == "legacy":
            raise NotModern
        return result

    async def list_all(self, method: str, key: str, timeout: float) -> list[JsonObject]:  # noqa: ASYNC109
        """Return all entries under ``key`` over all pages of a list, all of it within ``timeout`` seconds.

        Entries that are no objects or over ``MAX_ENTRY_BYTES`` are left out and logged.

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
            exchange, response = await self._exchange(request, _ignore, idempotent=True)
            result = self._reply(exchange, response, 0.0).result
            if result is None or key not in result:
                raise link.unusable(self._route)
            found += self._entries(method, result[key])
            cursor = self._cursor(result)
            if cursor is None:
                return found
            if cursor in cursors or len(cursors) + 1 >= MAX_PAGES or len(found) > MAX_ENTRIES:
                logger.warning("%s: %s does not end within bounds", self._route, method)
                raise link.unusable(self._route)
            cursors.add(cursor)
            params = {"cursor": cursor}

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def _exchange(
        self, request: BackendRequest, notify: Notify, *, idempotent: bool
    ) -> tuple[_Exchange, HttpResponse]:
        exchange = _Exchange(next(self._ids), notify, wants_progress=request.wants_progress)
        started = perf_counter()
        try:
            response = await self._client.request(
                b"POST",
                _headers(request),
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
        meta = {
            key: value for key, value in request.meta.items() if key not in _OURS and not key.startswith(VENDOR_PREFIX)
        }
        meta[PROTOCOL_VERSION] = MODERN[0]
        meta[CLIENT_CAPABILITIES] = dict(request.capabilities)
        meta[CLIENT_INFO] = self._info
        if request.client_info is not None:
            meta[ORIGINAL_CLIENT_INFO] = dict(request.client_info)
        if request.wants_progress:
            meta["progressToken"] = request_id
        params = {**request.params, "_meta": meta}
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

    def _reply(self, exchange: _Exchange, response: HttpResponse, seconds: float) -> BackendReply:
        if response.status in (401, 403):
            raise link.not_admitted(self._route)
        message = exchange.message(response)
        if message is None:
            raise link.unusable(self._route)
        if message.error is not msgspec.UNSET:
            return BackendReply(None, self._error(message.error), seconds)
        if message.result is msgspec.UNSET or not 200 <= response.status < 300:
            raise link.unusable(self._route)
        return BackendReply(dict(message.result), None, seconds)

    def _error(self, error: _Error) -> JsonObject:
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


class _Exchange:
    """What comes back for one request, as JSON or as a stream."""

    __slots__ = ("_answer", "_notify", "_wants_progress", "heard", "id")

    def __init__(self, request_id: int, notify: Notify, *, wants_progress: bool) -> None:
        self.id = request_id
        self.heard = False
        self._notify = notify
        self._wants_progress = wants_progress
        self._answer: _Message | None = None

    def on_event(self, data: bytes) -> bool:
        """Take one event of the stream; True when there is no more to wait for, be it that nothing good can come."""
        if not data:  # an event that only carries an id
            return False
        self.heard = True
        message = _decode(data)
        if message is not None and message.method is not msgspec.UNSET and message.id is msgspec.UNSET:
            self._notification(message.method, message.params)
            return False
        self._answer = message
        return True

    def message(self, response: HttpResponse) -> _Message | None:
        """The one answer to our request, or None. An error may lack the id where the server read none (4xx, 5xx)."""
        message = self._answer if is_event_stream(response.headers) else _decode(response.body)
        if message is None or message.method is not msgspec.UNSET:
            return None
        if (message.error is msgspec.UNSET) == (message.result is msgspec.UNSET):
            return None
        unread = message.id is None or message.id is msgspec.UNSET
        if unread and message.error is not msgspec.UNSET and response.status >= 400:
            return message
        return message if message.id == self.id else None

    def _notification(self, method: str, raw: msgspec.Raw | msgspec.UnsetType) -> None:
        if method not in _NOTIFICATIONS or raw is msgspec.UNSET:
            return
        try:
            params = _params_decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return
        if method == "notifications/progress" and (
            params.pop("progressToken", None) != self.id or not self._wants_progress
        ):
            return
        self._notify(method, params)


def _headers(request: BackendRequest) -> Sequence[tuple[bytes, bytes]]:
    fixed = _fixed_headers(request.method, request.name)
    if not request.headers:
        return fixed
    return [*fixed, *((name.encode(), value.encode()) for name, value in request.headers.items())]


@lru_cache(maxsize=4096)
def _fixed_headers(method: str, name: str | None) -> tuple[tuple[bytes, bytes], ...]:
    headers = (*_HEADERS, (b"Mcp-Method", method.encode()))
    return headers if name is None else (*headers, (b"Mcp-Name", encode_header_value(name).encode("ascii")))


def _decode(data: bytes) -> _Message | None:
    try:
        if not data.isascii():
            data.decode()  # what stays raw is not checked by the decoder
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _entry(raw: msgspec.Raw) -> JsonObject | None:
    if _size(raw) > MAX_ENTRY_BYTES:
        return None
    try:
        return _params_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _size(raw: msgspec.Raw) -> int:
    return memoryview(raw).nbytes


def _ignore(_method: str, _params: Mapping[str, Any]) -> None:
    return None
