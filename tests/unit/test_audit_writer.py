import asyncio
import json
import threading

import pytest

from gateway.audit import AuditEvent
from gateway.errors import AuditUnavailable
from gateway.settings import Settings
from gateway.stores import audit_lane, audit_log
from gateway.stores.audit_log import AuditWriter
from gateway.stores.audit_sinks import open_sinks

KEY = b"k" * 32


class FakeSink:
    """Keeps what is written. ``fault`` is raised; ``gate`` holds the thread as a stuck disk does."""

    def __init__(self, name="fake"):
        self.name = name
        self.fault = None
        self.gate = threading.Event()
        self.gate.set()
        self.writes = []
        self.closed = False
        self.synced = set()

    def write(self, bodies, *, sync):
        self.synced.add(sync)
        self.gate.wait(10)
        if self.fault:
            raise self.fault
        if bodies:
            self.writes.append(list(bodies))

    def settle(self):
        pass

    def close(self):
        self.closed = True

    @property
    def records(self):
        return [body for write in self.writes for body in write]


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(0.002)


class Running:
    """A started writer over fake sinks, and what it counted."""

    def __init__(self, *sinks, **options):
        self.sinks = sinks or (FakeSink(),)
        self.counts = {}
        self.writer = AuditWriter(self.sinks, key=KEY, on_result=self._count, **options)

    def _count(self, sink, result, count):
        self.counts[sink, result] = self.counts.get((sink, result), 0) + count

    async def __aenter__(self):
        self.writer.start()
        return self

    async def __aexit__(self, *_):
        for sink in self.sinks:
            sink.gate.set()
        await self.writer.aclose()


async def test_an_intent_returns_when_it_is_written():
    async with Running() as run:
        run.sinks[0].gate.clear()
        waiting = asyncio.ensure_future(run.writer.intend(AuditEvent("r1")))
        await asyncio.sleep(0)
        assert not waiting.done()
        run.sinks[0].gate.set()
        await waiting
        assert [b'"event":"intent"' in body for body in run.sinks[0].records] == [True]


async def test_intents_of_one_turn_of_the_loop_share_a_write():
    async with Running() as run:
        await asyncio.gather(*(run.writer.intend(AuditEvent(f"r{at}")) for at in range(50)))
        assert [len(write) for write in run.sinks[0].writes] == [50]


async def test_the_record_after_an_intent_is_its_outcome_and_any_other_a_request():
    run = Running()
    async with run:
        called, refused = AuditEvent("called"), AuditEvent("refused")
        await run.writer.intend(called)
        run.writer.append(called)
        run.writer.append(refused)
    kinds = [body.split(b",")[0] for body in run.sinks[0].records]
    assert kinds == [b'"event":"intent"', b'"event":"outcome"', b'"event":"request"']


async def test_closing_writes_what_was_recorded_and_closes_the_sink():
    run = Running()
    async with run:
        for at in range(1200):
            run.writer.append(AuditEvent(f"r{at}"))
    assert len(run.sinks[0].records) == 1200
    assert run.sinks[0].closed
    assert run.counts == {("fake", "written"): 1200}


async def test_a_failing_sink_denies_and_heals_without_losing_an_outcome(monkeypatch):
    monkeypatch.setattr(audit_lane, "RETRY", 0.02)
    async with Running() as run:
        sink, writer = run.sinks[0], run.writer
        await writer.intend(AuditEvent("before"))
        sink.fault = OSError(28, "No space left on device")
        with pytest.raises(AuditUnavailable) as refusal:
            await writer.intend(AuditEvent("first"))
        assert not writer.healthy
        assert not refusal.value.dispatched
        with pytest.raises(AuditUnavailable):
            await writer.intend(AuditEvent("second"))
        writer.append(AuditEvent("kept"))
        sink.fault = None
        await until(lambda: writer.healthy)
        await writer.intend(AuditEvent("after"))
    names = [body.split(b'"request_id":"')[1].split(b'"')[0] for body in sink.records]
    assert names == [b"before", b"first", b"kept", b"after"]
    assert run.counts["fake", "refused"] == 2
    assert run.counts["fake", "failed"] >= 1


async def test_an_intent_refused_at_once_is_followed_by_a_single_request_record():
    async with Running() as run:
        run.sinks[0].fault = OSError(5, "Input/output error")
        with pytest.raises(AuditUnavailable):
            await run.writer.intend(AuditEvent("first"))
        event = AuditEvent("second")
        with pytest.raises(AuditUnavailable):
            await run.writer.intend(event)
        assert not event.intended
        run.sinks[0].fault = None


async def test_allow_lets_calls_pass_and_counts_them():
    async with Running(on_failure="allow") as run:
        run.sinks[0].fault = OSError(5, "Input/output error")
        await run.writer.intend(AuditEvent("first"))
        await run.writer.intend(AuditEvent("second"))
        assert run.writer.healthy
        assert run.counts["fake", "unconfirmed"] == 2
        run.sinks[0].fault = None
    assert len(run.sinks[0].records) == 2


async def test_a_stalled_sink_denies_until_its_write_ends(monkeypatch):
    monkeypatch.setattr(audit_lane, "STALL", 0.05)
    async with Running() as run:
        run.sinks[0].gate.clear()
        with pytest.raises(AuditUnavailable):
            await run.writer.intend(AuditEvent("stuck"))
        assert not run.writer.healthy
        run.sinks[0].gate.set()
        await until(lambda: run.writer.healthy)
        await run.writer.intend(AuditEvent("after"))
    assert len(run.sinks[0].records) == 2


