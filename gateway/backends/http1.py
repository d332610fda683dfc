"""An HTTP/1.1 client for calls to one URL: bytes in, bytes out, on ``asyncio.Protocol`` and httptools.

It keeps connections warm, holds deadlines and limits, and says of every failure whether the request may have reached
the server. It follows no redirect, keeps no cookie, reads no proxy from the environment, and never sends a request
twice unless the caller calls it idempotent.

Rules of this file
- ``_open`` counts connections that are open or being opened; it never exceeds ``max_connections``.
- Whoever waits is served first come, first served: a free connection or place goes to a waiter before it rests.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from urllib.parse import SplitResult, urlsplit

from gateway.backends.http1_connection import HttpConnection, HttpError, HttpResponse, HttpTimeout, StaleConnection
from gateway.backends.sse import Position
from gateway.egress.addresses import Reach
from gateway.egress.guarded import AddressRefusedError, resolve

__all__ = ["HttpClient", "HttpError", "HttpResponse", "HttpTimeout"]

LINGER = 0.05
"""Seconds that an answered stream may take to end before its connection is closed instead of kept."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BREAK = re.compile(rb"[\r\n\0]")
_OURS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"accept-encoding", b"expect"})


@lru_cache(maxsize=1024)
def _line(header: tuple[bytes, bytes]) -> bytes:
    name, value = header
    if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
        raise ValueError("a header name is not allowed")
    if _BREAK.search(value):
        raise ValueError("a header value holds a line break or NUL")
    return b"%b: %b\r\n" % header


