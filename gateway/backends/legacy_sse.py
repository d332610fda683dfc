"""HTTP+SSE, the transport of 2024-11-05: a stream by GET, whose first event names the URL that messages are posted to.

All answers come on the one stream, so that a question of the backend cannot be told to belong to one call.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCRequest, RequestId, jsonrpc_message_adapter

from gateway.backends import link
from gateway.backends.cause import because
from gateway.backends.sse import EventTooLarge, SseParser
from gateway.backends.wire import CALLER, CONNECT, KEEPALIVE, OUTBOX, Exchange, Streams, Wrap, tls_for
from gateway.egress.addresses import Reach
from gateway.egress.guarded import GuardedTransport
from gateway.errors import INTERNAL_ERROR
from gateway.models import Principal

logger = logging.getLogger(__name__)

_TAG = "x-mcp-gateway-exchange"
"""Carries the exchange through the SDK's dispatcher; it is not sent."""

_GREETING = 10.0
"""Seconds until the stream has named its endpoint."""

_ASIDE = 10.0
"""Seconds for what no call waits for: notifications and answers."""

_BODY = 64 * 1024
"""Bytes that are read of the answer to a message."""

_TIMEOUTS = {"connect": CONNECT, "read": None, "write": 30.0, "pool": CONNECT}

_PORTS = {"http": 80, "https": 443}

_Inbox = MemoryObjectSendStream[SessionMessage | Exception]


class LegacySse:
    """One pool of connections for all sessions with a backend; implements ``wire.Transport``.

    ``max_response`` bounds each event of a stream, in bytes. ``headers`` are the credentials, sent with both methods.
    """

    def __init__(
        self,
        route: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        max_connections: int = 64,
        max_response: int = 16 * 1024 * 1024,
        verify: ssl.SSLContext | None = None,
        reach: Reach = "configured",
        wrap: Wrap | None = None,
    ) -> None:
        self._route = route
        self._wrap = wrap
        self._url = url
        self._headers = [("accept-encoding", "identity"), *headers]
        self._max_response = max_response
        self._exchanges: dict[str, Exchange] = {}
        self._tags = itertools.count(1)
        # Without a client over it there are no redirects, and no cookies to carry from one principal to the next.
        self._http: httpx2.AsyncBaseTransport = GuardedTransport(
            reach,
            verify=verify or tls_for(url),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=max_connections, keepalive_expiry=KEEPALIVE
            ),
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """See ``wire.Transport``. Leaving it closes the stream, which is the end of the session.

        Raises:
            HandshakeRefused: there is no such stream (400, 404, 405).
            BackendUnavailable: it does not admit us, is no stream of events, or names no endpoint of its own origin.
        """
        async with self._stream() as chunks:
            events = _Events(chunks, self._max_response)
            endpoint = await self._endpoint(events)
            to_backend, outgoing = anyio.create_memory_object_stream[SessionMessage](OUTBOX)
            incoming, from_backend = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            gone = asyncio.Event()
            async with anyio.create_task_group() as carriers:
                carriers.start_soon(self._read, events, incoming, gone)
                carriers.start_soon(self._write, endpoint, outgoing, incoming)
                yield Streams(from_backend, to_backend, gone)
                carriers.cancel_scope.cancel()

    def on_behalf(self, principal: Principal) -> LegacySse:
        """See ``wire.Transport``."""
        if self._wrap is None:
            return self
        own = copy.copy(self)
        own._http = self._wrap(self._http, principal)
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
        await self._http.aclose()

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            async with asyncio.timeout(_GREETING):
                response = await self._send("GET", self._url, {"accept": "text/event-stream"}, b"")
        except httpx2.ConnectError as error:
            if isinstance(error.__cause__, link.NoCredentials):
                raise error.__cause__ from None
            raise
        try:
            self._admitted(response)
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            yield aiter(response.stream)
        finally:
            await response.aclose()

    def _admitted(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in (400, 404, 405):
            raise link.HandshakeRefused(self._route, status)
        if status in (401, 403):
            raise because(link.not_admitted(self._route), f"HTTP status {status}")
        if status != 200 or not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise because(link.unreachable(self._route), f"no stream of events, HTTP status {status}")

    async def _endpoint(self, events: _Events) -> str:
        try:
            async with asyncio.timeout(_GREETING):
                named = await events.endpoint()
        except TimeoutError:
            raise because(link.unreachable(self._route), "its stream names no endpoint") from None
        except EventTooLarge:
            named = None
        url = endpoint_of(self._url, named) if named is not None else None
        if url is None:
            raise because(link.unreachable(self._route), "its stream names no endpoint of the same origin")
        return url

    async def _read(self, events: _Events, inbox: _Inbox, gone: asyncio.Event) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with inbox:
                try:
                    await self._read_messages(events, inbox)
                except EventTooLarge:
                    logger.warning(
                        "%s sent an event of over %d bytes; its session ends", self._route, self._max_response
                    )
                except httpx2.TransportError as error:
                    logger.debug("the stream of %s broke: %r", self._route, error)
                finally:
                    gone.set()

    async def _read_messages(self, events: _Events, inbox: _Inbox) -> None:
        async for data in events.messages():
            try:
                message = jsonrpc_message_adapter.validate_json(data, by_name=False)
            except ValueError:
                if data.strip():
                    logger.debug("%s sent an event of %d bytes that is not a message", self._route, len(data))
            else:
                await inbox.send(SessionMessage(message))

    async def _write(self, endpoint: str, outgoing: MemoryObjectReceiveStream[SessionMessage], inbox: _Inbox) -> None:
        """Requests at the same time, because each has its own deadline; the rest one after the other."""
        async with outgoing, anyio.create_task_group() as posts:
            async for item in outgoing:
                headers = dict(item.metadata.headers or {}) if isinstance(item.metadata, ClientMessageMetadata) else {}
                exchange = self._exchanges.get(headers.pop(_TAG, ""))
                body = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode()
                if exchange is not None and isinstance(item.message, JSONRPCRequest):
                    posts.start_soon(self._post, endpoint, headers, body, exchange, item.message.id, inbox)
                else:
                    await self._post_aside(endpoint, headers, body)

    async def _post(
        self,
        endpoint: str,
        headers: dict[str, str],
        body: bytes,
        exchange: Exchange,
        request_id: RequestId,
        inbox: _Inbox,
    ) -> None:
        exchange.fault = await self._posted(endpoint, headers, body, exchange)
        if exchange.fault is None and exchange.status is not None and exchange.status < 300:
            return
        if exchange.fault == "abandoned":
            return
        error = ErrorData(code=INTERNAL_ERROR, message="The message was not taken")
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await inbox.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=request_id, error=error)))

    async def _posted(
        self, endpoint: str, headers: dict[str, str], body: bytes, exchange: Exchange
    ) -> Literal["refused", "broken", "abandoned"] | None:
        try:
            async with exchange.guard():
                json_headers = {"content-type": "application/json", **headers}
                response = await self._send("POST", endpoint, json_headers, body, exchange.caller)
                exchange.status = response.status_code
                await _read_over(response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            exchange.cause = error
            return "refused"
        except httpx2.TransportError:
            return "broken"
        except TimeoutError:
            return "abandoned"
        return "broken" if 300 <= exchange.status < 400 else None

    async def _post_aside(self, endpoint: str, headers: dict[str, str], body: bytes) -> None:
        # Lost, as notifications may be; an error would end the session for everyone in it.
        with suppress(httpx2.TransportError, TimeoutError):
            async with asyncio.timeout(_ASIDE):
                response = await self._send("POST", endpoint, {"content-type": "application/json", **headers}, body)
                await _read_over(response)

    async def _send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, caller: Principal | None = None
    ) -> httpx2.Response:
        extensions = {"timeout": _TIMEOUTS} if caller is None else {"timeout": _TIMEOUTS, CALLER: caller}
        request = httpx2.Request(
            method,
            url,
            headers=[*self._headers, *headers.items()],
            content=body or None,
            extensions=extensions,
        )
        return await self._http.handle_async_request(request)


