"""uvicorn's HTTP protocol with what it does not give by itself.

* A request head or body that does not arrive in time ends the connection; a head may not grow without bound.
* Head and body of an answer leave in one write: one system call and one packet less.
* A client that hangs up cancels the task that serves it, which is what cancellation is over HTTP (2026-07-28,
  ``basic/patterns/cancellation``); nobody has to watch ``receive`` for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100

_TIMED_OUT = (408, "The request did not arrive in time.")
_MALFORMED = (400, "This is not a well-formed HTTP request.")
_TOO_LARGE = (431, "The request head is too large.")
_HEAD = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class GatewayProtocol(HttpToolsProtocol):
    """One client connection."""

    head_timeout: ClassVar[float] = 10.0
    body_timeout: ClassVar[float] = 30.0
    refused: ClassVar[Callable[[str, int, str], None]] = staticmethod(lambda address, status, message: None)
    """Told of what is refused before there is a request: the client's address, the status and why."""

    _phase = "head"
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._arm(self.head_timeout)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a timer runs only while a request is incomplete."""
        before = self._phase
        if before == "head":
            self._head_bytes += len(data)
        super().data_received(data)
        if self._phase == "head" and self._head_bytes > MAX_HEAD_BYTES:
            self._end(*_TOO_LARGE)
        elif self._phase == "idle":
            self._disarm()
        elif self._phase != before or self._timer is None:
            self._arm(self.head_timeout if self._phase == "head" else self.body_timeout)

    def on_message_begin(self) -> None:
        """A request starts."""
        super().on_message_begin()
        self._phase = "head"

    def on_headers_complete(self) -> None:
        """The head is whole: serve it, unless it is larger than anybody needs."""
        self._phase, self._head_bytes = "body", 0
        headers = self.headers
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
            self._end(*_TOO_LARGE)
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._phase = "idle"
        if self.cycle is not None:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body; none is kept of a request that was refused by its head."""
        if self.cycle is not None:
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What the parser does not take is no HTTP."""
        self._end(*_MALFORMED)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: stop what it asked for."""
        self._disarm()
        unanswered = self.cycle is not None and not self.cycle.response_complete
        super().connection_lost(exc)
        if unanswered and self._task is not None:
            self._task.cancel()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        once = _OneWrite(self.transport, cycle.on_response)
        cycle.transport, cycle.on_response = once, once.complete  # type: ignore[assignment]
        task = self._task = self.loop.create_task(cycle.run_asgi(_quiet(cycle, app)))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._end, *_TIMED_OUT)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _may_answer(self) -> bool:
        """Whether the next bytes on the connection would be taken for the answer to what is refused."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return self._phase == "body" and not cycle.response_started and not self.pipeline

    def _end(self, status: int, message: str) -> None:
        """Say why, with a JSON-RPC error that clients can show, and close."""
        if self.transport.is_closing():
            return
        type(self).refused(self.client[0] if self.client else "", status, message)
        if self._may_answer():
            body = b'{"jsonrpc":"2.0","id":null,"error":{"code":%d,"message":"%s"}}' % (status, message.encode())
            self.transport.write(_HEAD % (status, _PHRASES[status], len(body)) + body)
        self.transport.close()


class _OneWrite:
    """A transport that keeps an answer's head back until its first body bytes."""

    __slots__ = ("_completed", "_head", "_started", "_transport")

    def __init__(self, transport: asyncio.Transport, completed: Callable[[], None]) -> None:
        self._transport = transport
        self._completed = completed
        self._head = b""
        self._started = False

    def write(self, data: bytes) -> None:
        if self._started:
            self._transport.write(self._head + data if self._head else data)
            self._head = b""
        elif data.startswith(b"HTTP/1.1 1"):  # 100 Continue is an answer of its own
            self._transport.write(data)
        else:
            self._head, self._started = data, True

    def complete(self) -> None:
        """The answer is whole; one without a body, to HEAD, is its head alone."""
        if self._head:
            self.write(b"")
        self._completed()

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def _quiet(cycle: RequestResponseCycle, app: Any) -> Any:
    """The application, without a report or an invented answer when it was cancelled."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            # The client left, or the drain is over. A status would claim that nothing was executed: say none.
            cycle.transport.close()
            cycle.disconnected = True

    return run
