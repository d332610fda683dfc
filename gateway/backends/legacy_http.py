"""Streamable HTTP of the legacy era, over the SDK's transport.

The SDK's transport reports an HTTP error as a made-up JSON-RPC error, and lets a connection that fails take all
requests of its session along. So the HTTP client below it is watched: it notes status and fault for each request,
and turns a failure into an answer that ends that request alone. Requests of a session that has begun do not take this
way: see ``legacy_posts``.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import ServerMessageMetadata, SessionMessage

from gateway.backends.http1 import HttpClient
from gateway.backends.legacy_posts import Posts
from gateway.backends.wire import (
    CALLER,
    CONNECT,
    KEEPALIVE,
    OUTBOX,
    Bearer,
    Exchange,
    Signals,
    Streams,
    Wrap,
    tls_for,
)
from gateway.egress.addresses import Reach
from gateway.egress.guarded import GuardedTransport
from gateway.models import Principal

# They log URLs, session ids and whole messages; what matters of them is reported by this package.
for _name in ("mcp", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_TAG = "x-mcp-gateway-exchange"
"""Carries the exchange through the SDK to the watched client, which takes it off."""

_EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")
"""The request whose answer is being read. The SDK hands the context of whoever read a message on with it."""

_STREAM: ContextVar[_Stream] = ContextVar("stream")
"""The session that the SDK listens for outside of requests."""

_EVENTS = {"content-type": "text/event-stream"}

_ASIDE = {"connect": 2.0, "read": 5.0, "write": 5.0, "pool": 2.0}
"""Seconds for what nobody waits for but the writer of the session: notifications, answers, the end of a session."""


class LegacyHttp:
    """One HTTP client for all sessions with a backend; implements ``wire.Transport``.

    ``max_response`` bounds an answer, and each event of a stream, in bytes. ``headers`` are the credentials.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        max_connections: int = 64,
        max_response: int = 16 * 1024 * 1024,
        verify: ssl.SSLContext | None = None,
        reach: Reach = "configured",
        wrap: Wrap | None = None,
    ) -> None:
        self._url = url
        self._headers = headers
        self._wrap = wrap
        self._bearer: Bearer | None = None
        self._max_response = max_response
        self._exchanges: dict[str, Exchange] = {}
        self._tags = itertools.count(1)
        self._inner = GuardedTransport(
            reach,
            verify=verify or tls_for(url),
            # Calls are bounded by the bulkhead, the streams of idle sessions by the pool of sessions.
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=max_connections, keepalive_expiry=KEEPALIVE
            ),
        )
        self._client = self._client_over(self._inner)
        # Calls are bounded by the bulkhead, and one that is parked keeps its connection.
        self._posts = HttpClient(
            url,
            headers=headers,
            max_connections=sys.maxsize,
            connect_timeout=CONNECT,
            keepalive=KEEPALIVE,
            max_response=max_response,
            verify=verify,
            reach=reach,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """See ``wire.Transport``. Leaving it ends the session with DELETE."""
        to_backend, outgoing = anyio.create_memory_object_stream[SessionMessage](OUTBOX)
        incoming, from_backend = anyio.create_memory_object_stream[SessionMessage | Exception](OUTBOX)
        stream = _Stream()
        _STREAM.set(stream)
        posts = Posts(self._posts, stream.greeted, stream.listening, to_backend, incoming, self._bearer)
        async with (
            streamable_http_client(self._url, http_client=self._client, max_sse_event_size=self._max_response) as (
                read,
                write,
            ),
            anyio.create_task_group() as carriers,
        ):
            gone = asyncio.Event()
            carriers.start_soon(_carry, outgoing, write, gone)
            carriers.start_soon(_carry, read, incoming, gone, posts)
            try:
                yield Streams(from_backend, to_backend, gone, stream.signals, posts)
            finally:
                posts.close()
            carriers.cancel_scope.cancel()

    def on_behalf(self, principal: Principal) -> LegacyHttp:
        """See ``wire.Transport``."""
        if self._wrap is None:
            return self
        own = copy.copy(self)
        own._bearer = self._wrap(self._inner, principal)
        own._client = self._client_over(own._bearer)
        return own

    def begin(self, caller: Principal) -> Exchange:
        """See ``wire.Transport``."""
        tag = str(next(self._tags))
        exchange = self._exchanges[tag] = Exchange({_TAG: tag}, caller if self._wrap and caller.issuer else None)
        return exchange

    def end(self, exchange: Exchange) -> None:
        """See ``wire.Transport``."""
        self._exchanges.pop(exchange.headers[_TAG], None)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._posts.aclose()

    def _client_over(self, inner: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=_Watched(inner, self._exchanges, self._max_response),
            headers=[("accept-encoding", "identity"), *self._headers],
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(connect=CONNECT, read=None, write=30.0, pool=CONNECT),
        )


async def _carry(source: Any, sink: Any, gone: asyncio.Event, posts: Posts | None = None) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with source, sink:
            async for item in source:
                if posts is None or not posts.answered(item):
                    await sink.send(_attributed(item, source))
    gone.set()


def _attributed(item: Any, source: Any) -> Any:
    context = getattr(source, "last_context", None)
    exchange = context.get(_EXCHANGE) if context is not None else None
    if exchange is None or isinstance(item, Exception):
        return item
    return SessionMessage(item.message, ServerMessageMetadata(request_context=exchange))


class _Stream:
    """The GET stream of one session: ``opened`` once it was, ``missed`` while it is interrupted.

    ``greeted`` has what the headers of each message tell of the session, once the greeting is over. ``listening`` is
    set once the backend has answered, be it that there is no such stream.
    """

    def __init__(self) -> None:
        self.signals = Signals()
        self.greeted: asyncio.Future[tuple[tuple[bytes, bytes], ...]] = asyncio.get_running_loop().create_future()
        self.listening = asyncio.Event()
        self.opened = False
        self.missed = False


class _Watched(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncBaseTransport, exchanges: dict[str, Exchange], max_response: int) -> None:
        self._inner = inner
        self._exchanges = exchanges
        self._max_response = max_response

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = self._exchanges.get(request.headers.pop(_TAG, ""))
        if exchange is None:
            return await self._aside(request)
        _EXCHANGE.set(exchange)
        if exchange.resumes:
            # The SDK takes this for a stream that was cut off, and comes again for the rest.
            return httpx2.Response(200, headers=_EVENTS, content=exchange.resumes, request=request)
        if exchange.caller is not None:
            request.extensions = {**request.extensions, CALLER: exchange.caller}
        try:
            async with exchange.guard():
                response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            exchange.fault, exchange.cause = "refused", error
        except httpx2.TransportError as error:
            exchange.fault, exchange.cause = "broken", error
        except TimeoutError:
            exchange.fault = "abandoned"
        else:
            exchange.status = response.status_code
            if _declared(response) <= self._max_response:
                return _answer(response, exchange, self._max_response)
            await response.aclose()
            exchange.fault = "too_large"
        return httpx2.Response(502, request=request)

    async def _aside(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return await self._listen(request, _STREAM.get())
        request.extensions = {**request.extensions, "timeout": _ASIDE}
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError:
            # Lost, as notifications may be; an error would end the session for everyone in it.
            return httpx2.Response(202, request=request)
        finally:
            _greeted(request, _STREAM.get())
        return _without_cookies(response, response.stream)

    async def _listen(self, request: httpx2.Request, stream: _Stream) -> httpx2.Response:
        # The SDK gives up after two errors; after a stream that ended it always comes again.
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError:
            stream.missed = True
            return httpx2.Response(200, headers=_EVENTS, request=request)
        finally:
            stream.listening.set()
        if response.status_code == 404 and stream.opened:
            stream.signals.on_forgotten()
        if response.status_code == 200:
            if stream.missed:
                stream.signals.on_gap()
            stream.opened, stream.missed = True, False
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return _without_cookies(response, _Listened(response.stream, stream))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Listened(httpx2.AsyncByteStream):
    def __init__(self, body: httpx2.AsyncByteStream, stream: _Stream) -> None:
        self._body = body
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                yield chunk
        except httpx2.TransportError:
            self._stream.missed = True

    async def aclose(self) -> None:
        await self._body.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, counted; it fails with what the SDK takes as the end of this one request."""

    def __init__(self, body: httpx2.AsyncByteStream, exchange: Exchange, limit: int, *, events: bool) -> None:
        self._body = body
        self._exchange = exchange
        self._limit = limit
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._body)
        room = self._limit
        while True:
            try:
                async with self._exchange.guard():
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise self._ended("abandoned") from None
            except httpx2.TransportError as error:
                self._exchange.cause = error
                # A stream of events may be resumed; the SDK knows whether.
                raise httpx2.StreamError("broken") if self._events else self._ended("broken") from None
            if chunk is None:
                return
            room -= len(chunk)
            if room < 0 and not self._events:
                raise self._ended("too_large")
            yield chunk

    def _ended(self, fault: str) -> Exception:
        self._exchange.fault = fault  # type: ignore[assignment]
        return httpx2.SSEError(fault) if self._events else httpx2.StreamError(fault)

    async def aclose(self) -> None:
        await self._body.aclose()


def _answer(response: httpx2.Response, exchange: Exchange, limit: int) -> httpx2.Response:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
    return _without_cookies(response, _Body(response.stream, exchange, limit, events=events))


def _without_cookies(response: httpx2.Response, stream: Any) -> httpx2.Response:
    return httpx2.Response(
        response.status_code,
        # No cookie jar: a cookie would carry state from one principal to the next.
        headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() != "set-cookie"],
        stream=stream,
        extensions=response.extensions,
    )


def _greeted(request: httpx2.Request, stream: _Stream) -> None:
    """The first message beside requests is ``notifications/initialized``; requests have to wait for it."""
    if not stream.greeted.done():
        known = (b"mcp-session-id", b"mcp-protocol-version")
        stream.greeted.set_result(
            tuple((name.lower(), value) for name, value in request.headers.raw if name.lower() in known)
        )


def _declared(response: httpx2.Response) -> int:
    length = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdecimal() else 0
