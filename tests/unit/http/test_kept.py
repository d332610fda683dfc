"""The stream of one call: what is kept of it, who reads it, and when its call ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.http import kept as module
from gateway.http.kept import AWAY_SECONDS, MAX_BYTES, MAX_EVENTS, Kept
from gateway.models import ANONYMOUS


class Alarm:
    """A timer that rings when a test lets it."""

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds, self.call, self.cancelled = seconds, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Shelf:
    """``kept.Store``; ``known``: whether what is in it can be found again."""

    def __init__(self) -> None:
        self.known, self.bytes = True, 0
        self.alarms: list[Alarm] = []
        self.ended: list[Kept] = []
        self.forgotten: list[Kept] = []

    def later(self, seconds: float, call: Callable[[], None]) -> Alarm:
        self.alarms.append(Alarm(seconds, call))
        return self.alarms[-1]

    def has(self, kept: Kept) -> bool:
        return self.known

    def finished(self, kept: Kept) -> None:
        self.ended.append(kept)

    def grow(self, kept: Kept, change: int) -> None:
        self.bytes += change

    def forget(self, kept: Kept) -> None:
        self.forgotten.append(kept)


@pytest.fixture
async def task() -> AsyncIterator[asyncio.Task[bool]]:
    running = asyncio.ensure_future(asyncio.Event().wait())
    yield running
    running.cancel()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def kept(shelf: Shelf, task: asyncio.Task[bool]) -> Kept:
    return Kept(shelf, ("s", None), task, ANONYMOUS)


async def test_it_begins_with_a_priming_event_without_data(kept: Kept) -> None:
    body, more = await kept.open().next()
    assert body == f": open\n\nid: {kept.id}.0\nretry: 1000\ndata:\n\n".encode()
    assert more


async def test_messages_come_with_ids_and_the_answer_ends_it(kept: Kept) -> None:
    reader = kept.open()
    kept.put(b"1")
    await reader.next()
    kept.finish(b"2")
    assert await reader.next() == (f"id: {kept.id}.2\nevent: message\ndata: 2\n\n".encode(), False)


async def test_a_reader_is_woken(kept: Kept) -> None:
    reader = kept.open()
    await reader.next()
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    kept.put(b"1")
    assert b"data: 1" in (await waiting)[0]


async def test_silence_is_filled(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.001)
    reader = kept.open()
    await reader.next()
    assert await reader.next() == (b": keep-alive\n\n", True)


async def test_who_comes_back_gets_what_was_missed_and_the_former_connection_ends(kept: Kept) -> None:
    former = kept.open()
    kept.put(b"1")
    kept.put(b"2")
    with kept.resumed(1) as reader:
        body, more = await reader.next()
        assert (b"data: 1" in body, b"data: 2" in body, more) == (False, True, True)
        _, more = await former.next()
        assert not more


@pytest.mark.parametrize("size", [1, MAX_BYTES // 4])
def test_the_oldest_fall_out_and_the_youngest_stays(kept: Kept, shelf: Shelf, size: int) -> None:
    for _ in range(MAX_EVENTS + 5):
        kept.put(b"x" * size)
    assert kept.since(0).count(b"event:") <= MAX_EVENTS
    assert len(kept.since(0)) == kept.size == shelf.bytes <= MAX_BYTES
    assert f".{MAX_EVENTS + 5}\n".encode() in kept.since(0)


def test_an_answer_larger_than_the_ring_is_kept(kept: Kept) -> None:
    kept.put(b"1")
    kept.finish(b"x" * (MAX_BYTES + 1))
    assert kept.since(0).count(b"event:") == 1
    assert len(kept.since(1)) > MAX_BYTES


def test_a_call_that_is_left_goes_on_for_a_while(kept: Kept, shelf: Shelf, task: asyncio.Task[bool]) -> None:
    kept.open()
    assert kept.leave()
    assert not task.cancelling()
    (alarm,) = shelf.alarms
    assert alarm.seconds == AWAY_SECONDS
    alarm.call()
    assert task.cancelling()


def test_who_comes_back_and_leaves_again_has_the_whole_time_again(
    kept: Kept, shelf: Shelf, task: asyncio.Task[bool]
) -> None:
    kept.leave()
    with kept.resumed(0):
        assert shelf.alarms[0].cancelled
    assert [alarm.cancelled for alarm in shelf.alarms] == [True, False]
    assert not task.cancelling()


def test_leaving_an_answered_call_starts_no_clock(kept: Kept, shelf: Shelf) -> None:
    kept.leave()
    kept.finish(b"1")
    assert shelf.alarms[0].cancelled
    with kept.resumed(0):
        pass
    assert (kept.leave(), len(shelf.alarms), shelf.ended) == (False, 1, [kept])


def test_where_nobody_can_come_back_leaving_ends_the_call(kept: Kept, shelf: Shelf, task: asyncio.Task[bool]) -> None:
    with kept.resumed(0):
        shelf.known = False
    assert task.cancelling()
    assert not kept.leave()


async def test_a_call_that_ends_without_an_answer_ends_its_stream_and_is_forgotten(kept: Kept, shelf: Shelf) -> None:
    with kept.resumed(0) as reader:
        await reader.next()
        kept.abandon()
        assert await reader.next() == (b"", False)
        assert shelf.forgotten == [kept]
        kept.finished = True
    kept.abandon()
    assert shelf.forgotten == [kept]
