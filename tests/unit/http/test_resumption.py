"""All streams that can be resumed: who finds which, how many there are, and how a call's answer gets on one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import resumption as module
from gateway.http.conversations import Conversations
from gateway.http.kept import Kept
from gateway.http.resumption import KEPT_SECONDS, MAX_OF_SESSION, Events, ResumableResponder
from gateway.models import ANONYMOUS, Principal
from gateway.protocol.answers import Answer

BODY = b'{"jsonrpc":"2.0","id":1,"result":{}}'


class _Handle:
    def __init__(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> Any:
        entry = (self.now + seconds, call)
        self.due.append(entry)
        return _Handle(lambda: self.due.remove(entry) if entry in self.due else None)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for entry in [one for one in self.due if one[0] <= self.now]:
            self.due.remove(entry)
            entry[1]()


@pytest.fixture
async def task() -> AsyncIterator[asyncio.Task[Any]]:
    running = asyncio.ensure_future(asyncio.Event().wait())
    yield running
    running.cancel()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events(clock: Clock) -> Events:
    return Events(clock=clock, call_later=clock.later)


def opened(
    events: Events,
    task: asyncio.Task[Any],
    session: str = "s",
    toolset: str | None = None,
    whose: Principal = ANONYMOUS,
) -> Kept:
    kept = events.open(session, toolset, task, whose)
    assert kept is not None
    return kept


def test_a_stream_is_found_by_its_own_session_and_toolset_only(events: Events, task: asyncio.Task[Any]) -> None:
    kept = opened(events, task, "s", "a")
    kept.put(b"1")
    assert events.resume("s", "a", f"{kept.id}.0") is not None
    assert events.resume("s", "a", f"{kept.id}.1") is not None
    for session, toolset, event_id in (
        ("other", "a", f"{kept.id}.0"),
        ("s", None, f"{kept.id}.0"),
        ("s", "a", f"{kept.id}.2"),
        ("s", "a", f"{kept.id}.-1"),
        ("s", "a", f"{kept.id}.\N{SUPERSCRIPT ONE}"),
        ("s", "a", kept.id),
    ):
        assert events.resume(session, toolset, event_id) is None, event_id


@given(st.text())
def test_no_text_is_an_event_id_by_accident(text: str) -> None:
    assert Events().resume("s", None, text) is None


def test_an_answer_that_was_had_is_nothing_to_come_back_for(events: Events, task: asyncio.Task[Any]) -> None:
    kept = opened(events, task)
    kept.finish(BODY)
    assert events.resume("s", None, f"{kept.id}.0") is not None
    assert events.resume("s", None, f"{kept.id}.1") is None


def test_a_session_has_few_streams_and_gives_up_answered_ones_first(events: Events, task: asyncio.Task[Any]) -> None:
    streams = [opened(events, task) for _ in range(MAX_OF_SESSION)]
    assert events.open("s", None, task, ANONYMOUS) is None
    assert events.open("other", None, task, ANONYMOUS) is not None
    streams[1].finish(BODY)
    opened(events, task)
    assert [events.has(kept) for kept in streams] == [True, False, True, True]


def test_all_sessions_together_are_bounded(
    events: Events, task: asyncio.Task[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    first = opened(events, task, "a")
    opened(events, task, "b")
    assert events.open("c", None, task, ANONYMOUS) is None
    first.finish(BODY)
    opened(events, task, "c")
    assert (len(events), events.has(first)) == (2, False)


def test_bytes_are_bounded_by_forgetting_the_oldest_answers(
    events: Events, task: asyncio.Task[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ALL_BYTES", 1000)
    one, two, three = (opened(events, task, name) for name in "abc")
    one.finish(b"x" * 400)
    two.finish(b"x" * 400)
    three.put(b"x" * 400)
    assert [events.has(kept) for kept in (one, two, three)] == [False, True, True]
    three.put(b"x" * 1000)
    assert [events.has(kept) for kept in (two, three)] == [False, True]
    assert events.open("d", None, task, ANONYMOUS) is None


ALICE, BOB = Principal("https://idp", "alice"), Principal("https://idp", "bob")


def test_one_principal_has_a_share_of_the_streams_and_gives_up_its_own_answers_first(
    events: Events, task: asyncio.Task[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 8)
    of_bob = opened(events, task, "b1", whose=BOB)
    of_bob.finish(BODY)
    first, _ = opened(events, task, "a1", whose=ALICE), opened(events, task, "a2", whose=ALICE)
    assert events.open("a3", None, task, ALICE) is None
    opened(events, task, "b2", whose=BOB)
    first.finish(BODY)
    opened(events, task, "a3", whose=ALICE)
    assert [events.has(kept) for kept in (of_bob, first)] == [True, False]


def test_one_principal_has_a_share_of_the_bytes_and_crowds_out_its_own_answers_only(
    events: Events, task: asyncio.Task[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ALL_BYTES", 4000)
    of_bob, first, second = (
        opened(events, task, name, whose=whose) for name, whose in (("b", BOB), ("a1", ALICE), ("a2", ALICE))
    )
    for kept in (of_bob, first, second):
        kept.finish(b"x" * 600)
    assert [events.has(kept) for kept in (of_bob, first, second)] == [True, False, True]
    running = opened(events, task, "a3", whose=ALICE)
    running.put(b"x" * 1200)
    assert [events.has(kept) for kept in (of_bob, second, running)] == [True, False, True]
    assert events.open("a4", None, task, ALICE) is None
    opened(events, task, "b2", whose=BOB)


@given(st.lists(st.tuples(st.sampled_from(["open", "put", "finish", "forget", "end"]), st.integers(0, 5))))
async def test_shares_are_counted_to_the_byte_however_streams_end(steps: list[tuple[str, int]]) -> None:
    running = asyncio.ensure_future(asyncio.Event().wait())
    clock = Clock()
    events = Events(clock=clock, call_later=clock.later)
    streams: list[Kept] = []
    for step, number in steps:
        kept = streams[number % len(streams)] if streams else None
        if step == "open":
            new = events.open(f"s{number}", None, running, (ALICE, BOB, ANONYMOUS)[number % 3])
            streams += [new] if new is not None else []
        elif step == "end":
            events.end_session(f"s{number}")
        elif kept is not None and step == "put" and not kept.finished:
            kept.put(b"x" * number)
        elif kept is not None and step == "finish" and not kept.finished:
            kept.finish(BODY)
        elif kept is not None and step == "forget":
            events.forget(kept)
        found = [kept for kept in streams if events.has(kept)]
        for whose in (ALICE, BOB, ANONYMOUS):
            mine = [kept for kept in found if kept.whose is whose]
            part = events._part_of(whose)
            assert (part.streams, part.bytes) == (len(mine), sum(kept.size for kept in mine))
            assert set(part.answered) == {kept.id for kept in mine if kept.finished}
    for kept in streams:
        events.forget(kept)
    assert events._parts == {}
    running.cancel()


def test_an_answer_is_kept_for_a_while_after_its_last_use(
    events: Events, task: asyncio.Task[Any], clock: Clock
) -> None:
    used, unused, running = (opened(events, task) for _ in range(3))
    used.finish(BODY)
    unused.finish(BODY)
    clock.advance(KEPT_SECONDS - 1)
    events.resume("s", None, f"{used.id}.0")
    clock.advance(1)
    assert [events.has(kept) for kept in (used, unused, running)] == [True, False, True]
    clock.advance(KEPT_SECONDS)
    assert [events.has(kept) for kept in (used, running)] == [False, True]
    assert clock.due == []


def test_the_end_of_a_session_ends_the_calls_that_its_client_left(events: Events, task: asyncio.Task[Any]) -> None:
    attended = opened(events, task)
    attended.open()
    events.end_session("s")
    assert not task.cancelling()
    opened(events, task).leave()
    events.end_session("other")
    assert not task.cancelling()
    events.end_session("s")
    assert (bool(task.cancelling()), len(events)) == (True, 0)


# The answer of a call


class Wire:
    """Takes what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.primed = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        self.sent.append(message)
        if b"retry: 1000\ndata:\n\n" in self.body:
            self.primed.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def made(wire: Wire, events: Events, *, resumable: bool = True) -> ResumableResponder:
    responder = ResumableResponder(wire, [], conversations=Conversations("h"), events=events, toolset=None)
    responder.begin("s", 1, ANONYMOUS, resumable=resumable)
    return responder


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_fast_call_is_json_and_leaves_nothing_behind(events: Events) -> None:
    wire = Wire()
    responder = made(wire, events)
    responder.dispatched()
    await responder.finish(Answer(200, BODY))
    responder.abandon()
    assert (wire.body, len(events)) == (BODY, 0)


