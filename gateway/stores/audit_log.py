"""Writes the audit off the event loop. Each sink has one thread; what arrived since its last write goes in one write.

The first sink decides: an intent waits for it, and its failure is the audit's failure. The others get every record too
and catch up by themselves. Everything here runs on the event loop, except ``_Lane._run`` and what it calls.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal

from gateway.audit import ArgumentsMode, AuditEvent, Encoder, ResultsMode
from gateway.errors import AuditUnavailable
from gateway.stores.audit_files import HEAD_INTERVAL
from gateway.stores.audit_sinks import Sink

BACKLOG = 10_000
"""Records kept in memory for a sink that fails or is slow; beyond it they are dropped and counted."""
BATCH = 500
"""Records from which on a write takes no more."""
LINGER = 0.005
"""Seconds that records nobody waits for may wait for company."""
STALL = 1.0
"""Seconds after which a write that has not ended is a failure."""
RETRY = 0.5
"""Seconds between two attempts of a failing sink."""
CLOSE = 5.0
"""Seconds that closing waits for a sink."""

OnResult = Callable[[str, str, int], None]
"""Gets the sink's name, ``written | failed | refused | unconfirmed | dropped`` and how many; on the event loop."""

_log = logging.getLogger(__name__)


class _Batch:
    """The records of one turn of the event loop and the intents that wait for them."""

    __slots__ = ("records", "since", "waiters")

    def __init__(self, records: Sequence[bytes], waiters: Sequence[asyncio.Future[None]], since: float) -> None:
        self.records = records
        self.waiters = waiters
        self.since = since

    def resolve(self, refusal: Callable[[], Exception] | None = None) -> int:
        """Let go of those who still wait, with a refusal or without one; how many they were."""
        waiting = [waiter for waiter in self.waiters if not waiter.done()]
        for waiter in waiting:
            if refusal is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(refusal())
        self.waiters = ()
        return len(waiting)


class _Lane:
    """One sink, its thread, and what was given to it and is not yet confirmed."""

    def __init__(
        self,
        sink: Sink,
        on_result: OnResult,
        *,
        sync: bool,
        refusal: Callable[[], Exception] | None,
        settled: Callable[[], None],
    ) -> None:
        self.name = sink.name
        self.failing = False
        self._sink = sink
        self._on_result = on_result
        self._sync = sync
        self._refusal = refusal
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._unconfirmed: deque[_Batch] = deque()
        self._records = 0
        self._watch: asyncio.TimerHandle | None = None
        self._backlog: deque[_Batch] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"audit-{sink.name}", daemon=True)
        self._thread.start()

    def holds(self, more: int) -> bool:
        """Whether ``more`` records had better gather: the thread has a batch, and one more would only make it and the
        event loop wake each other. Not where they are over ``BACKLOG``, which ``submit`` has to see.
        """
        return bool(self._unconfirmed) and not self.failing and self._records + more <= BACKLOG

    def submit(self, records: Sequence[bytes], waiters: Sequence[asyncio.Future[None]]) -> None:
        """Hand over to the thread; drop what is over ``BACKLOG``."""
        room = max(0, BACKLOG - self._records)
        if len(records) > room:
            self._on_result(self.name, "dropped", len(records) - room)
            records = records[:room]
            if not self.failing:
                self._fail("its backlog is full")
        batch = _Batch(records, waiters, self._loop.time())
        self._records += len(records)
        self._unconfirmed.append(batch)
        self._queue.put(batch)
        if self.failing:
            self._release([batch])
        elif self._watch is None:
            self._watch = self._loop.call_later(STALL, self._check)

    async def aclose(self) -> None:
        """Write what is left, then end the thread; a stuck one is left behind after ``CLOSE``."""
        self._queue.put(None)
        done, _ = await asyncio.wait({self._ended}, timeout=CLOSE)
        if self._watch is not None:
            self._watch.cancel()
        if done:
            self._thread.join()
        if self._records:
            self._on_result(self.name, "dropped", self._records)
            _log.error("audit sink %s closed with %d records unwritten", self.name, self._records)
        self._release(self._unconfirmed)

    def _check(self) -> None:
        self._watch = None
        if not self._unconfirmed:
            return
        left = self._unconfirmed[0].since + STALL - self._loop.time()
        if left <= 0:
            self._fail("a write has not ended in time")
        self._watch = self._loop.call_later(max(left, 0.05) if left > 0 else STALL, self._check)

    def _fail(self, reason: str) -> None:
        if not self.failing:
            self.failing = True
            _log.error("audit sink %s fails: %s", self.name, reason)
        self._release(self._unconfirmed)
        self._settled()

    def _release(self, batches: Iterable[_Batch]) -> None:
        released = sum(batch.resolve(self._refusal) for batch in batches)
        if released:
            self._on_result(self.name, "refused" if self._refusal else "unconfirmed", released)

    def _written(self, batches: int, records: int) -> None:
        self._records -= records
        for _ in range(batches):
            self._unconfirmed.popleft().resolve()
        if self.failing:
            self.failing = False
            _log.warning("audit sink %s works again", self.name)
        if records:
            self._on_result(self.name, "written", records)
        self._settled()

    def _failed(self, reason: str) -> None:
        self._on_result(self.name, "failed", 1)
        self._fail(reason)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    # The thread.

    def _run(self) -> None:
        works = self._attempt()
        while not self._closing:
            self._collect(None if works else RETRY)
            works = self._attempt()
        try:
            self._sink.close()
        except OSError as error:
            self._tell(self._failed, str(error.strerror))
        self._tell(self._end)

    def _collect(self, wait: float | None) -> None:
        """Take everything that was given, for a failing sink until ``wait`` seconds have passed."""
        deadline = time.monotonic() + (HEAD_INTERVAL if wait is None else wait)
        while not self._closing:
            try:
                batch = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                if wait is not None:
                    return
                self._settle()
                batch = self._queue.get()
            self._take(batch)
            if wait is None or time.monotonic() >= deadline:
                return

    def _take(self, batch: _Batch | None) -> None:
        while batch is not None:
            self._backlog.append(batch)
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                return
        self._closing = True

    def _settle(self) -> None:
        with suppress(OSError):  # told by the next write
            self._sink.settle()

    def _attempt(self) -> bool:
        """Write the backlog, or nothing, which opens the sink. Stops at the first failure."""
        while True:
            chosen, records = self._choose()
            try:
                self._sink.write(records, sync=self._sync)
            except OSError as error:
                self._tell(self._failed, str(error.strerror))
                return False
            for _ in range(chosen):
                self._backlog.popleft()
            self._tell(self._written, chosen, len(records))
            if not self._backlog:
                return True

    def _choose(self) -> tuple[int, list[bytes]]:
        records: list[bytes] = []
        chosen = 0
        for batch in self._backlog:
            if len(records) >= BATCH:
                break
            records.extend(batch.records)
            chosen += 1
        return chosen, records

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the event loop has ended; nobody waits
            self._loop.call_soon_threadsafe(callback, *arguments)


