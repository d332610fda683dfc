"""What a session asks of its transport, and what the transport knows about a request beside its JSON-RPC answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

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
    soon as it is known that nothing more can be sent.
    """

    read: MemoryObjectReceiveStream[SessionMessage | Exception]
    write: MemoryObjectSendStream[SessionMessage]
    gone: asyncio.Event
    signals: Signals = field(default_factory=Signals)


OUTBOX = 256
"""Messages that may wait to be written."""


class Exchange:
    """One request on its way. ``status`` is HTTP's, ``fault`` what ended it without an answer, ``cause`` why."""

    __slots__ = ("_abandoned", "_scope", "cause", "fault", "headers", "status")

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        self.headers = headers or {}
        self.status: int | None = None
        self.fault: Fault | None = None
        self.cause: BaseException | None = None
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

    def begin(self) -> Exchange:
        """A request is about to be sent."""
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
