"""Streamable HTTP of the legacy era, over the SDK's transport.

The SDK's transport reports an HTTP error as a made-up JSON-RPC error, and lets a connection that fails take all
requests of its session along. So the HTTP client below it is watched: it notes status and fault for each request,
and turns a failure into an answer that ends that request alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from gateway.backends.wire import OUTBOX, Exchange, Streams

# They log URLs, session ids and whole messages; what matters of them is reported by this package.
for _name in ("mcp", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_TAG = "x-mcp-gateway-exchange"
"""Carries the exchange through the SDK to the watched client, which takes it off."""

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
        connect_timeout: float = 2.0,
        keepalive: float = 3.0,
        max_connections: int = 64,
        max_response: int = 16 * 1024 * 1024,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._max_response = max_response
        self._exchanges: dict[str, Exchange] = {}
        self._tags = itertools.count(1)
        inner = httpx2.AsyncHTTPTransport(
            verify=verify or _tls(url),
            trust_env=False,
            # Calls are bounded by the bulkhead, the streams of idle sessions by the pool of sessions.
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=max_connections, keepalive_expiry=keepalive
            ),
        )
        self._client = httpx2.AsyncClient(
            transport=_Watched(inner, self._exchanges, max_response),
            headers=[("accept-encoding", "identity"), *headers],
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(connect=connect_timeout, read=None, write=30.0, pool=connect_timeout),
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """See ``wire.Transport``. Leaving it ends the session with DELETE."""
        to_backend, outgoing = anyio.create_memory_object_stream[SessionMessage](OUTBOX)
        incoming, from_backend = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        async with (
            streamable_http_client(self._url, http_client=self._client, max_sse_event_size=self._max_response) as (
                read,
                write,
            ),
            anyio.create_task_group() as carriers,
        ):
            gone = asyncio.Event()
            carriers.start_soon(_carry, outgoing, write, gone)
            carriers.start_soon(_carry, read, incoming, gone)
            yield Streams(from_backend, to_backend, gone)
            carriers.cancel_scope.cancel()

    def begin(self) -> Exchange:
        """See ``wire.Transport``."""
        tag = str(next(self._tags))
        exchange = self._exchanges[tag] = Exchange({_TAG: tag})
        return exchange

    def end(self, exchange: Exchange) -> None:
        """See ``wire.Transport``."""
        self._exchanges.pop(exchange.headers[_TAG], None)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _carry(source: Any, sink: Any, gone: asyncio.Event) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with source, sink:
            async for message in source:
                await sink.send(message)
    gone.set()


class _Watched(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncBaseTransport, exchanges: dict[str, Exchange], max_response: int) -> None:
        self._inner = inner
        self._exchanges = exchanges
        self._max_response = max_response

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = self._exchanges.get(request.headers.pop(_TAG, ""))
        if exchange is None:
            return await self._aside(request)
        try:
            async with exchange.guard():
                response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            exchange.fault = "refused"
        except httpx2.TransportError:
            exchange.fault = "broken"
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
            return await self._inner.handle_async_request(request)
        request.extensions = {**request.extensions, "timeout": _ASIDE}
        try:
            return await self._inner.handle_async_request(request)
        except httpx2.TransportError:
            # Lost, as notifications may be; an error would end the session for everyone in it.
            return httpx2.Response(202, request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


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
            except httpx2.TransportError:
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
    return httpx2.Response(
        response.status_code,
        # No cookie jar: a cookie would carry state from one principal to the next.
        headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() != "set-cookie"],
        stream=_Body(response.stream, exchange, limit, events=events),
        extensions=response.extensions,
    )


def _declared(response: httpx2.Response) -> int:
    length = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdecimal() else 0


def _tls(url: str) -> ssl.SSLContext:
    # Loading the trusted authorities takes 20 ms and is wasted on plain HTTP.
    return ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
