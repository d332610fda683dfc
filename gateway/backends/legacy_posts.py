"""Requests of a session over streamable HTTP, each a POST answered by JSON or a stream (2025-11-25, ``transports``).

The SDK's transport greets, listens, resumes and ends the session; requests go past it, because it costs several times
as much as all else that the gateway does for a call.

Rules of this file
- A closed connection cancels nothing in this era: who no longer waits has ``notifications/cancelled`` posted.
- What a stream brings beside progress, logs and the answer is for the dispatcher of the session.
- A stream that ends before the answer, after an event with an id, is left to the SDK, which resumes it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any

import anyio
import jiter
import msgspec
from anyio.streams.memory import MemoryObjectSendStream
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ClientMessageMetadata, ServerMessageMetadata, SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)

from gateway.backends.http1 import HttpClient, HttpError, HttpResponse, render_headers
from gateway.backends.http1_connection import TooLarge, is_event_stream
from gateway.backends.link import NoCredentials
from gateway.backends.sse import Position
from gateway.backends.wire import Bearer, Exchange, Heard, Lines
from gateway.errors import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from gateway.models import JsonObject

Answer = tuple[JsonObject | None, MCPError | None]

_HEADERS: Lines = ((b"accept", b"application/json, text/event-stream"), (b"content-type", b"application/json"))

_TOLD = frozenset({"notifications/progress", "notifications/message"})

_FIRST = 1_000
"""Ids begin beyond those of the greeting, which the SDK counts."""

_LONGEST = 86_400.0
"""Seconds; whoever sends holds the deadlines, which move while it waits."""

_CANCELLING = 5.0
"""Seconds for which one who no longer waits for an answer waits until that can be told."""

_LISTENING = 0.5
"""Seconds in which a backend answers the GET of a session's stream. Some do not before they have something to say."""

_encode = msgspec.json.Encoder().encode


class Posts:
    """The requests of one session; implements ``wire.Requests``.

    ``greeted`` has the headers of the session once its greeting is over; ``listening`` is set once its stream beside
    requests is open or will not be, for a backend that asks there loses what it asks before. ``outgoing`` takes
    messages for the SDK, ``incoming`` those for the dispatcher. ``bearer`` has their tokens, where they bear any.
    """

    def __init__(
        self,
        client: HttpClient,
        greeted: asyncio.Future[Lines],
        listening: asyncio.Event,
        outgoing: MemoryObjectSendStream[SessionMessage],
        incoming: MemoryObjectSendStream[SessionMessage | Exception],
        bearer: Bearer | None = None,
    ) -> None:
        self._client = client
        self._bearer = bearer
        self._greeted = greeted
        self._listening = listening
        self._headers: Lines | None = None
        self._outgoing = outgoing
        self._incoming = incoming
        self._ids = itertools.count(_FIRST)
        self._running: set[Exchange] = set()
        self._resumed: dict[int, asyncio.Future[Answer]] = {}

    async def send(self, method: str, params: Mapping[str, Any], exchange: Exchange, heard: Heard) -> Answer:
        """See ``wire.Requests``."""
        self._running.add(exchange)
        try:
            async with exchange.guard():
                headers = await self._begun() if self._headers is None else self._headers
                return await self._post(method, params, _Reading(exchange, heard, self._incoming), headers)
        except TimeoutError:  # the session has ended
            exchange.fault = "broken"
            return _closed("Connection closed")
        finally:
            self._running.discard(exchange)

    def answered(self, item: SessionMessage | Exception) -> bool:
        """Take a message from the SDK that answers a request whose stream was resumed; False: it is none."""
        message = None if isinstance(item, Exception) else item.message
        if not isinstance(message, JSONRPCResponse | JSONRPCError) or not isinstance(message.id, int):
            return False
        waiting = self._resumed.get(message.id)
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(_of_sdk(message))
        return True

    def close(self) -> None:
        """The session has ended, and with it all that waits."""
        for exchange in self._running:
            exchange.abandon()

    async def _begun(self) -> Lines:
        headers = await asyncio.shield(self._greeted)
        if _in_session(headers):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LISTENING):
                    await self._listening.wait()
        self._headers = headers
        return headers

    async def _post(self, method: str, params: Mapping[str, Any], reading: _Reading, headers: Lines) -> Answer:
        request_id = next(self._ids)
        message: JsonObject = {"jsonrpc": "2.0", "id": request_id, "method": method}
        if params:
            message["params"] = params
        try:
            if not await self._exchange(_encode(message), reading, headers):
                return reading.answer(request_id, in_session=_in_session(headers))
            return await self._resume(request_id, method, reading)
        except asyncio.CancelledError:
            await self._cancel(request_id)
            raise

    async def _exchange(self, body: bytes, reading: _Reading, headers: Lines) -> bool:
        """Send it and read what comes; whether the rest of it is to be had elsewhere."""
        exchange = reading.exchange
        await asyncio.sleep(0)  # what the loop has not told yet: that the server has closed a kept connection
        try:
            reading.response = response = await self._sent(body, reading, headers)
        except NoCredentials as error:
            exchange.fault, exchange.cause = "refused", error
            return False
        except HttpError as error:
            exchange.cause = error
            if isinstance(error, TooLarge):
                exchange.fault = "too_large"
            elif not error.sent:
                exchange.fault = "refused"
            elif reading.resumable:
                return True
            else:
                exchange.fault = "broken"
            return False
        exchange.status = response.status
        return response.status == 200 and is_event_stream(response.headers) and reading.resumable

    def _sent(self, body: bytes, reading: _Reading, headers: Lines) -> Awaitable[HttpResponse]:
        def send(own: Lines) -> Awaitable[HttpResponse]:
            return self._client.request(
                b"POST",
                render_headers((*_HEADERS, *headers, *own)),
                body,
                timeout=_LONGEST,
                max_timeout=_LONGEST,
                on_event=reading.on_event,
                position=reading.position,
            )

        return send(()) if self._bearer is None else self._bearer.bear(reading.exchange.caller, send)

    async def _resume(self, request_id: int, method: str, reading: _Reading) -> Answer:
        exchange, position = reading.exchange, reading.position
        retry = b"" if position.retry is None else b"retry: %d\n" % position.retry
        exchange.resumes = b"id: %b\n%bdata:\n\n" % (position.id, retry)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._resumed[request_id] = answer
        request = JSONRPCRequest(jsonrpc="2.0", id=request_id, method=method)
        try:
            await self._outgoing.send(SessionMessage(request, ClientMessageMetadata(headers=exchange.headers)))
            found = await answer
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return _closed("Connection closed")
        finally:
            del self._resumed[request_id]
        return found

    async def _cancel(self, request_id: int) -> None:
        params = {"requestId": request_id, "reason": "caller cancelled"}
        notification = JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=params)
        with (
            suppress(anyio.BrokenResourceError, anyio.ClosedResourceError),
            anyio.move_on_after(_CANCELLING, shield=True),
        ):
            await self._outgoing.send(SessionMessage(notification))


