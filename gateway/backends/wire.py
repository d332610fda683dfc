"""What a session asks of its transport, and what the transport knows about a request beside its JSON-RPC answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage

from gateway.backends.http1_connection import HttpResponse
from gateway.models import JsonObject, Principal

Fault = Literal["refused", "broken", "too_large", "abandoned"]


class Signals:
    """What a transport tells of its session beside messages: ``on_gap``, when some of no request may have been missed,
    ``on_forgotten``, when the backend no longer knows the session. ``reason`` is why it has ended, where that is known.
    """

    __slots__ = ("on_forgotten", "on_gap", "reason")

    def __init__(self) -> None:
        self.reason = ""
        self.on_gap: Callable[[], None] = _nothing
        self.on_forgotten: Callable[[], None] = _nothing


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Streams:
    """Messages of the backend, and messages for it, whose stream is buffered so that it never blocks for long.

    A message that came in answer to a request has its ``Exchange`` as ``metadata.request_context``. ``gone`` is set as
    soon as it is known that nothing more can be sent. ``requests`` is the better way for requests, where there is one.
    """

    read: MemoryObjectReceiveStream[SessionMessage | Exception]
    write: MemoryObjectSendStream[SessionMessage]
    gone: asyncio.Event
    signals: Signals = field(default_factory=Signals)
    requests: Requests | None = None


class Requests(Protocol):
    """Sends requests of a session that has begun, each on its own way beside the streams of the session."""

    async def send(
        self, method: str, params: Mapping[str, Any], exchange: Exchange, heard: Heard
    ) -> tuple[JsonObject | None, MCPError | None]:
        """The result, or the error, and then ``exchange`` says more of it. Values of ``params`` may be raw JSON.

        ``heard`` is told of progress and logs. Cancelling it cancels the request towards the backend.
        """
        ...


Heard = Callable[[str, Mapping[str, Any], "Exchange"], None]
"""Method and parameters of a notification, and the request that it came in answer to."""

OUTBOX = 256
"""Messages that may wait to be written, or to be dispatched."""

CONNECT = 2.0
"""Seconds to connect, and to wait for a connection."""

KEEPALIVE = 3.0
"""Seconds that an idle connection is kept; below the 5 s after which common servers close theirs."""

Lines = tuple[tuple[bytes, bytes], ...]
"""Headers."""


class Bearer(httpx2.AsyncBaseTransport):
    """Requests that bear the token of their principal, be they sent over ``httpx2`` or by ``bear``."""

    async def bear(self, caller: Principal | None, send: Callable[[Lines], Awaitable[HttpResponse]]) -> HttpResponse:
        """Send with the headers that make it bear its token, for ``caller`` or else for the latest; twice at most.

        Raises:
            NoCredentials: there is no token, or the backend does not accept it.
        """
        raise NotImplementedError


Wrap = Callable[[httpx2.AsyncBaseTransport, Principal], Bearer]
"""Makes the transport of one session, opened for a principal, from the one that all sessions share."""


CALLER = "mcp_gateway.caller"
"""Extension of a request of ``httpx2``: the principal that it is sent for, where it is not the session's."""


class Exchange:
    """One request on its way. ``status`` is HTTP's, ``fault`` what ended it without an answer, ``cause`` why.

    ``caller`` is for whom it is sent, where that decides with which token. ``resumes`` is an event of its stream, to
    go on after.
    """

    __slots__ = ("_abandoned", "_scope", "caller", "cause", "fault", "headers", "resumes", "status")

    def __init__(self, headers: dict[str, str] | None = None, caller: Principal | None = None) -> None:
        self.headers = headers or {}
        self.caller = caller
        self.status: int | None = None
        self.fault: Fault | None = None
        self.cause: BaseException | None = None
        self.resumes = b""
        self._abandoned = False
        self._scope: asyncio.Timeout | None = None

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Around an ``await`` that ``abandon`` has to end, with ``TimeoutError``."""
        async with asyncio.timeout(0 if self._abandoned else None) as scope:
            self._scope = scope
            try:
                yield
            finally:
                self._scope = None

    def abandon(self) -> None:
        """Nobody waits for the answer any more: let go of what the transport holds for it."""
        self._abandoned = True
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())


class Transport(Protocol):
    """Opens the stream pair of one session."""

    def open(self) -> AbstractAsyncContextManager[Streams]:
        """Entered and left in one task.

        May raise ``OSError``, ``ValueError``, ``httpx2.HTTPError``, or ``BackendUnavailable`` with what is known.
        """
        ...

    def on_behalf(self, principal: Principal) -> Transport:
        """The same for a session of this principal: what it sends of its own bears the principal's token."""
        ...

    def begin(self, caller: Principal) -> Exchange:
        """A request is about to be sent, for a principal or (without an issuer) in the gateway's own matters."""
        ...

    def end(self, exchange: Exchange) -> None:
        """It was answered or given up."""
        ...

    async def aclose(self) -> None:
        """Release what the sessions share."""
        ...


def tls_for(url: str) -> ssl.SSLContext:
    """The system's authorities; loading them takes 20 ms and is wasted on plain HTTP."""
    return ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
