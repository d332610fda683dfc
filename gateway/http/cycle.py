"""One request and its answer: uvicorn's cycle, with what is made for every call made cheaper."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Literal, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

AT_ONCE = "gateway.at_once"
"""The key of a scope with ``Cycle.at_once``: a whole answer without the messages of ASGI."""


_log = logging.getLogger(__name__)


class Connection(Protocol):
    """What a cycle needs of the connection it belongs to."""

    transport: asyncio.Transport
    flow: FlowControl
    logger: Any
    access_logger: Any
    server_state: Any
    tasks: set[Any]

    def on_response_complete(self) -> None:
        """The answer has left."""
        ...

    def answer(self, data: bytes) -> None:
        """Send a whole answer with the others of this turn of the event loop."""
        ...


class Cycle(RequestResponseCycle):
    """What of an answer has its length and comes in one piece leaves in one write: one system call and one packet less.

    Everything else, streams above all, goes the long way through uvicorn. ``body`` is that of a request that came at
    once.
    """

    task: asyncio.Task[None] | None = None
    """What serves the request; the server waits for it before it ends."""

    access_log = False
    chunked_encoding: bool | None = None
    expected_content_length = 0

    def __init__(
        self,
        connection: Connection,
        scope: Any,
        body: bytes | None = None,
        *,
        expects_continue: bool = False,
        keep_alive: bool = True,
    ) -> None:
        # Sets what uvicorn's own sets, which takes twice as long; a test compares them.
        self.scope = scope
        scope[AT_ONCE] = self.at_once
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.access_logger = connection.access_logger
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self._connection = connection
        self.disconnected = self.response_started = self.response_complete = False
        self.waiting_for_100_continue = expects_continue
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = body is None
        self._arrival: _Arrival | None = None
        self._start: Any = None
        self._whole = body

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """That something happened to the request; most are whole, and nobody waits.

        Of uvicorn's cycle it is a plain attribute; making an event for each request costs half a microsecond.
        """
        if self._arrival is None:
            self._arrival = _Arrival()
        return self._arrival

    async def receive(self) -> Any:
        """See ASGI; a body that came at once is not copied."""
        body, self._whole = self._whole, None
        if body is None or self.disconnected:
            return await super().receive()
        return {"type": "http.request", "body": body, "more_body": False}

    async def run_asgi(self, app: Any) -> None:
        """Serve. Without a whole answer the connection ends: a status that nobody gave would say what was executed."""
        failed = True
        try:
            await app(self.scope, self.receive, self.send)
            failed = False
        except asyncio.CancelledError:
            failed, self.disconnected = False, True  # the client left, or the drain is over
        finally:
            task, self.task = self.task, None
            self._connection.tasks.discard(task)
            if failed and task is not None:
                task.add_done_callback(_log_failure)
            self.on_response = _nothing
            # Else the two keep each other until the garbage collector comes.
            scope: Any = self.scope
            scope.pop(AT_ONCE, None)
            if not self.response_complete:
                self.transport.close()

    async def send(self, message: Any) -> None:
        """See ASGI: head and body wait for each other where they are all of an answer."""
        start = self._start
        if start is None:
            if message["type"] == "http.response.start":
                self._start = message
            else:
                await super().send(message)
            return
        self._start = None
        if not self._is_whole(start, message):
            await super().send(start)
            await super().send(message)

    def _is_whole(self, start: Any, message: Any) -> bool:
        """Send a whole answer at once; False where it is none, or malformed, and nothing left."""
        headers, body = start["headers"], message.get("body", b"")
        lines = [STATUS_LINE[start["status"]], *[b"%b: %b\r\n" % header for header in headers], b"\r\n"]
        head = b"".join(lines)
        return (
            not message.get("more_body")
            and (b"content-length", b"%d" % len(body)) in headers
            and head.count(b"\n") == len(lines)
            and head.count(b"\r") == len(lines)
            and b"\nconnection:" not in head
            and b"\ntransfer-encoding:" not in head
            and self.at_once(head, body)
        )

    def at_once(self, head: bytes, body: bytes) -> bool:
        """Send a whole answer; False, and nothing has left, where the connection does not stay or cannot take it now.

        ``head`` is well-formed, with the length of ``body``; nobody looks at it again.
        """
        if (
            self.response_started
            or not self.keep_alive
            or self.disconnected
            or self.flow.write_paused
            or self.default_headers
            or self.scope["method"] == "HEAD"
        ):
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self._connection.answer(head + body)
        if self._arrival is not None:
            self._arrival.set()
        self.on_response()
        return True


class _Arrival(asyncio.Event):
    """An event without what it needs only where somebody waits."""

    def __init__(self) -> None:
        self._value = False
        self._waiters: Any = ()

    async def wait(self) -> Literal[True]:
        """See ``asyncio.Event``."""
        if not self._value and not self._waiters:
            self._waiters = deque()
        return await super().wait()


def _log_failure(task: asyncio.Task[None]) -> None:
    _log.error("a request failed outside the pipeline", exc_info=task.exception())


def _nothing() -> None:
    """Nobody waits for the end of this answer any more."""