def render_headers(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Header lines as bytes, of which the usual ones are kept.

    Raises:
        ValueError: a name is no token or is set by the client itself; a value holds CR, LF or NUL.
    """
    return b"".join(map(_line, headers))


class HttpClient:
    """Requests to one URL over at most ``max_connections``.

    Args:
        url: http or https, without credentials in it.
        headers: sent with every request, such as credentials.
        connect_timeout: seconds for resolving, connecting and the TLS handshake together.
        keepalive: seconds that an idle connection is kept; below the 5 s after which common servers close theirs.
        max_response: most bytes of a body, or of one event of a stream.
        verify: the TLS context; default: the system's authorities.
        reach: which addresses may be connected to.

    Raises:
        ValueError: the URL or a header cannot be sent.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        max_connections: int = 64,
        connect_timeout: float = 2.0,
        keepalive: float = 3.0,
        max_response: int = 16 * 2**20,
        verify: ssl.SSLContext | None = None,
        reach: Reach = "configured",
    ) -> None:
        parts = _split(url)
        self._host = str(parts.hostname)
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls_context(verify) if parts.scheme == "https" else None
        self._head = _head(parts, headers)
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        self._keepalive = keepalive
        self._max_response = max_response
        self._reach = reach
        self._open = 0
        self._closed = False
        self._connections: set[HttpConnection] = set()
        self._idle: dict[HttpConnection, None] = {}
        self._waiters: deque[asyncio.Future[HttpConnection | None]] = deque()

    async def request(
        self,
        method: bytes,
        lines: bytes,
        body: bytes,
        *,
        timeout: float,  # noqa: ASYNC109 - seconds of silence, not of the whole call
        max_timeout: float,
        on_event: Callable[[bytes], bool] | None = None,
        position: Position | None = None,
        idempotent: bool = False,
    ) -> HttpResponse:
        """Send a request and wait for its response. Cancelling closes the connection at once.

        Args:
            lines: headers of this request, as ``render_headers`` makes them.
            timeout: seconds without a byte; waiting for a free connection counts.
            max_timeout: seconds in all.
            on_event: takes the data of each event of an event stream as it arrives; True: that was the answer, the
                request is complete. Without it a stream is collected like any other body.
            position: of the event stream; kept up to date for who wants to resume it.
            idempotent: may be sent a second time if a kept connection died before any byte of the response.

        Raises:
            HttpTimeout: one of the two times has passed.
            HttpError: any other failure; ``sent`` says whether the request may have arrived.
        """
        if not method.isalpha():
            raise ValueError("not an HTTP method")
        message = b"%b%b%bContent-Length: %d\r\n\r\n%b" % (method, self._head, lines, len(body), body)
        now = monotonic()
        hard = now + max_timeout
        until = now + timeout if timeout < max_timeout else hard
        connection = self._take_idle() or await self._acquire(until)
        try:
            return await connection.send(message, until, timeout, hard, on_event, position)
        except StaleConnection:
            if not idempotent:
                raise
        finally:
            self._release(connection)
        self._close_idle()  # whatever closed one of them has most likely closed all
        connection = await self._acquire(until)
        try:
            return await connection.send(message, until, timeout, hard, on_event, position)
        finally:
            self._release(connection)

    async def aclose(self) -> None:
        """Close every connection. What runs fails; nothing can be sent any more."""
        self._closed = True
        self._close_idle()
        for connection in list(self._connections):
            connection.fail("client closed")
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(HttpError("client closed", sent=False))
        self._waiters.clear()
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    # Connections

    def _take_idle(self) -> HttpConnection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable:
                return connection  # to send at once, which ends its rest
            self._discard(connection)
        return None

    async def _acquire(self, until: float) -> HttpConnection:
        if self._closed:
            raise HttpError("client closed", sent=False)
        if self._open < self._max_connections:
            self._open += 1
        else:
            connection = await self._wait(until)
            if connection is not None:
                if connection.usable:
                    return connection
                self._connections.discard(connection)  # it died on the way here; its place is still ours
        return await self._connect(until)

    async def _wait(self, until: float) -> HttpConnection | None:
        """Wait for a free connection, or, as None, for the place of one."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[HttpConnection | None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_at(until, self._expire, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())  # it was served in the moment of its cancellation
            raise
        finally:
            timer.cancel()

    def _expire(self, waiter: asyncio.Future[HttpConnection | None]) -> None:
        if not waiter.done():
            self._waiters.remove(waiter)
            waiter.set_exception(HttpTimeout("no free connection in time", sent=False))

    async def _connect(self, until: float) -> HttpConnection:
        """Use the place that is already counted; give it back on failure."""
        loop = asyncio.get_running_loop()
        allowed = loop.time() + self._connect_timeout
        connected = False
        try:
            async with asyncio.timeout_at(min(until, allowed)):
                connection = await self._connection(loop)
            connected = True
        except TimeoutError as error:
            if until < allowed:
                raise HttpTimeout("no connection in time", sent=False) from error
            raise HttpError("connect timed out", sent=False) from error
        except (OSError, UnicodeError) as error:
            raise HttpError(_why(error), sent=False) from error
        finally:
            if not connected:
                self._free_place()
        self._connections.add(connection)
        if self._closed:
            self._discard(connection)
            raise HttpError("client closed", sent=False)
        return connection

    async def _connection(self, loop: asyncio.AbstractEventLoop) -> HttpConnection:
        """Connect to the first address that answers, of those that may be reached."""
        addresses = await resolve(self._host, self._port, self._reach)
        while True:
            try:
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(loop, self, self._max_response),
                    addresses.pop(0),
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
            except OSError:
                if not addresses:
                    raise
            else:
                return connection

    def _release(self, connection: HttpConnection) -> None:
        if connection.usable:
            self._keep(connection)
        elif connection.answered and not self._waiters and not self._closed:
            connection.rest(LINGER)
        else:
            self._discard(connection)

    def settled(self, connection: HttpConnection) -> None:
        """A connection whose answer came before the end of its stream has reached that end."""
        connection.wake()
        self._keep(connection)

    def dropped(self, connection: HttpConnection) -> None:
        """A resting connection has closed: by its server, by its time, or by an unasked byte."""
        self._idle.pop(connection, None)
        self._connections.discard(connection)
        self._free_place()

    def _keep(self, connection: HttpConnection) -> None:
        if self._closed:
            self._discard(connection)
        elif self._waiters and (waiter := self._next_waiter()) is not None:
            waiter.set_result(connection)
        else:
            self._idle[connection] = None
            connection.rest(self._keepalive)

    def _give_back(self, connection: HttpConnection | None) -> None:
        if connection is not None and connection.usable:
            self._keep(connection)
        else:
            self._discard(connection)

    def _discard(self, connection: HttpConnection | None) -> None:
        if connection is not None:
            self._connections.discard(connection)
            connection.wake()
            connection.abort()
        self._free_place()

    def _free_place(self) -> None:
        waiter = self._next_waiter()
        if waiter is None:
            self._open -= 1
        else:
            waiter.set_result(None)

    def _next_waiter(self) -> asyncio.Future[HttpConnection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _close_idle(self) -> None:
        while self._idle:
            self._discard(self._idle.popitem()[0])


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a backend's URL starts with http:// or https:// and names a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a backend's URL holds no credentials")
    if not re.fullmatch(r"[!-~]+", url):
        raise ValueError("a backend's URL is printable ASCII without spaces")
    return parts


def _head(parts: SplitResult, headers: Sequence[tuple[str, str]]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        static = render_headers([(name.encode("ascii"), value.encode("latin-1")) for name, value in headers])
    except UnicodeEncodeError:
        raise ValueError("a header holds characters that HTTP cannot carry") from None
    head = f" {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: mcp-gateway\r\nAccept-Encoding: identity\r\n"
    return head.encode() + static


def _tls_context(verify: ssl.SSLContext | None) -> ssl.SSLContext:
    context = verify or ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(error: OSError | UnicodeError) -> str:
    if isinstance(error, AddressRefusedError):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "name not found"
    return "TLS failed" if isinstance(error, ssl.SSLError) else "connect failed"
