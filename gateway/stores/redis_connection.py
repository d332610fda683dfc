"""One pipelined connection to Redis, and what happens while there is none.

Rules of this file:

1. Commands of two turns of the event loop leave in one write: the second often brings as many as the first. Replies
   are matched by their order.
2. Nobody waits long: an answer that is overdue costs the connection, and everything on it fails at once.
3. After any failure commands fail without trying (the breaker is open) until a new connection, opened in the
   background, has shown that it can write.

The protocol is our own because decisions are on the path of every call: packing a batch by hand around ``hiredis``
costs a third of what a general client does. What the URL means is in ``redis_place``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from gateway.stores.redis_place import NoPrimary, RedisPlace

TAG = b"{mcp-gateway}:"
"""Starts every key: a hash tag, so that all keys of a call are in one cluster slot."""

_DEADLINE = 0.045  # seconds; with the second look under 50 ms
_SECOND_LOOK = 0.004
_CONNECT = 0.1
_CONNECT_MOST = 1.0
_PAUSE = 0.5
_HEARTBEAT = 1.0
LOST: Any = object()
"""In place of a reply that will not come."""

log = logging.getLogger(__name__)


class RedisAway(Exception):  # noqa: N818 - a state of the world, handled by every caller
    """There is no usable Redis now. The log has the reason."""


def pack(*arguments: bytes | str | int) -> bytes:
    """One command as the bytes of the Redis protocol."""
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # stub: a 1-tuple
    return packed


def bulks(*arguments: bytes | str | int) -> bytes:
    """Some arguments of a command as the bytes of the Redis protocol, to be put behind others."""
    packed = pack(*arguments)
    return packed[packed.index(b"\n") + 1 :]


class RedisConnection:
    """The gateway's one connection. Commands before ``start()`` and after ``aclose()`` raise ``RedisAway``.

    ``on_change`` is told whenever ``up`` changes, and once at the start.

    Raises:
        ValueError: the URL is not one of Redis, or names a certificate file that cannot be read.
    """

    def __init__(self, url: str, on_change: Callable[[bool], None] | None = None) -> None:
        self._place = RedisPlace(url)
        self._greeting = _greeting(self._place.settings)
        self._on_change = on_change or (lambda _up: None)
        self._wire: _Wire | None = None
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether commands are sent; otherwise they fail at once."""
        return self._wire is not None

    async def start(self) -> None:
        """Try once to connect, then keep connected. An outage is not an error here."""
        reason = await self._connect(_CONNECT)
        if reason:
            self._is_down(reason)
        self._keeper = asyncio.create_task(self._keep(), name="redis")

    async def aclose(self) -> None:
        """Close the connection; commands under way fail."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.fail("closed")
            await wire.closed
        await self._place.aclose()

    async def call(self, *arguments: bytes | str | int) -> Any:
        """Send one command and return its reply; see ``send``."""
        return await self.send(pack(*arguments))

    async def send(self, command: bytes) -> Any:
        """Send one packed command and return its reply; ``NOSCRIPT`` comes back as a ``hiredis.ReplyError``.

        Raises:
            RedisAway: not connected, no answer in time, or any other error as the answer.
        """
        reply = await self.queue(command)
        if reply is LOST:
            raise RedisAway
        return reply

    def queue(self, command: bytes) -> asyncio.Future[Any]:
        """Send one packed command; its reply is the future's result, or ``LOST`` where ``send`` raises."""
        if self._wire is not None:
            return self._wire.send(command)
        lost = asyncio.get_running_loop().create_future()
        lost.set_result(LOST)
        return lost

    def flush(self) -> None:
        """Let what is queued leave now, not with that of the next turns."""
        if self._wire is not None:
            self._wire.flush()

    def tell(self, *arguments: bytes | str | int) -> None:
        """Send one command and wait for nothing; while there is no connection it is lost."""
        if self._wire is not None:
            self._wire.send(pack(*arguments))

    async def _keep(self) -> None:
        patience = _CONNECT
        while True:
            if self._wire is not None:
                patience = _CONNECT
                await self._watch()
            await asyncio.sleep(_PAUSE)
            reason = await self._connect(patience)
            if reason:
                log.debug("Redis is still away: %s", reason)
                patience = min(2 * patience, _CONNECT_MOST)

    async def _watch(self) -> None:
        """Until the connection is lost; a heartbeat finds that out also when nobody calls."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_HEARTBEAT):
                    await self._lost.wait()
            except TimeoutError:
                if self._wire is not None:
                    self._wire.send(pack("PING"))
                if await self._place.moved() and self._wire is not None:
                    self._wire.fail("the sentinels name another primary")

    async def _connect(self, patience: float) -> str:
        """Open and try a connection; returns why it could not be had, or nothing."""
        wire = _Wire(self._wire_lost)
        try:
            async with asyncio.timeout(patience):
                await _open(self._place, wire)
                for reply in [wire.send(command) for command in self._greeting]:
                    await reply
        except NoPrimary:
            wire.fail("the sentinels name no primary")
        except OSError as error:  # refused, unresolved, TLS, timeout
            wire.fail(type(error).__name__)
        except asyncio.CancelledError:
            wire.fail("closed")
            raise
        if wire.failure:
            return wire.failure
        self._wire = wire
        self._lost.clear()
        log.info("Redis is up")
        self._on_change(True)  # noqa: FBT003 - the argument is the news
        return ""

    def _wire_lost(self, wire: _Wire) -> None:
        if wire is self._wire:
            self._wire = None
            self._lost.set()
            self._is_down(wire.failure)

    def _is_down(self, reason: str) -> None:
        log.warning("Redis is away: %s", reason)
        self._on_change(False)  # noqa: FBT003 - the argument is the news


class _Wire(asyncio.Protocol):
    """One connection: commands out in batches, replies in their order, until its first failure.

    ``failure`` says what that was. A future's result is ``LOST`` rather than an exception, which would be reported
    as never retrieved where its caller was cancelled.
    """

    def __init__(self, on_lost: Callable[[_Wire], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._outbox: list[bytes] = []
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._batch_at = 0.0
        self._timed = False
        self._overdue: asyncio.Future[Any] | None = None
        self.failure = ""
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def send(self, command: bytes) -> asyncio.Future[Any]:
        """Queue a packed command for the next write; the future gets its reply or ``LOST``."""
        future = self._loop.create_future()
        if self.failure:
            future.set_result(LOST)
            return future
        if not self._outbox:
            self._batch_at = self._loop.time()
            self._loop.call_soon(self._loop.call_soon, self.flush)
        self._outbox.append(command)
        self._waiting.append((self._batch_at, future))
        return future

    def fail(self, reason: str) -> None:
        """Give the connection up. Later failures are consequences of the first and ignored."""
        if self.failure:
            return
        self.failure = reason
        if self._transport is not None:
            self._transport.abort()
        for _, future in self._waiting:
            if not future.done():
                future.set_result(LOST)
        self._waiting.clear()
        self._outbox.clear()
        self._on_lost(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while not self.failure and (reply := self._reader.gets()) is not False:
                self._deliver(reply)
        except hiredis.ProtocolError:
            self.fail("its answer is not the Redis protocol")

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(type(exc).__name__ if exc else "it closed the connection")
        self.closed.set_result(None)

    def _deliver(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) and not str(reply).startswith("NOSCRIPT"):
            self.fail(f"it answered {_error_word(str(reply))}")
        elif not self._waiting:
            self.fail("it answered what was not asked")
        else:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(reply)

    def flush(self) -> None:
        """Write what is queued."""
        if not self._outbox or self._transport is None:
            return
        batch = self._outbox
        self._outbox = []
        self._transport.write(batch[0] if len(batch) == 1 else b"".join(batch))
        if not self._timed:
            self._timed = True
            self._loop.call_later(_DEADLINE, self._check_deadline)

    def _check_deadline(self) -> None:
        """One timer for all commands: it comes back when the oldest is due, and rests when there is none."""
        if not self._waiting:
            self._timed = False
            return
        since, oldest = self._waiting[0]
        left = since + _DEADLINE - self._loop.time()
        if left <= 0 and oldest is self._overdue:
            self.fail("no answer in time")
            return
        if left <= 0:
            # Timers may run before what has arrived is read, so look once more. Where this timer itself came late,
            # this process stood still and the answer is given its time again.
            self._overdue = oldest
            left = _DEADLINE if -left > _SECOND_LOOK else _SECOND_LOOK
        self._loop.call_later(left, self._check_deadline)


def _greeting(settings: Connection | UnixDomainSocketConnection) -> list[bytes]:
    """What a new connection says; the last shows that it can write (not a replica, not loading, not full)."""
    commands = []
    if settings.password:
        commands.append(pack("AUTH", *filter(None, (settings.username, settings.password))))
    if settings.db:
        commands.append(pack("SELECT", settings.db))
    return [*commands, pack("SET", TAG + b"probe", "1", "PX", 1000)]


async def _open(place: RedisPlace, wire: _Wire) -> None:
    loop = asyncio.get_running_loop()
    settings = place.settings
    if isinstance(settings, UnixDomainSocketConnection):
        await loop.create_unix_connection(lambda: wire, settings.path)
        return
    host, port = await place.address()
    tls = settings.ssl_context.get() if isinstance(settings, SSLConnection) else None
    await loop.create_connection(lambda: wire, host, port, ssl=tls)


def _error_word(text: str) -> str:
    """The error's name; other words may hold addresses (MOVED), except after the generic ERR."""
    return text if text.startswith("ERR") else text.split(" ", 1)[0]
