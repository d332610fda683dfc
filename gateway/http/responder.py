"""One answer on its way to the client: JSON, or an event stream as soon as a notification comes before it.

The status of a stream is fixed with its first byte, so a stream is opened only by what happens after dispatch: a
notification of the backend, or a long silence that load balancers would cut.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from time import monotonic
from typing import Any

from gateway.errors import ClientSilent
from gateway.http.conversations import Conversations, Running
from gateway.models import Principal
from gateway.ports import T
from gateway.protocol.answers import Answer
from gateway.protocol.strict_json import encode

KEEP_ALIVE_SECONDS = 15.0
MAX_WAITING = 1000

_JSON = (b"content-type", b"application/json")
_WHOLE = b"HTTP/1.1 200 OK\r\n%b: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

RawHeaders = Sequence[tuple[bytes, bytes]]
Send = Callable[[Any], Awaitable[None]]


class Responder:
    """Sends one answer; implements ``ports.Channel`` until ``finish``.

    ``headers`` begin with one that is well-formed. ``may_stream``: the client takes an event stream. ``silences``:
    those of all answers. ``at_once`` sends a whole answer, head and body, or says that it cannot.
    """

    _of: Running | None = None
    _ended = False
    _waiting: deque[bytes]
    _wake: asyncio.Event | None = None
    _pump: asyncio.Task[None] | None = None

    def __init__(
        self,
        send: Send,
        headers: RawHeaders,
        *,
        may_stream: bool,
        conversations: Conversations | None = None,
        silences: Silences | None = None,
        at_once: Callable[[bytes, bytes], bool] | None = None,
    ) -> None:
        self._send = send
        self._at_once = at_once
        self._headers = headers
        self._may_stream = may_stream
        self._conversations = conversations
        self._silences = silences or Silences()

    @property
    def can_ask(self) -> bool:
        """See ``ports.Channel``."""
        return self._may_stream and self._of is not None

    def begin(self, session_id: str, request_id: str | int, whose: Principal, *, resumable: bool = False) -> None:
        """See ``ports.Channel``."""
        self._over()
        if self._conversations is not None:
            self._of = self._conversations.begin(session_id, request_id)

    async def part(self, work: Coroutine[Any, Any, T]) -> T | None:
        """See ``ports.Channel``."""
        task = asyncio.get_running_loop().create_task(work)
        try:
            return await task
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if mine is None or mine.cancelling():
                raise
            return None
        finally:
            self._over()

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """See ``ports.Channel``."""
        if self._conversations is None or self._of is None or not self._may_stream:
            raise ClientSilent("The client takes no requests of the server on this connection.")
        session_id = self._of.session_id
        number, waiting = self._conversations.question(session_id)
        asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self._write(encode(asked))
        return await self._conversations.answer(session_id, number, waiting, seconds)

    def dispatched(self) -> None:
        """See ``ports.Channel``."""
        if self._may_stream:
            self._silences.watch(self)

    def fill(self) -> None:
        """Nothing was said for ``KEEP_ALIVE_SECONDS`` after dispatch."""
        self._open()

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Queue a notification; the oldest are dropped for a client that does not read."""
        if not self._may_stream:
            return
        self._write(encode({"jsonrpc": "2.0", "method": method, "params": params}))

    def sent(self, answer: Answer) -> bool:
        """Send the usual answer and end the response; False, and nothing has left, where it takes ``finish``."""
        at_once, body, headers = self._at_once, answer.body, self._headers
        if at_once is None or self._pump is not None or answer.status != 200 or answer.headers or len(headers) != 1:
            return False
        if not body or not at_once(_WHOLE % (*headers[0], len(body)), body):
            return False
        self._end()
        return True

    async def finish(self, answer: Answer) -> None:
        """Send the answer, if there is one, and end the response."""
        self._end()
        if self._pump is None:
            await self._plain(answer)
            return
        if answer.body:
            self._waiting.append(event(answer.body))
        self._may_stream = False
        self._wake_up()
        await self._pump

    def unwanted(self) -> bool:
        """Whether the current task, which serves the request, is cancelled because its client said so and not because
        it left. The cancellation is over then."""
        of, task = self._of, asyncio.current_task()
        return of is not None and of.cancelled and task is not None and of.task is task and not task.uncancel()

    def abandon(self) -> None:
        """Nothing more is sent, where ``finish`` was not reached because the client left."""
        if not self._ended:
            self._end()
        if self._pump is not None:
            self._pump.cancel()

    def _end(self) -> None:
        self._ended = True
        self._silences.forget(self)
        self._over()

    def _over(self) -> None:
        if self._conversations is not None and self._of is not None:
            self._conversations.end(self._of)

    def _write(self, body: bytes) -> None:
        self._open()
        self._waiting.append(event(body))

    def _open(self) -> None:
        if self._pump is None:
            self._waiting = deque(maxlen=MAX_WAITING)
            self._wake = asyncio.Event()
            self._pump = asyncio.get_running_loop().create_task(self._stream(self._wake))
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def _plain(self, answer: Answer) -> None:
        headers = list(self._headers)
        for name, value in answer.headers:
            headers.append((name.encode(), value.encode("latin-1")))
        if answer.body:
            headers.append(_JSON)
        if answer.status != 204:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def _stream(self, wake: asyncio.Event) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": [*self._headers, *STREAM_HEADERS]})
        await self._send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
        while True:
            await self._quiet_or(wake)
            body = b"".join(self._waiting) or b": keep-alive\n\n"
            self._waiting.clear()
            more = self._may_stream
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
            if not more:
                return

    async def _quiet_or(self, wake: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                await wake.wait()
        except TimeoutError:
            pass
        wake.clear()


class Silences:
    """Answers that are awaited and say nothing. One timer for all: setting one for each costs more than its checks."""

    def __init__(self) -> None:
        self._since: dict[Responder, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, responder: Responder) -> None:
        """Fill its silence from now on, unless it is forgotten in time."""
        self._since.setdefault(responder, monotonic())
        if self._timer is None:
            self._look_in(KEEP_ALIVE_SECONDS)

    def forget(self, responder: Responder) -> None:
        """It has ended."""
        self._since.pop(responder, None)

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        while self._since:
            first, since = next(iter(self._since.items()))
            if since + KEEP_ALIVE_SECONDS > now:
                self._look_in(since + KEEP_ALIVE_SECONDS - now)
                return
            del self._since[first]
            first.fill()

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)


def event(body: bytes) -> bytes:
    """A message as one server-sent event. Line breaks in JSON are white space, so they may become spaces."""
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: message\ndata: " + body + b"\n\n"