class AuditWriter:
    """The ``AuditLog`` of a process.

    Args:
        sinks: the first decides, the others follow.
        on_failure: ``deny`` refuses calls while the first sink fails, ``allow`` lets them pass and counts them.
        durability: an intent returns when its batch was written (survives the process) or synced (the machine), of the
            first sink; the others only write.
        arguments_mode: what is kept of arguments.
        results_mode: what is kept of results.
        key: the first of ``GATEWAY_KEYS``; keys the digests of arguments.
        on_result: counts, see ``OnResult``.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        on_failure: Literal["deny", "allow"] = "deny",
        durability: Literal["write", "fsync"] = "write",
        arguments_mode: ArgumentsMode = "full",
        results_mode: ResultsMode = "size",
        key: bytes,
        on_result: OnResult | None = None,
    ) -> None:
        self._sinks = sinks
        self._denies = on_failure == "deny"
        self._sync = durability == "fsync"
        self._encoder = Encoder(arguments_mode, key, results_mode)
        self._on_result = on_result or _ignore
        self._lanes: list[_Lane] = []
        self._records: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._lingering: asyncio.TimerHandle | None = None
        self._soon = False
        self._held = False

    @property
    def healthy(self) -> bool:
        """False while calls are refused because the audit cannot be written."""
        return bool(self._lanes) and not (self._denies and self._lanes[0].failing)

    @property
    def failing(self) -> list[str]:
        """The sinks that cannot be written now, whatever that means for calls."""
        return [lane.name for lane in self._lanes if lane.failing]

    def keep(self, arguments: ArgumentsMode, results: ResultsMode) -> None:
        """What is kept of arguments and results from now on."""
        self._encoder.arguments_mode = arguments
        self._encoder.results.mode = results

    def start(self) -> None:
        """Start the threads; they open the sinks. Called on the event loop that will use this."""
        self._loop = asyncio.get_running_loop()
        refusal = _unavailable if self._denies else None
        self._lanes = [
            _Lane(sink, self._on_result, sync=self._sync and at == 0, refusal=refusal, settled=self._settled)
            for at, sink in enumerate(self._sinks)
        ]

    async def aclose(self) -> None:
        """Write everything that was recorded and end the threads. What comes later is refused."""
        if self._lingering is not None:
            self._lingering.cancel()
        if self._records:
            self._hand_over()
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*(lane.aclose() for lane in lanes))

    async def intend(self, event: AuditEvent) -> None:
        """See ``AuditLog``."""
        if not self.healthy:
            self._on_result(self._sinks[0].name, "refused", 1)
            raise _unavailable()
        waiter = self._loop.create_future()
        self._records.append(self._encoder.encode(event, "intent", time.time()))
        event.intended = True
        self._waiters.append(waiter)
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._flush)
        await waiter

    def append(self, event: AuditEvent) -> None:
        """See ``AuditLog``."""
        if not self._lanes:
            self._on_result(self._sinks[0].name, "dropped", 1)
            return
        self._records.append(self._encoder.encode(event, "outcome" if event.intended else event.kind, time.time()))
        if self._lingering is None:
            self._lingering = self._loop.call_later(LINGER, self._linger)

    def _linger(self) -> None:
        self._lingering = None
        self._flush()

    def _settled(self) -> None:
        """The deciding sink has taken what it had, or fails: hand over what gathered meanwhile."""
        if self._held:
            self._flush()

    def _flush(self) -> None:
        self._soon = False
        self._held = bool(self._records) and bool(self._lanes) and self._lanes[0].holds(len(self._records))
        if self._records and not self._held:
            self._hand_over()

    def _hand_over(self) -> None:
        records, self._records = self._records, []
        waiters, self._waiters = self._waiters, []
        for lane in self._lanes:
            lane.submit(records, waiters)
            waiters = []


def _unavailable() -> AuditUnavailable:
    return AuditUnavailable(
        "This call cannot be recorded at the moment, so it was not executed. Try again later.",
        retry_after=1,
        rule="audit",
    )


def _ignore(sink: str, result: str, count: int) -> None:
    """Nobody counts."""
