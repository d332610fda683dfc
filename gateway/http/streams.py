"""One stream of notifications towards a client: what waits for it, and how it is written."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from gateway.http.responder import KEEP_ALIVE_SECONDS, STREAM_HEADERS, RawHeaders, Send

MAX_STREAMS = 10_000
MAX_WAITING = 1_000
"""Different messages that may wait on one stream; a client that falls further behind asks for everything anew."""

STALLED_SECONDS = 30.0
"""How long a client may take no bytes."""

_KEEP_ALIVE = b": keep-alive\n\n"


class Stream:
    """Messages on their way to one client, in order, none waiting twice.

    ``first`` is written before all else. ``last`` is written when the gateway ends the stream; ``seconds`` is how long
    it may live. The one who reads calls ``next``; everything else may be called from anywhere in the loop.
    """

    __slots__ = ("_closing", "_last", "_until", "_waiting", "_wake")

    def __init__(self, first: bytes, last: bytes, *, seconds: float = float("inf")) -> None:
        self._waiting: dict[bytes, None] = {first: None}
        self._last = last
        self._until = monotonic() + seconds
        self._closing = False
        self._wake: asyncio.Future[None] | None = None

    def put(self, body: bytes) -> None:
        """Send an event; one that already waits is not sent twice. On a stream that has ended it is dropped."""
        if self._closing:
            return
        self._waiting[body] = None
        if len(self._waiting) > MAX_WAITING:
            self.end()
        self._wake_up()

    def end(self) -> None:
        """Send what waits and the last message, then no more. Idempotent."""
        self._closing = True
        self._wake_up()

    async def next(self) -> tuple[bytes, bool]:
        """What waits, or a comment after a silence that load balancers would cut; and whether more will come."""
        if not self._waiting and not self._closing:
            await self._quiet()
        if monotonic() >= self._until:
            self._closing = True
        body = b"".join(self._waiting)
        self._waiting.clear()
        if self._closing:
            return body + self._last, False
        return body or _KEEP_ALIVE, True

    async def _quiet(self) -> None:
        loop = asyncio.get_running_loop()
        self._wake = wake = loop.create_future()
        timer = loop.call_later(min(KEEP_ALIVE_SECONDS, max(0.0, self._until - monotonic())), _done, wake)
        try:
            await wake
        finally:
            timer.cancel()
            self._wake = None

    def _wake_up(self) -> None:
        if self._wake is not None:
            _done(self._wake)


class Source(Protocol):
    """What can be written as a stream."""

    async def next(self) -> tuple[bytes, bool]:
        """See ``Stream.next``."""
        ...


async def serve(stream: Source, send: Send, headers: RawHeaders) -> None:
    """Write a stream as server-sent events until it ends or the client leaves, which cancels this.

    Raises:
        CancelledError: the client took no bytes for ``STALLED_SECONDS``: its connection is to be dropped, as if it had
            left.
    """
    try:
        async with asyncio.timeout(STALLED_SECONDS):
            await send({"type": "http.response.start", "status": 200, "headers": [*headers, *STREAM_HEADERS]})
        more = True
        while more:
            body, more = await stream.next()
            async with asyncio.timeout(STALLED_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": more})
    except TimeoutError:
        raise asyncio.CancelledError from None


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