class _Reading:
    """What comes back for one POST."""

    __slots__ = ("_found", "_heard", "_incoming", "_over", "exchange", "position", "response")

    def __init__(
        self, exchange: Exchange, heard: Heard, incoming: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        self.exchange = exchange
        self.position = Position()
        self.response: HttpResponse | None = None
        self._heard = heard
        self._incoming = incoming
        self._found: JsonObject | None = None
        self._over = False

    @property
    def resumable(self) -> bool:
        """The stream has not brought the answer, and may be resumed."""
        return bool(self.position.id) and not self._over

    def on_event(self, data: bytes) -> bool:
        """Take one event of the stream; True when there is no more to wait for, be it that nothing good can come."""
        if not data:  # an event that only carries an id
            return False
        message = _message(data)
        method = message.get("method") if message is not None else None
        if message is None or not isinstance(method, str):
            self._found, self._over = message, True
        elif method in _TOLD and "id" not in message:
            self._heard(method, _object(message.get("params")), self.exchange)
        else:
            self._over = not self._dispatched(data)
        return self._over

    def answer(self, request_id: int, *, in_session: bool) -> Answer:
        """The answer in what was read, or what the lack of one means in the words of the SDK (see ``verdict``)."""
        response = self.response
        if response is None or self.exchange.fault is not None:
            return _closed("Connection closed")
        events = is_event_stream(response.headers)
        if response.status >= 400:
            return None, _refusal(response, in_session=in_session)
        if response.status == 202 or response.status >= 300:
            return _unusable()
        if events:
            # Whatever id it bears: on this stream it can answer nothing else.
            return _read(self._found) if self._over else _closed("SSE stream ended without a response")
        found = _message(response.body) if _is_json(response) else None
        return _read(found) if found is not None and str(found.get("id")) == str(request_id) else _unusable()

    def _dispatched(self, data: bytes) -> bool:
        """A request of the backend, or a notification, is on its way; False: there is no more room for it."""
        try:
            message: JSONRPCMessage = jsonrpc_message_adapter.validate_json(data, by_name=False)
            self._incoming.send_nowait(SessionMessage(message, ServerMessageMetadata(request_context=self.exchange)))
        except ValueError:
            return False
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return True
        except anyio.WouldBlock:
            self.exchange.fault = "too_large"
            return False
        return True


def _in_session(headers: Lines) -> bool:
    return any(name == b"mcp-session-id" for name, _ in headers)


def _message(data: bytes) -> JsonObject | None:
    """A JSON-RPC message, or None. Integers are of any size."""
    try:
        message = jiter.from_json(data)
    except ValueError:
        return None
    return message if isinstance(message, dict) and message.get("jsonrpc") == "2.0" else None


def _read(message: JsonObject | None) -> Answer:
    if message is None or "method" in message or ("error" in message) == ("result" in message):
        return _unusable()
    if "error" in message:
        error = _error(message["error"])
        return (None, error) if error is not None else _unusable()
    result = message["result"]
    return (result, None) if isinstance(result, dict) else _unusable()


def _error(error: Any) -> MCPError | None:
    if not isinstance(error, dict):
        return None
    code, said = error.get("code"), error.get("message")
    if not isinstance(code, int) or isinstance(code, bool) or not isinstance(said, str):
        return None
    return MCPError(code=code, message=said, data=error.get("data"))


def _refusal(response: HttpResponse, *, in_session: bool) -> MCPError:
    message = _message(response.body) if _is_json(response) else None
    error = _error(message.get("error")) if message is not None else None
    if error is not None:
        return error
    if response.status == 404:
        return MCPError(INVALID_REQUEST if in_session else METHOD_NOT_FOUND, "Not Found")
    return MCPError(INTERNAL_ERROR, "Server returned an error response")


def _of_sdk(message: JSONRPCResponse | JSONRPCError) -> Answer:
    if isinstance(message, JSONRPCResponse):
        return message.result, None
    return None, MCPError(code=message.error.code, message=message.error.message, data=message.error.data)


def _unusable() -> Answer:
    return None, MCPError(PARSE_ERROR, "Failed to parse the answer")


def _closed(why: str) -> Answer:
    return None, MCPError(CONNECTION_CLOSED, why)


def _is_json(response: HttpResponse) -> bool:
    return response.headers.get(b"content-type", b"").lower().startswith(b"application/json")


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
