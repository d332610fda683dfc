"""Writes the audit off the event loop. Each sink has one thread; what arrived since its last write goes in one write.

The first sink decides: an intent waits for it, and its failure is the audit's failure. The others get every record too
and catch up by themselves. Everything here runs on the event loop; the threads are in ``audit_lane``.

What a call records is gathered: waking a thread, and bringing the code that encodes a record into the processor's
cache, cost more than several records do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Literal

from gateway.audit import ArgumentsMode, AuditEvent, Encoder, Kind, ResultsMode
from gateway.errors import AuditUnavailable
from gateway.stores.audit_lane import Lane, OnResult
from gateway.stores.audit_sinks import Sink

TURNS = 6
"""Turns of the event loop that intents wait at most for company: as long as each turn brings some."""
UNWRITTEN = 64
"""Events that wait at most to be encoded, which costs half where several are encoded one after another."""
LINGER = 0.005
"""Seconds that records nobody waits for may wait for company."""


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
        self._lanes: list[Lane] = []
        self._events: list[tuple[AuditEvent, Kind, float]] = []
        self._records: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._lingering: asyncio.TimerHandle | None = None
        self._soon = False
        self._turns = self._gathered = 0
        self._since = 0.0
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
            Lane(sink, self._on_result, sync=self._sync and at == 0, refusal=refusal, settled=self._settled)
            for at, sink in enumerate(self._sinks)
        ]

    async def aclose(self) -> None:
        """Write everything that was recorded and end the threads. What comes later is refused."""
        if self._lingering is not None:
            self._lingering.cancel()
        self._encode()
        if self._records:
            self._hand_over()
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*(lane.aclose() for lane in lanes))

    def intend(self, event: AuditEvent) -> asyncio.Future[None]:
        """See ``AuditLog``."""
        if not self.healthy:
            self._on_result(self._sinks[0].name, "refused", 1)
            raise _unavailable()
        waiter = self._loop.create_future()
        self._record(event, "intent")
        event.intended = True
        self._waiters.append(waiter)
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._gather)
        return waiter

    def append(self, event: AuditEvent) -> None:
        """See ``AuditLog``."""
        if not self._lanes:
            self._on_result(self._sinks[0].name, "dropped", 1)
            return
        self._record(event, "outcome" if event.intended else event.kind)
        if self._lingering is None:
            self._lingering = self._loop.call_later(LINGER, self._linger)

    def _record(self, event: AuditEvent, kind: Kind) -> None:
        if not self._events and not self._records:
            self._since = self._loop.time()
        self._events.append((event, kind, time.time()))
        if self._held or len(self._events) >= UNWRITTEN:
            self._encode()

    def _encode(self) -> None:
        encode = self._encoder.encode
        self._records += [encode(event, kind, now) for event, kind, now in self._events]
        self._events.clear()

    def _gather(self) -> None:
        """Hand over at the end of the first turn that brings no more: waking the thread costs more than such a turn."""
        if len(self._waiters) > self._gathered and self._turns < TURNS:
            self._gathered = len(self._waiters)
            self._turns += 1
            self._loop.call_soon(self._gather)
        else:
            self._flush()

    def _linger(self) -> None:
        """Hand over what nobody waits for, unless what the timer was set for has left with others since."""
        left = self._since + LINGER - self._loop.time() if self._events or self._records else 0.0
        self._lingering = self._loop.call_later(left, self._linger) if left > 0 else None
        if self._lingering is None:
            self._flush()

    def _settled(self) -> None:
        """The deciding sink has taken what it had, or fails: hand over what gathered meanwhile."""
        if self._held:
            self._flush()

    def _flush(self) -> None:
        self._soon = False
        self._turns = self._gathered = 0
        self._encode()
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
