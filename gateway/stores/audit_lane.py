"""One sink of the audit, its thread, and what was given to it and is not yet confirmed.

Everything here runs on the event loop, except ``Lane._run`` and what it calls.
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

from gateway.stores.audit_files import HEAD_INTERVAL
from gateway.stores.audit_sinks import Sink

BACKLOG = 10_000
"""Records kept in memory for a sink that fails or is slow; beyond it they are dropped and counted."""
BATCH = 500
"""Records from which on a write takes no more."""
STALL = 1.0
"""Seconds after which a write that has not ended is a failure."""
RETRY = 0.5
"""Seconds between two attempts of a failing sink."""
CLOSE = 5.0
"""Seconds that closing waits for a sink."""

OnResult = Callable[[str, str, int], None]
"""Gets the sink's name, ``written | failed | refused | unconfirmed | dropped`` and how many; on the event loop."""

_log = logging.getLogger(__name__)


class Batch:
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


class Lane:
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
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._unconfirmed: deque[Batch] = deque()
        self._records = 0
        self._watch: asyncio.TimerHandle | None = None
        self._backlog: deque[Batch] = deque()
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
        batch = Batch(records, waiters, self._loop.time())
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

    def _release(self, batches: Iterable[Batch]) -> None:
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

    def _take(self, batch: Batch | None) -> None:
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
