"""One answer on its way to the client: JSON, or an event stream as soon as a notification comes before it.

The status of a stream is fixed with its first byte, so a stream is opened only by what happens after dispatch: a
notification of the backend, or a long silence that load balancers would cut.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gateway.protocol.answers import Answer
from gateway.protocol.strict_json import encode

KEEP_ALIVE_SECONDS = 15.0
MAX_WAITING = 1000

_JSON = (b"content-type", b"application/json")
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

RawHeaders = Sequence[tuple[bytes, bytes]]
Send = Callable[[Any], Awaitable[None]]


class Responder:
    """Sends one answer. ``notify`` may be called before ``finish``, from the task of the exchange or another."""

    def __init__(self, send: Send, headers: RawHeaders, *, may_stream: bool) -> None:
        self._send = send
        self._headers = headers
        self._may_stream = may_stream
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._wake: asyncio.Event | None = None
        self._pump: asyncio.Task[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        if may_stream:
            self._silence = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._open)

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Queue a notification; the oldest are dropped for a client that does not read."""
        if not self._may_stream:
            return
        self._waiting.append(event(encode({"jsonrpc": "2.0", "method": method, "params": params})))
        self._open()

    async def finish(self, answer: Answer) -> None:
        """Send the answer and end the response."""
        if self._silence is not None:
            self._silence.cancel()
        if self._pump is None:
            await self._plain(answer)
            return
        self._waiting.append(event(answer.body))
        self._may_stream = False
        self._wake_up()
        await self._pump

    def abandon(self) -> None:
        """The client is gone: nothing more is sent."""
        if self._silence is not None:
            self._silence.cancel()
        if self._pump is not None:
            self._pump.cancel()

    def _open(self) -> None:
        if self._pump is None:
            self._wake = asyncio.Event()
            self._pump = asyncio.get_running_loop().create_task(self._stream(self._wake))
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def _plain(self, answer: Answer) -> None:
        headers = [*self._headers, *((name.encode(), value.encode("latin-1")) for name, value in answer.headers)]
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


def event(body: bytes) -> bytes:
    """A message as one server-sent event. Line breaks in JSON are white space, so they may become spaces."""
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: message\ndata: " + body + b"\n\n"