async def test_a_second_sink_that_fails_or_stalls_denies_nothing():
    first, second, third = FakeSink("first"), FakeSink("second"), FakeSink("third")
    second.fault = OSError(32, "Broken pipe")
    third.gate.clear()
    async with Running(first, second, third) as run:
        await run.writer.intend(AuditEvent("r"))
        assert run.writer.healthy
        await until(lambda: run.writer.failing == ["second"])
        second.fault = None
    assert [len(sink.records) for sink in (first, second, third)] == [1, 1, 1]


async def test_over_the_backlog_records_are_dropped_counted_and_calls_refused(monkeypatch):
    monkeypatch.setattr(audit_lane, "BACKLOG", 10)
    async with Running() as run:
        run.sinks[0].gate.clear()
        for at in range(15):
            run.writer.append(AuditEvent(f"r{at}"))
        await until(lambda: not run.writer.healthy)
        assert run.counts["fake", "dropped"] == 5
        with pytest.raises(AuditUnavailable):
            await run.writer.intend(AuditEvent("one more"))
    assert len(run.sinks[0].records) == 10


async def handed_over():
    """What gathers for the next write has been handed over."""
    for _ in range(audit_log.TURNS + 2):
        await asyncio.sleep(0)


async def test_intents_of_turns_that_follow_each_other_share_a_write():
    async with Running() as run:
        await run.writer.intend(AuditEvent("opened"))
        waiting = []
        for at in range(audit_log.TURNS):
            waiting.append(asyncio.ensure_future(run.writer.intend(AuditEvent(f"r{at}"))))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert [len(write) for write in run.sinks[0].writes] == [1, audit_log.TURNS]


async def test_an_intent_waits_for_no_more_turns_than_some(monkeypatch):
    monkeypatch.setattr(audit_log, "TURNS", 3)
    async with Running() as run:
        await run.writer.intend(AuditEvent("opened"))
        run.sinks[0].gate.clear()
        waiting = []
        for at in range(20):
            waiting.append(asyncio.ensure_future(run.writer.intend(AuditEvent(f"r{at}"))))
            await asyncio.sleep(0)
        run.sinks[0].gate.set()
        await asyncio.gather(*waiting)
        assert len(run.sinks[0].writes[1]) < 6


async def test_events_are_recorded_in_the_order_in_which_they_were_given(monkeypatch):
    monkeypatch.setattr(audit_log, "UNWRITTEN", 2)
    async with Running() as run:
        for at in range(5):
            run.writer.append(AuditEvent(f"r{at}", method="ping"))
    assert [json.loads(b"{" + record + b"}")["request_id"] for record in run.sinks[0].records] == [
        "r0",
        "r1",
        "r2",
        "r3",
        "r4",
    ]


async def test_what_comes_while_the_sink_writes_gathers_into_one_more_write():
    async with Running() as run:
        sink = run.sinks[0]
        await run.writer.intend(AuditEvent("opened"))
        sink.gate.clear()
        waiting = [asyncio.ensure_future(run.writer.intend(AuditEvent("first")))]
        await handed_over()
        for at in range(20):
            await asyncio.sleep(0)
            waiting.append(asyncio.ensure_future(run.writer.intend(AuditEvent(f"r{at}"))))
            run.writer.append(AuditEvent(f"refused{at}"))
        sink.gate.set()
        await asyncio.gather(*waiting)
        assert [len(write) for write in sink.writes] == [1, 1, 40]


async def test_what_gathers_is_bounded_by_the_backlog(monkeypatch):
    monkeypatch.setattr(audit_lane, "BACKLOG", 10)
    async with Running() as run:
        await run.writer.intend(AuditEvent("opened"))
        run.sinks[0].gate.clear()
        waiting = asyncio.ensure_future(run.writer.intend(AuditEvent("first")))
        await handed_over()
        for at in range(30):
            run.writer.append(AuditEvent(f"r{at}"))
        with pytest.raises(AuditUnavailable):
            await waiting
        assert not run.writer.healthy
        assert run.counts["fake", "dropped"] == 21
    assert len(run.sinks[0].records) == 11


async def test_closing_writes_what_has_gathered():
    run = Running()
    async with run:
        await run.writer.intend(AuditEvent("opened"))
        run.sinks[0].gate.clear()
        first = asyncio.ensure_future(run.writer.intend(AuditEvent("first")))
        await handed_over()
        run.writer.append(AuditEvent("last"))
    await first
    assert len(run.sinks[0].records) == 3
    assert run.counts == {("fake", "written"): 3}


async def test_a_cancelled_call_disturbs_no_other_of_its_batch():
    async with Running() as run:
        run.sinks[0].gate.clear()
        gone, stays = (asyncio.ensure_future(run.writer.intend(AuditEvent(name))) for name in "ab")
        await asyncio.sleep(0)
        gone.cancel()
        run.sinks[0].gate.set()
        await stays
        assert gone.cancelled()


async def test_after_closing_intents_are_refused_and_nothing_raises():
    run = Running()
    async with run:
        pass
    run.writer.append(AuditEvent("late"))
    with pytest.raises(AuditUnavailable):
        await run.writer.intend(AuditEvent("late"))
    assert not run.writer.healthy
    assert run.counts["fake", "dropped"] == 1


def test_sinks_are_those_of_the_setting_in_their_order(tmp_path):
    environ = {
        "GATEWAY_AUDIT": f"file:{tmp_path}/a.jsonl, stdout, redis:audit",
        "GATEWAY_REDIS_URL": "redis://redis",
        "GATEWAY_KEYS": "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=",
    }
    assert [sink.name for sink in open_sinks(Settings.load(environ), KEY)] == ["file", "stdout", "redis"]


async def test_only_the_first_sink_has_to_sync():
    first, second = FakeSink("first"), FakeSink("second")
    async with Running(first, second, durability="fsync") as run:
        await run.writer.intend(AuditEvent("r"))
    assert (first.synced, second.synced) == ({True}, {False})
