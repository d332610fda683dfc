"""uvicorn's HTTP protocol with what it does not give by itself.

* A request head or body that does not arrive in time ends the connection; a head may not grow without bound, nor what
  comes behind a body in chunks, of which nothing is read: a trailer is no header (RFC 9110 section 6.5.1).
* Head and body of a whole answer leave in one write, one system call and one packet less, and the answers of one turn
  of the event loop leave in a row: waking who waits for them costs the kernel more than the writes.
* A client that hangs up cancels the task that serves it, which is what cancellation is over HTTP (2026-07-28,
  ``basic/patterns/cancellation``); nobody has to watch ``receive`` for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.http.cycle import Cycle
from gateway.http.heads import Heads

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100

LEFT = "gateway.left"
"""The key of a scope whose application decides itself what becomes of a request when its client hangs up.

The value is called then, and returns whether the request goes on.
"""

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_TIMED_OUT = (408, "The request did not arrive in time.")
_VERSIONS = ("1.1", "1.0")
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
    _begun = 0
    _owed = 0
    _head_bytes = 0
    _packet = 0
    _head_at_most = 0
    _since_body = 0
    _timer: asyncio.TimerHandle | None = None
    _resting_since = 0.0
    _heads: Heads
    _may_come_again = False
    _task: asyncio.Task[None] | None = None
    _unsent = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._heads = Heads()
        self._arm(self.head_timeout)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a timer runs only while a request is incomplete."""
        before, self._packet, begun = self._phase, len(data), self._begun
        if before == "idle":
            known = self._heads.find(data)
            if known is not None and self.cycle.keep_alive and not self.transport.is_closing():
                self._take_known(*known)
                return
        elif self._owed:
            self._take_owed(data)
            return
        elif before == "head":
            self._head_bytes += len(data)
            self._head_at_most += len(data)
        elif before == "body":
            self._since_body += len(data)
        self._feed(data)
        if self._phase == "idle":
            self._disarm()
            if before == "idle" and self._begun == begun + 1 and self._may_come_again:
                self._heads.keep(data, cast(Mapping[str, Any], self.cycle.scope))
        elif (self._head_bytes if self._phase == "head" else self._since_body) > MAX_HEAD_BYTES:
            self._end(*_TOO_LARGE)
        elif self._phase != before or self._timer is None:
            self._arm(self.head_timeout if self._phase == "head" else self.body_timeout)

    def _take_known(self, scope: dict[str, Any], body: bytes, owed: int) -> None:
        """Serve a request whose head came before. The parser, which is between two requests, stays there."""
        if not owed:
            self._take(Cycle(self, scope, body))
            return
        self._take(Cycle(self, scope))
        self._phase, self._owed = "body", owed
        self.on_body(body)
        self._arm(self.body_timeout)

    def _take_owed(self, data: bytes) -> None:
        body, behind = data[: self._owed], data[self._owed :]
        self._owed -= len(body)
        self.on_body(body)
        if not self._owed:
            self.on_message_complete()
            self._disarm()
            if behind:
                self.data_received(behind)

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self.transport.is_closing():
                self._read_on(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._end(*_MALFORMED)

    def _read_on(self, rest: memoryview) -> None:
        """Take a request that would change the protocol for one that would not (RFC 9110 section 7.8).

        The parser reads no body behind such a head, so that the body would be the next request.
        """
        while True:
            head, self._packet = self._head_without_upgrade(), self._head_at_most
            self.parser = httptools.HttpRequestParser(self)
            try:
                self.parser.feed_data(head)
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                if not self.transport.is_closing():
                    continue
            except httptools.HttpParserError:
                self._end(*_MALFORMED)
            return

    def _head_without_upgrade(self) -> bytes:
        first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = (b"%b: %b" % header for header in self.headers if header[0] != b"upgrade")
        return b"\r\n".join((first, *lines, b"", b""))

    def on_message_begin(self) -> None:
        """A request starts, somewhere in what was received last."""
        self._phase = "head"
        self._begun += 1
        self._head_at_most = self._packet
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line; a trailer would be taken for one by who reads them later, whatever a proxy thought of it."""
        if self._phase == "head":
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole: serve it, unless it is larger than anybody needs."""
        may_be_large = self._head_at_most > MAX_HEAD_BYTES
        self._phase, self._head_bytes, self._since_body, headers = "body", 0, 0, self.headers
        if len(headers) > MAX_HEADERS or (may_be_large and _size(headers) > MAX_HEAD_BYTES):
            self._end(*_TOO_LARGE)
            raise httptools.HttpParserError  # read no further
        parser = self.parser
        if parser.should_upgrade():  # read again without that
            if parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError
            return
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise httptools.HttpParserError
        expects_continue = (b"expect", b"100-continue") in headers
        keep_alive = version != "1.0" and parser.should_keep_alive()
        self._may_come_again = keep_alive and not expects_continue
        self._take(Cycle(self, self._scope(version), expects_continue=expects_continue, keep_alive=keep_alive))

    def _take(self, cycle: Cycle) -> None:
        """Serve a request, after those that came before it."""
        former, self.cycle = self.cycle, cycle
        if former is None or former.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _scope(self, version: str) -> dict[str, Any]:
        url = self.url
        path, raw_path, query = _known_path_of(url) if len(url) <= _KEPT_URL else _path_of(url)
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "scheme": self.scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "server": self.server,
            "client": self.client,
        }

    def on_body(self, body: bytes) -> None:
        """A piece of the body; none is kept of a request that was refused by its head, or answered already."""
        self._since_body = 0
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._phase = "idle"
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def answer(self, data: bytes) -> None:
        """Send a whole answer at the end of this turn of the event loop.

        Nothing of this connection overtakes it: what serves the next request starts later, who ends it lets go first.
        """
        if not self._unsent:
            self.loop.call_soon(self._let_go)
        self._unsent += data

    def _let_go(self) -> None:
        data, self._unsent = self._unsent, b""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def eof_received(self) -> None:
        """The client sends no more; what it waits for may have its answer."""
        self._let_go()

    def shutdown(self) -> None:
        """The server ends."""
        self._let_go()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: stop what it asked for."""
        self._disarm()
        super()._unset_keepalive_if_required()
        unanswered = self.cycle is not None and not self.cycle.response_complete
        super().connection_lost(exc)
        task, self._task = self._task, None
        if unanswered and task is not None and not self._goes_on():
            task.add_done_callback(self.tasks.discard)  # one that has not begun yet will not do it
            task.cancel()

    def on_response_complete(self) -> None:
        """An answer has left: serve what came behind it, or let the connection rest.

        As uvicorn does it, but for the timer of resting connections: it goes on through requests and looks again when
        it ends, because setting one for each answer costs more.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
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
        task = self._task = cast(Cycle, cycle).task = self.loop.create_task(cycle.run_asgi(app))
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
        self._let_go()
        if self.transport.is_closing():
            return
        type(self).refused(self.client[0] if self.client else "", status, message)
        if self._may_answer():
            body = b'{"jsonrpc":"2.0","id":null,"error":{"code":%d,"message":"%s"}}' % (status, message.encode())
            self.transport.write(_HEAD % (status, _PHRASES[status], len(body)) + body)
        self.transport.close()


def _size(headers: Sequence[tuple[bytes, bytes]]) -> int:
    return sum(map(len, chain.from_iterable(headers)))


def _path_of(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query string of a request target.

    No path that is served needs an escape, so none is undone: what a proxy judged under one spelling is not served
    under another. Nor is a target with an authority: it and the Host header could name two servers.

    Raises:
        httptools.HttpParserInvalidURLError: it is none, or names an authority.
    """
    if not url.startswith(b"/") and url != b"*":
        raise httptools.HttpParserInvalidURLError
    parsed = httptools.parse_url(url)
    return parsed.path.decode("ascii"), parsed.path, parsed.query or b""


_KEPT_URL = 256
"""Bytes of a target that is worth remembering; anybody may send long ones."""

_known_path_of = lru_cache(maxsize=1024)(_path_of)
