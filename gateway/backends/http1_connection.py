"""One HTTP/1.1 connection to a server: a request out, its response in, then the next.

Rules of this file
- Every exchange ends exactly once: by ``_answer`` or by ``_fail``, the first wins; what arrives later is dropped.
- A connection is ``usable`` again only when the response has ended cleanly, the server wants to keep the connection,
  and not one byte came that nobody asked for. Otherwise it is closed.
- One timer a connection, moved lazily: a deadline that only moves later costs nothing on the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools
import msgspec

from gateway.backends.sse import EventTooLarge, Position, SseParser
from gateway.framing import Head

MAX_HEAD = 64 * 1024
"""Most bytes of response headers, and of all framing of a small response."""

FRAMING_PER_BYTE = 8
"""Bytes of framing allowed for each byte of body: one-byte chunks pass, padded ones do not."""

_JSON = b"application/json"
_OK = 200

CLOCK_STEP = 0.002
"""Seconds by which a timer may come early: uvloop rounds to milliseconds."""


class HttpError(Exception):
    """The exchange failed. ``sent``: the request may have reached the server. ``reason`` names no host."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class HttpTimeout(HttpError):  # noqa: N818 - says what it is
    """Nothing came for the idle time, or all of it took longer than the hard end."""


class TooLarge(HttpError):  # noqa: N818
    """The response exceeds a limit."""


class ConnectionClosed(HttpError):  # noqa: N818
    """The connection ended before the response."""


class StaleConnection(ConnectionClosed):
    """A kept connection died under a request before any byte of the response."""


