"""The GET streams of legacy clients: what the gateway tells them outside any call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from gateway.http.responder import KEEP_ALIVE_SECONDS, STREAM_HEADERS, RawHeaders, Send, event
from gateway.protocol.strict_json import encode

MAX_STREAMS = 10_000
_MAX_WAITING = 100


class Streams:
    """Every open stream of this process. ``changed`` is told their number."""

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._open: set[_Stream] = set()
        self._changed = changed
        self._closing = False

    def __len__(self) -> int:
        return len(self._open)

    def broadcast(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification on every stream; a message that already waits there is not queued twice."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params:
            message["params"] = params
        body = event(encode(message))
        for stream in self._open:
            stream.put(body)

    async def serve(self, send: Send, headers: RawHeaders) -> None:
        """Hold one stream open until the client leaves or the gateway stops."""
        stream = _Stream()
        self._open.add(stream)
        self._changed(len(self._open))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*headers, *STREAM_HEADERS]})
            await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
            while not self._closing:
                await send({"type": "http.response.body", "body": await stream.next(), "more_body": True})
            await send({"type": "http.response.body", "body": b": the gateway is stopping\n\n"})
        finally:
            self._open.discard(stream)
            self._changed(len(self._open))

    def close(self) -> None:
        """End every stream with a last line."""
        self._closing = True
        for stream in self._open:
            stream.put(b"")


class _Stream:
    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)
        self._wake = asyncio.Event()

    def put(self, body: bytes) -> None:
        if body not in self._waiting:
            self._waiting.append(body)
        self._wake.set()

    async def next(self) -> bytes:
        """What waits, or a comment after a silence that load balancers would cut."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return b": keep-alive\n\n"
        self._wake.clear()
        body = b"".join(self._waiting)
        self._waiting.clear()
        return body