async def test_a_call_that_takes_a_moment_is_a_stream_that_can_be_resumed(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_SECONDS", 0.0)
    wire = Wire()
    responder = made(wire, events)
    responder.dispatched()
    async with asyncio.timeout(5):
        await wire.primed.wait()
    await responder.finish(Answer(200, BODY))
    responder.abandon()
    assert wire.body.endswith(b".1\nevent: message\ndata: " + BODY + b"\n\n")
    assert (wire.sent[-1]["more_body"], len(events)) == (False, 1)


async def test_an_older_client_gets_a_stream_without_ids_and_its_leaving_ends_the_call(events: Events) -> None:
    wire = Wire()
    responder = made(wire, events, resumable=False)
    responder.notify("notifications/message", {})
    await turns()
    assert not responder.left()
    await responder.finish(Answer(200, BODY))
    assert b"id: " not in wire.body
    assert len(events) == 0


async def test_leaving_before_the_stream_is_open_ends_the_call(events: Events) -> None:
    responder = made(Wire(), events)
    responder.dispatched()
    assert not responder.left()
    responder.abandon()


async def test_what_comes_while_the_client_is_away_waits_for_it(events: Events) -> None:
    wire = Wire()
    responder = made(wire, events)
    responder.notify("notifications/message", {"data": 1})
    await turns()
    assert responder.left()
    seen = wire.body
    responder.notify("notifications/message", {"data": 2})
    with pytest.raises(asyncio.CancelledError):
        await responder.finish(Answer(200, BODY))
    responder.abandon()
    assert wire.body == seen
    stream = seen.split(b"id: ")[1].split(b".0")[0].decode()
    resumed = events.resume("s", None, f"{stream}.1")
    assert resumed is not None
    with resumed as reader:
        body, more = await reader.next()
    assert (b'"data":1' in body, b'"data":2' in body, BODY in body, more) == (False, True, True, False)


async def test_a_call_that_its_client_cancelled_ends_its_stream_and_is_forgotten(events: Events) -> None:
    wire = Wire()
    responder = made(wire, events)
    responder.notify("notifications/message", {})
    await turns()
    await responder.finish(Answer(202))
    responder.abandon()
    assert (len(events), wire.sent[-1]["more_body"]) == (0, False)
    assert wire.body.count(b"id: ") == 2


async def test_a_call_that_is_cancelled_is_forgotten(events: Events) -> None:
    responder = made(Wire(), events)
    responder.notify("notifications/message", {})
    await turns()
    responder.abandon()
    assert len(events) == 0


async def test_without_room_a_call_has_a_stream_that_cannot_be_resumed(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OF_SESSION", 0)
    wire = Wire()
    responder = made(wire, events)
    responder.notify("notifications/message", {})
    await turns()
    assert not responder.left()
    await responder.finish(Answer(200, BODY))
    assert (b"id: " in wire.body, BODY in wire.body) == (False, True)