class HttpResponse(msgspec.Struct, frozen=True):  # a third of the cost of a frozen dataclass, once a call
    """A whole response. Names of ``headers`` are lower case; repeated ones are joined with a comma."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Pool(Protocol):
    """Who keeps connections at rest."""

    def settled(self, connection: HttpConnection) -> None:
        """The rest of an answered response has ended; the connection is usable."""
        ...

    def dropped(self, connection: HttpConnection) -> None:
        """A resting connection is closed."""
        ...


class HttpConnection(asyncio.Protocol):
    """See the rules of this file. ``exchanges`` counts the requests sent so far."""

    __slots__ = (
        "_between",
        "_body",
        "_closed",
        "_complete",
        "_deadline",
        "_hard",
        "_head",
        "_headers",
        "_known",
        "_length",
        "_loop",
        "_max_response",
        "_on_event",
        "_parser",
        "_pool",
        "_position",
        "_received",
        "_resting",
        "_sse",
        "_status",
        "_timer",
        "_timer_at",
        "_transport",
        "_until_close",
        "_waiter",
        "exchanges",
    )

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, max_response: int) -> None:
        self._loop = loop
        self._pool = pool
        self._max_response = max_response
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._on_event: Callable[[bytes], bool] | None = None
        self._position: Position | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._deadline = self._between = self._hard = 0.0
        self._known: tuple[Head, dict[bytes, bytes]] | None = None
        self._complete = True
        self._closed = self._resting = False
        self.exchanges = 0
        self._reset()

    def _reset(self) -> None:
        self._status = self._head = self._length = self._received = 0
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._sse: SseParser | None = None
        self._until_close = False

    # What the client calls

    @property
    def usable(self) -> bool:
        """A request may be sent."""
        return self._complete and not self._closed and not self._transport.is_closing()

    @property
    def answered(self) -> bool:
        """The response is known, though its body has not ended."""
        return self._waiter is None and not self._complete and not self._closed

    def send(
        self,
        message: bytes,
        until: float,
        idle: float,
        hard: float,
        on_event: Callable[[bytes], bool] | None,
        position: Position | None,
    ) -> asyncio.Future[HttpResponse]:
        """Write a request. ``until``: first byte due; ``idle``: seconds from byte to byte; ``hard``: the end."""
        if self._status:  # the last response came through the parser
            self._reset()
        self._received = 0
        self._complete = self._resting = False
        self._on_event, self._position, self._between, self._hard = on_event, position, idle, hard
        self.exchanges += 1
        self._waiter = waiter = self._loop.create_future()
        self._deadline = until
        if self._timer is None or self._timer_at > until:
            self._arm(until)
        self._transport.write(message)
        return waiter

    def rest(self, seconds: float) -> None:
        """Stay open without a request, at most for ``seconds``; the pool hears when it ends."""
        self._resting = True
        self._deadline = until = self._loop.time() + seconds
        if self._timer is None or self._timer_at > until:
            self._arm(until)

    def wake(self) -> None:
        """The pool has taken the connection out of its rest."""
        self._resting = False

    def fail(self, reason: str) -> None:
        """End whatever runs, and close."""
        self._fail(ConnectionClosed(reason, sent=True))

    def abort(self) -> None:
        """Close at once; what is still to come is not read."""
        if not self._closed:
            self._transport.abort()
            self._gone()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._closed:
            return
        if self._complete:  # nobody asked
            self.abort()
            return
        if self._known is not None and not self._received and self._again(data, *self._known):
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)
        except httptools.HttpParserError:
            self._fail(HttpError("malformed response", sent=True))
        except httptools.HttpParserUpgrade:
            self._fail(HttpError("unexpected upgrade", sent=True))
        if not self._complete:
            self._progress()
        elif self._received == len(data) and self._status == _OK and not self._closed:
            self._keep_head(data)

    def eof_received(self) -> None:  # noqa: D102
        if self._until_close and self._waiter is not None:
            self._answer()
        self._lost()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._lost()
        del self._parser  # it refers back to this object

    # What the parser calls

    def on_message_begin(self) -> None:  # noqa: D102
        if self._complete:  # a second response to one request
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        self._head += len(name) + len(value) + 4
        if self._head > MAX_HEAD:
            self._fail(TooLarge("response headers too large", sent=True))
        elif self._status == 0:  # else a trailer
            name = name.lower()
            known = self._headers.get(name)
            self._headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:  # noqa: D102
        self._status = self._parser.get_status_code()
        if self._waiter is None or self._status < 200:
            return
        headers = self._headers
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._fail(HttpError("unsupported transfer encoding", sent=True))
        elif b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            self._fail(HttpError("compressed response", sent=True))
        elif length is not None and int(length) > self._max_response:
            self._fail(TooLarge("response too large", sent=True))
        self._until_close = length is None and coding is None
        if self._on_event is not None and headers.get(b"content-type") != _JSON and is_event_stream(headers):
            self._sse = SseParser(self._max_response, position=self._position)

    def on_body(self, chunk: bytes) -> None:  # noqa: D102
        if self._waiter is None:
            return
        self._length += len(chunk)
        if self._sse is not None:
            self._hand_over(self._sse, chunk)
        elif self._length > self._max_response:
            self._fail(TooLarge("response too large", sent=True))
        else:
            self._body.append(chunk)

    def on_message_complete(self) -> None:  # noqa: D102
        if self._status < 200:  # an interim response
            self._status = 0
            self._headers = {}
            return
        self._complete = True
        if self._waiter is not None:
            self._answer()
        if not self._parser.should_keep_alive():
            self.abort()
        elif self._resting:
            self._pool.settled(self)

    # A head that was read before

    def _again(self, data: bytes, head: Head, headers: dict[bytes, bytes]) -> bool:
        """Take a whole response whose head is that of the last one; most servers change it once a second."""
        found = head.begins(data)
        if found is None or found[2] or len(found[1]) > self._max_response:
            return False
        length, body, _ = found
        self._received, self._complete = len(data), True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(HttpResponse(_OK, {**headers, b"content-length": length}, body))
        return True

    def _keep_head(self, data: bytes) -> None:
        """Remember it, where it is of a plain response with a length that came at once; of a stream there is none."""
        headers = self._headers
        plain = headers.get(b"content-length", b"").isdigit() and b"transfer-encoding" not in headers
        head = Head.of(data) if plain and self._sse is None else None
        self._known = (head, headers) if head is not None else None

    # Ends and deadlines

    def _hand_over(self, sse: SseParser, chunk: bytes) -> None:
        assert self._on_event is not None
        try:
            events = sse.feed(chunk)
        except EventTooLarge:
            self._fail(TooLarge("event too large", sent=True))
            return
        for event in events:
            if self._on_event(event):
                self._answer()
                return

    def _progress(self) -> None:
        if self._received - self._length > MAX_HEAD + FRAMING_PER_BYTE * self._length and self._waiter is not None:
            self._fail(TooLarge("response framing too large", sent=True))
        elif self._waiter is not None:
            self._deadline = min(self._loop.time() + self._between, self._hard)

    def _answer(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            waiter.set_result(HttpResponse(self._status, self._headers, body))
        self._body = []

    def _fail(self, error: BaseException) -> None:
        waiter, self._waiter = self._waiter, None
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _lost(self) -> None:
        if self._waiter is not None:
            kind = StaleConnection if self.exchanges > 1 and not self._received else ConnectionClosed
            self._fail(kind("connection closed", sent=True))
        self._gone()

    def _gone(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._resting:
            self._resting = False
            self._pool.dropped(self)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._loop.time() + CLOCK_STEP < self._deadline:
            self._arm(self._deadline)
        elif self._waiter is not None:
            self._fail(HttpTimeout("no answer in time", sent=True))
        else:
            self.abort()


def is_event_stream(headers: dict[bytes, bytes]) -> bool:
    """Whether a response is a stream of server-sent events."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"text/event-stream"