async def _read_over(response: httpx2.Response) -> None:
    """The body says nothing; read, if it is short, its connection can be used again."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    room = _BODY
    try:
        async for chunk in response.stream:
            room -= len(chunk)
            if room < 0:
                return
    finally:
        await response.aclose()


class _Events:
    """The events of one stream: first ``endpoint``, then ``messages``."""

    def __init__(self, chunks: AsyncIterator[bytes], limit: int) -> None:
        self._chunks = chunks
        self._endpoints = SseParser(limit, kinds=(b"endpoint",))
        self._messages = SseParser(limit)
        self._early: list[bytes] = []

    async def endpoint(self) -> bytes | None:
        """The data of the first event ``endpoint``; None if the stream ends without one."""
        with suppress(httpx2.TransportError):
            async for chunk in self._chunks:
                self._early += self._messages.feed(chunk)
                if named := self._endpoints.feed(chunk):
                    return named[0]
        return None

    async def messages(self) -> AsyncIterator[bytes]:
        """The data of each message."""
        for data in self._early:
            yield data
        self._early.clear()
        async for chunk in self._chunks:
            for data in self._messages.feed(chunk):
                yield data


def endpoint_of(stream: str, named: bytes) -> str | None:
    """Where messages go, as the stream's first event names it; None where that is not the stream's own origin.

    Credentials are sent there, so another origin is never followed (2024-11-05, ``basic/transports``).
    """
    try:
        url, _fragment = urldefrag(urljoin(stream, named.decode("ascii").strip()))
        parts = urlsplit(url)
        same = _origin(parts) == _origin(urlsplit(stream)) and parts.username is None
    except ValueError:
        return None
    return url if same else None


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
