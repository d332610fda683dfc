"""``/mcp`` and ``/mcp/<toolset>`` as a plain ASGI callable: a framework route costs more than the whole policy."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, Refusal
from gateway.http import guards, streams
from gateway.http.conversations import Conversations
from gateway.http.cycle import AT_ONCE
from gateway.http.heads import BODY, NOTES
from gateway.http.kept import Reader
from gateway.http.proxies import TrustedProxies
from gateway.http.responder import Responder, Silences
from gateway.http.resumption import Events, ResumableResponder
from gateway.http.server import LEFT
from gateway.pipeline import Pipeline
from gateway.protocol.answers import Answer
from gateway.protocol.inbound import Former, Inbound
from gateway.tokens import Presented

PATH = "/mcp"

_NONE: frozenset[str] = frozenset()

_Out = tuple[Any, list[tuple[bytes, bytes]]]
"""How to send, and the headers that every answer has."""


class _Head(msgspec.Struct, frozen=True):
    """What the head of a request says; the same for each that a connection sends with the same head."""

    client_address: str
    toolset: str | None
    headers: dict[str, str]
    repeated: frozenset[str]
    authorization: tuple[bytes, ...]
    cors: Sequence[tuple[bytes, bytes]]
    may_stream: bool
    former: Former = msgspec.field(default_factory=Former)


class Endpoint:
    """Turns ASGI into ``Inbound`` values and answers back into ASGI."""

    def __init__(
        self,
        pipeline: Pipeline,
        guard: guards.BrowserGuard,
        conversations: Conversations,
        *,
        proxies: TrustedProxies,
        max_body: int,
    ) -> None:
        self._pipeline = pipeline
        self._guard = guard
        self._conversations = conversations
        self._proxies = proxies
        self._events = Events()
        self._silences = Silences()
        self._max_body = max_body
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one HTTP request below ``PATH``."""
        notes = scope.get(NOTES, {})
        known: _Head | None = notes.get("admitted")
        head = known or self._read_head(scope)
        body: bytes | None = scope.get(BODY)
        if body is not None and len(body) > self._max_body:
            body = None
        inbound = Inbound(
            request_id=f"{self._prefix}{next(self._numbers):08x}",
            client_address=head.client_address,
            toolset=head.toolset,
            headers=head.headers,
            repeated=head.repeated,
            authorization=head.authorization,
            body=body,
            read=partial(self._read, receive),
            former=head.former,
        )
        reply_headers = [(b"x-request-id", inbound.request_id.encode()), *head.cors]
        if known is None:
            try:
                self._admit(scope["method"], inbound)
            except Refusal as refusal:
                if refusal.status == 405:
                    reply_headers.append((b"allow", b"POST"))
                answer = await self._pipeline.refuse(inbound, refusal)
                await Responder(send, reply_headers, may_stream=False).finish(answer)
                return
            if head.toolset is None:  # which toolsets there are may change
                head.headers.pop("content-length", None)  # the only thing of a head that may be another next time
                notes["admitted"] = head
        if scope["method"] != "POST":
            await self._serve(scope, inbound, send, reply_headers)
            return
        responder = self._responder(scope, head, send, reply_headers)
        try:
            try:
                answer = await self._pipeline.post(inbound, responder)
            except asyncio.CancelledError:
                if not responder.unwanted():
                    raise
                answer = Answer(202)  # no answer, and no broken connection, for which clients give up their session
            if not responder.sent(answer):
                await self._finish(answer, responder, inbound, (send, reply_headers))
        finally:
            responder.abandon()

    def _read_head(self, scope: Mapping[str, Any]) -> _Head:
        headers, repeated, authorization = _read_headers(scope["headers"])
        origin = headers.get("origin")
        return _Head(
            client_address=self._proxies.client(scope["client"][0], scope["headers"]) if scope["client"] else "",
            toolset=_toolset(scope["path"]),
            headers=headers,
            repeated=repeated,
            authorization=authorization,
            cors=self._guard.cors(origin) if origin is not None else (),
            may_stream=guards.accepts(headers, "text/event-stream"),
        )

    def _admit(self, method: str, inbound: Inbound) -> None:
        """What is refused before anybody is authenticated."""
        headers = inbound.headers
        self._guard.check(headers, inbound.repeated)
        if inbound.toolset is not None and not self._pipeline.rules.catalog.has(inbound.toolset):
            raise InvalidRequest("There is no such toolset here.", status=404, rule="guard.toolset")
        if method == "POST":
            guards.check_framing(headers, inbound.repeated, self._max_body)
            if not guards.accepts(headers, "application/json") and not guards.accepts(headers, "text/event-stream"):
                message = "The client must accept application/json and text/event-stream."
                raise InvalidRequest(message, status=406, rule="guard.accept")
        elif method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            return
        elif method not in ("GET", "DELETE") or "mcp-session-id" not in headers:
            raise InvalidRequest("Only POST is served here outside a session.", status=405, rule="guard.method")
        elif method == "GET" and not guards.accepts(headers, "text/event-stream"):
            raise InvalidRequest("This stream is text/event-stream.", status=406, rule="guard.accept")

    async def _serve(
        self, scope: MutableMapping[str, Any], inbound: Inbound, send: Any, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """GET, DELETE and OPTIONS."""
        method = scope["method"]
        if method == "GET":
            responder = Responder(send, headers, may_stream=False)
            answer = await self._pipeline.stream(inbound, partial(self._resumed, inbound))
            await self._finish(answer, responder, inbound, (send, headers))
        elif method == "DELETE":
            answer = await self._pipeline.end(inbound)
            if answer.status == 204:
                self._events.end_session(inbound.headers["mcp-session-id"])
            await Responder(send, headers, may_stream=False).finish(answer)
        else:
            asked = inbound.headers.get("access-control-request-headers", "")
            headers += self._guard.preflight(inbound.headers["origin"], asked)
            await Responder(send, headers, may_stream=False).finish(Answer(204))

    def _responder(
        self, scope: MutableMapping[str, Any], head: _Head, send: Any, headers: list[tuple[bytes, bytes]]
    ) -> Responder:
        if not head.may_stream or "mcp-session-id" not in head.headers:
            return Responder(
                send,
                headers,
                may_stream=head.may_stream,
                conversations=self._conversations,
                silences=self._silences,
                at_once=scope[AT_ONCE],
            )
        responder = ResumableResponder(
            send,
            headers,
            conversations=self._conversations,
            events=self._events,
            toolset=head.toolset,
            silences=self._silences,
        )
        scope[LEFT] = responder.left
        return responder

    def _resumed(self, inbound: Inbound) -> AbstractContextManager[Reader] | None:
        """The stream that a client comes back to, in place of the one of its session."""
        event_id = inbound.headers.get("last-event-id")
        if event_id is None:
            return None
        return self._events.resume(inbound.headers["mcp-session-id"], inbound.toolset, event_id)

    async def _finish(self, answer: Answer, responder: Responder, inbound: Inbound, out: _Out) -> None:
        """Send an answer, or hold the stream open that it is."""
        if answer.opens is None:
            await responder.finish(answer)
            return
        try:
            with answer.opens as stream:
                await streams.serve(stream, *out)
        except Refusal as refusal:
            await responder.finish(await self._pipeline.refuse(inbound, refusal, admitted=True))

    async def _read(self, receive: Any) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        parts = [body]
        size = len(body)
        while message.get("more_body", False) and size <= self._max_body:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if message["type"] != "http.request":
            raise InvalidRequest("The body ended before it was whole.", rule="guard.framing")
        if size > self._max_body:
            raise guards.too_large(self._max_body)
        return b"".join(parts) if len(parts) > 1 else body


def _toolset(path: str) -> str | None:
    return path[len(PATH) + 1 :] if len(path) > len(PATH) else None


def _read_headers(
    raw: Sequence[tuple[bytes, bytes]],
) -> tuple[dict[str, str], frozenset[str], tuple[bytes, ...]]:
    """Names in lower case to values, the names that came more than once, and every Authorization value."""
    once = dict(raw)
    if len(once) == len(raw):
        token = once.pop(b"authorization", None)
        headers = {name.decode("latin-1"): value.decode("latin-1").strip() for name, value in once.items()}
        return headers, _NONE, () if token is None else (Presented(token),)
    headers = {}
    repeated: set[str] = set()
    authorization: list[bytes] = []
    for name_bytes, value in raw:
        name = name_bytes.decode("latin-1")
        if name == "authorization":
            authorization.append(Presented(value))
        elif name in headers:
            repeated.add(name)
        else:
            headers[name] = value.decode("latin-1").strip()
    return headers, frozenset(repeated), tuple(authorization)
