"""Messages between the processes of a gateway over Redis's publish and subscribe.

Rules of this file:

1. Its connections are its own: payloads of megabytes must not cost the limits their deadline, nor a missing
   permission for channels their connection.
2. Whoever waits for another process looks whether that is still there: Redis knows its subscription, which ends with
   the process, and its presence key, which expires with its host. The asked look after their askers in the same way.
3. After Redis was away nothing is concluded until everybody had time to come back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.relay import RelayLost
from gateway.stores.redis_connection import TAG
from gateway.stores.redis_place import RedisPlace
from gateway.stores.relay import MOST_RUNNING, Handler, MemoryRelay, answer_of
from gateway.stores.relay_frames import EVERYBODY, Frames, Head
from gateway.stores.relay_lookout import PRESENT, Lookout, missing
from gateway.stores.relay_outbox import Outbox, Parcel

MAX_BYTES = 17 * 2**20
"""Largest payload: the default largest response and what is around it."""

_MOST_SECONDS = 3600.0
_LOOK = 0.4  # seconds between two looks
_FOLLOW = 1.0  # seconds between two questions to the sentinels
_PATIENCE = 0.3  # until an addressee that does not listen is nobody
_ANSWER_PATIENCE = 3.0  # the same for an answer, which an outage must not lose
_CONNECT = 1.0
_SOCKET = 2.0
_AGAIN = 0.1
_QUIET = 3  # seconds without a word of Redis, pings included
_GOODBYE = 0.5
_WARN = 60.0

log = logging.getLogger(__name__)


class RedisRelay:
    """``relay.Relay`` over all processes that share a Redis and a key ring.

    Args:
        url: as for ``RedisConnection``.
        keys: the key ring.
        max_bytes: largest payload.
        most: handlers that may run at once.
        now: seconds since the epoch.

    Raises:
        ValueError: the URL is not one of Redis.
    """

    def __init__(
        self,
        url: str,
        keys: Sequence[bytes],
        *,
        max_bytes: int = MAX_BYTES,
        most: int = MOST_RUNNING,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._local = MemoryRelay(most=most)
        self._frames = Frames(self.here, keys, now)
        self._max_bytes = max_bytes
        self._place = RedisPlace(url)
        self._redis: Redis = self._place.client(
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=_CONNECT,
            socket_timeout=_SOCKET,
        )
        self._outbox = Outbox(self._redis, 4 * max_bytes)
        self._lookout = Lookout()
        self._questions: dict[str, tuple[str, asyncio.Future[bytes | RelayLost]]] = {}
        self._held: dict[str, tuple[str, asyncio.Task[bytes]]] = {}
        self._listening = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._told = False
        self._warned = -_WARN

    @property
    def here(self) -> str:
        """This process's address."""
        return self._local.here

    @property
    def up(self) -> bool:
        """Whether messages arrive here."""
        return self._listening.is_set()

    @property
    def waiting(self) -> int:
        """Questions that have no answer yet."""
        return len(self._questions)

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return self._local.running

    def serve(self, topic: str, handler: Handler) -> None:
        """Handle a topic here."""
        self._local.serve(topic, handler)

    # Life

    async def start(self) -> None:
        """Begin to listen. An outage is not an error here."""
        for work in (self._listen, self._outbox.run, self._look, self._follow):
            self._run(work)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT):
                await self._listening.wait()

    async def aclose(self) -> None:
        """End what runs, and tell those who wait for it."""
        self._lose(None, "this process stops")
        await self._local.aclose()
        await self._outbox.flush(_GOODBYE)
        self._closed = True
        while self._tasks:  # again, because asyncio.wait_for of Python 3.11 may lose a cancellation
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_AGAIN)
        with suppress(RedisError, OSError):  # TimeoutError is one
            async with asyncio.timeout(_GOODBYE):
                await self._redis.delete(_name(self.here))
        await self._redis.aclose()
        await self._place.aclose()

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it until this relay is closed, whatever happens to it."""
        if not self._closed:
            task = asyncio.get_running_loop().create_task(work(), name="relay")
            self._tasks.add(task)
            task.add_done_callback(partial(self._ran, work))

    def _ran(self, work: Callable[[], Coroutine[Any, Any, None]], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the relay failed and is started again", exc_info=error)
            asyncio.get_running_loop().call_later(_AGAIN, self._run, work)

    # Outgoing

    async def ask(self, there: str, topic: str, payload: bytes, seconds: float) -> bytes:
        """See ``relay.Relay``."""
        if there == self.here:
            return await self._local.ask(there, topic, payload, seconds)
        if not self.up:
            raise RelayLost("Redis is away", delivered=False)
        question = secrets.token_hex(8)
        answer: asyncio.Future[bytes | RelayLost] = asyncio.get_running_loop().create_future()
        parcel = self._post(Head("ask", self.here, there, topic, question, seconds), payload)
        self._questions[question] = (there, answer)
        try:
            async with asyncio.timeout(seconds):
                return await _answered(parcel, answer)
        except TimeoutError:
            raise RelayLost("no answer in time", delivered=True) from None
        finally:
            unanswered = self._questions.pop(question, None) is not None
            if unanswered and not (parcel.sent.done() and parcel.sent.result() == "nobody"):
                parcel.sent.cancel()
                self._post(Head("cancel", self.here, there, "", question), b"")

    def tell(self, there: str, topic: str, payload: bytes) -> None:
        """See ``relay.Relay``."""
        if there == self.here:
            self._local.tell(there, topic, payload)
        else:
            self._post(Head("tell", self.here, there, topic), payload)

    def publish(self, topic: str, payload: bytes, *, here: bool = True) -> None:
        """See ``relay.Relay``."""
        self._local.publish(topic, payload, here=here)
        self._post(Head("tell", self.here, EVERYBODY, topic), payload)

    def _post(self, head: Head, payload: bytes, patience: float = _PATIENCE) -> Parcel:
        """Queue a message; one that is too much is dropped, so that an outage costs no memory. Words always go."""
        if len(payload) > self._max_bytes or (payload and not self._outbox.takes(len(payload))):
            log.warning("a relayed message is dropped: it, or what waits before it, is too large")
            parcel = Parcel(b"", b"", 0.0, asyncio.get_running_loop().create_future())
            parcel.settle("nobody")
            return parcel
        return self._outbox.put(_name(head.to), self._frames.seal(head, payload), patience)

    # Incoming

    async def _listen(self) -> None:
        while True:
            reason = "it is silent"
            try:
                await self._subscription()
            except (RedisError, OSError) as error:
                reason = type(error).__name__
            if not self._told:
                log.warning("messages between the processes do not arrive, Redis is away: %s", reason)
            self._told = True
            self._lookout.shaken(asyncio.get_running_loop().time())
            await asyncio.sleep(_AGAIN)

    async def _subscription(self) -> None:
        """Hear until Redis falls silent; a ping each second makes it say something."""
        quiet = 0
        subscription = self._redis.pubsub()
        try:
            await self._redis.set(_name(self.here), b"1", px=PRESENT)
            await subscription.subscribe(_name(self.here), _name(EVERYBODY))
            while quiet < _QUIET:
                message = await subscription.get_message(timeout=1.0)
                if message is None:
                    quiet += 1
                    await subscription.ping()
                    continue
                quiet = 0
                self._heard(message)
        finally:
            self._listening.clear()
            await subscription.aclose()  # type: ignore[no-untyped-call]

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe" and message["data"] == 2:
            self._listening.set()
            self._told = False
        if message["type"] != "message":
            return
        opened = self._frames.open(message["data"])
        if opened is None:
            self._warn()
        elif opened[0].sender != self.here:
            self._take(*opened)

    def _take(self, head: Head, payload: bytes) -> None:
        if head.kind == "tell":
            self._local.publish(head.topic, payload)
        elif head.kind == "ask":
            self._asked(head, payload)
        elif head.kind == "cancel":
            if head.id in self._held:
                self._held[head.id][1].cancel()
        else:
            _, answer = self._questions.pop(head.id, ("", None))
            if answer is not None:
                _give(answer, payload if head.kind == "answer" else RelayLost("it did not answer", delivered=True))

    def _asked(self, head: Head, payload: bytes) -> None:
        try:
            task = self._local.begin(head.topic, payload)
        except RelayLost:
            self._post(Head("failed", self.here, head.sender, "", head.id), b"")
            return
        self._held[head.id] = (head.sender, task)
        timer = asyncio.get_running_loop().call_later(min(head.seconds, _MOST_SECONDS), task.cancel)
        task.add_done_callback(partial(self._answer, head, timer))

    def _answer(self, head: Head, timer: asyncio.TimerHandle, task: asyncio.Task[bytes]) -> None:
        timer.cancel()
        del self._held[head.id]
        kind: Literal["answer", "failed"] = "failed"
        payload = b""
        with suppress(RelayLost):
            kind, payload = "answer", answer_of(task)
        sent = self._post(Head(kind, self.here, head.sender, "", head.id), payload, _ANSWER_PATIENCE).sent
        if kind == "answer" and sent.done():
            self._post(Head("failed", self.here, head.sender, "", head.id), b"")

    def _warn(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned > _WARN:
            self._warned = now
            log.warning("a relayed message is refused: the replicas' keys or clocks differ, or it was repeated")

    # Who is still there

    async def _look(self) -> None:
        """Say that this process is there, and see who is not."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            watched = {there for there, _ in (*self._questions.values(), *self._held.values())}
            try:
                absent = await missing(
                    self._redis, _name(self.here) if self.up else None, {_name(it): it for it in watched}
                )
            except (RedisError, OSError):
                if self._lookout.away(began, loop.time()):
                    self._lose(None, "Redis is away")
            else:
                self._lose(self._lookout.seen(absent, loop.time()), "it is gone")
            await asyncio.sleep(_LOOK)

    async def _follow(self) -> None:
        """Leave a primary that is none any more; it need not close its connections."""
        while True:
            await asyncio.sleep(_FOLLOW)
            if await self._place.moved():
                await self._redis.connection_pool.disconnect()

    def _lose(self, lost: set[str] | None, reason: str) -> None:
        """Give up what waits for these processes and what they wait for; None is all of them."""
        for there, answer in self._questions.values():
            if lost is None or there in lost:
                _give(answer, RelayLost(reason, delivered=True))
        for asker, task in self._held.values():
            if lost is None or asker in lost:
                task.cancel()


async def _answered(parcel: Parcel, answer: asyncio.Future[bytes | RelayLost]) -> bytes:
    delivery = await asyncio.shield(parcel.sent)
    if delivery != "taken":
        raise RelayLost("nobody is there", delivered=delivery == "unknown")
    found = await answer
    if isinstance(found, RelayLost):
        raise found
    return found


def _give(answer: asyncio.Future[bytes | RelayLost], found: bytes | RelayLost) -> None:
    if not answer.done():
        answer.set_result(found)


def _name(address: str) -> bytes:
    """Of a process's channel and of its presence key; everybody's channel."""
    return TAG + (b"relay" if address == EVERYBODY else b"relay:" + address.encode())
