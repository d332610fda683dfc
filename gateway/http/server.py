"""uvicorn's HTTP protocol with what it does not give by itself.

* A request head or body that does not arrive in time ends the connection; a head may not grow without bound.
* Head and body of a whole answer leave in one write: one system call and one packet less.
* A client that hangs up cancels the task that serves it, which is what cancellation is over HTTP (2026-07-28,
  ``basic/patterns/cancellation``); nobody has to watch ``receive`` for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100

LEFT = "gateway.left"
"""The key of a scope whose application decides itself what becomes of a request when its client hangs up.

The value is called then, and returns whether the request goes on.
"""

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
    _resting_since = 0.0
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
        if len(headers) > MAX_HEADERS or sum(map(len, chain.from_iterable(headers))) > MAX_HEAD_BYTES:
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
        super()._unset_keepalive_if_required()
        unanswered = self.cycle is not None and not self.cycle.response_complete
        super().connection_lost(exc)
        if unanswered and self._task is not None and not self._goes_on():
            self._task.cancel()

    def on_response_complete(self) -> None:
        """An answer has left: serve what came behind it, or let the connection rest.

        As uvicorn does it, but for the timer of resting connections: it goes on through requests and looks again when
        it ends, because setting one for each answer costs more.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._resting_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that rested long enough."""
        works = self._phase != "idle" or not self.cycle.response_complete
        left = self.timeout_keep_alive if works else self._resting_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_again(left)
        else:
            super().timeout_keep_alive_handler()

    def _look_again(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Only the end of the connection ends the timer; uvicorn asks at every piece of data."""

    def _goes_on(self) -> bool:
        """Whether what was asked for is to be finished without its client."""
        left = cast(Mapping[str, Any], self.cycle.scope).get(LEFT)
        return left is not None and bool(left())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        task = self._task = self.loop.create_task(cycle.run_asgi(_Answer(cycle, app)))
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


class _Answer:
    """The application with one request's ``send``: what has its length and comes in one piece leaves in one write.

    Everything else, streams above all, goes the long way through uvicorn.
    """

    __slots__ = ("_app", "_cycle", "_start")

    def __init__(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._cycle = cycle
        self._app = app
        self._start: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve, without a report or an invented answer when it was cancelled."""
        try:
            await self._app(scope, receive, self._send)
        except asyncio.CancelledError:
            # The client left, or the drain is over. A status would claim that nothing was executed: say none.
            self._cycle.transport.close()
            self._cycle.disconnected = True

    async def _send(self, message: Any) -> None:
        cycle, start = self._cycle, self._start
        if start is None:
            if message["type"] == "http.response.start":
                self._start = message
            else:
                await cycle.send(message)
            return
        self._start = None
        body = message.get("body", b"")
        head = b"" if message.get("more_body") else _head_of(start, body, cycle)
        if not head:
            await cycle.send(start)
            await cycle.send(message)
            return
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(head + body)
        cycle.message_event.set()
        cycle.on_response()


def _head_of(start: Any, body: bytes, cycle: RequestResponseCycle) -> bytes:
    """The head of a whole answer on a connection that stays; empty where it is anything else, or malformed."""
    headers = start["headers"]
    lines = [STATUS_LINE[start["status"]], *[b"%b: %b\r\n" % header for header in headers], b"\r\n"]
    head = b"".join(lines)
    if (
        (b"content-length", b"%d" % len(body)) not in headers
        or head.count(b"\n") != len(lines)
        or head.count(b"\r") != len(lines)
        or b"\nconnection:" in head
        or b"\ntransfer-encoding:" in head
        or not cycle.keep_alive
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.default_headers
        or cycle.scope["method"] == "HEAD"
    ):
        return b""
    return head
