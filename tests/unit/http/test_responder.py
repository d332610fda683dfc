"""One answer: JSON where nothing came before it, else a stream whose last event it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ClientSilent
from gateway.http import responder as module
from gateway.http.conversations import Conversations
from gateway.http.responder import MAX_WAITING, Responder, event
from gateway.models import ANONYMOUS
from gateway.protocol.answers import Answer

ID = (b"x-request-id", b"r1")
BODY = b'{"jsonrpc":"2.0","id":1,"result":{}}'
SESSION = "s"


class Wire:
    """Takes what an ASGI application sends; ``gate``, where set, holds all but the first message back."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self.gate: asyncio.Event | None = None

    async def __call__(self, message: dict[str, Any]) -> None:
        if self.gate is not None and self.sent:
            await self.gate.wait()
        self.sent.append(message)
        self.news.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def over(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body", "status" in self.sent[-1]) is False

    @property
    def messages(self) -> list[Any]:
        events = [part for part in self.body.split(b"\n\n") if part.startswith(b"event: message\ndata: ")]
        return [json.loads(part.split(b"data: ", 1)[1]) for part in events]

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(5):
            while text not in self.body:
                self.news.clear()
                await self.news.wait()


def made(wire: Wire, *, may_stream: bool = True, conversations: Conversations | None = None) -> Responder:
    return Responder(wire, [ID], may_stream=may_stream, conversations=conversations)


# Plain


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 503])
async def test_an_answer_alone_is_json_with_its_status_and_headers(status: int) -> None:
    wire = Wire()
    await made(wire).finish(Answer(status, BODY, (("retry-after", "5"), ("www-authenticate", 'Bearer a="b"'))))
    assert (wire.status, wire.body, wire.over) == (status, BODY, True)
    assert wire.headers == {
        b"x-request-id": b"r1",
        b"retry-after": b"5",
        b"www-authenticate": b'Bearer a="b"',
        b"content-type": b"application/json",
        b"content-length": str(len(BODY)).encode(),
    }


async def test_an_accepted_notification_has_no_body_and_says_so() -> None:
    wire = Wire()
    await made(wire).finish(Answer(202))
    assert (wire.status, wire.body) == (202, b"")
    assert b"content-type" not in wire.headers
    assert wire.headers[b"content-length"] == b"0"


async def test_no_content_has_no_length() -> None:
    wire = Wire()
    await made(wire).finish(Answer(204))
    assert b"content-length" not in wire.headers


async def test_a_call_that_is_answered_at_once_stays_json_although_it_was_dispatched() -> None:
    wire = Wire()
    responder = made(wire)
    responder.dispatched()
    await responder.finish(Answer(200, BODY))
    assert wire.headers[b"content-type"] == b"application/json"


# Streams


async def test_notifications_come_first_and_in_order_and_the_answer_ends_the_stream() -> None:
    wire = Wire()
    responder = made(wire)
    for number in range(3):
        responder.notify("notifications/progress", {"progress": number})
    await responder.finish(Answer(200, BODY))
    assert wire.status == 200
    assert wire.headers[b"content-type"] == b"text/event-stream"
    assert wire.headers[b"x-accel-buffering"] == b"no"
    assert wire.headers[b"x-request-id"] == b"r1"
    assert b"content-length" not in wire.headers
    assert [message.get("params", {}).get("progress") for message in wire.messages] == [0, 1, 2, None]
    assert wire.messages[-1] == json.loads(BODY)
    assert wire.over
    assert [message["type"] for message in wire.sent].count("http.response.start") == 1


async def test_a_notification_leaves_before_the_answer_is_known() -> None:
    wire = Wire()
    responder = made(wire)
    responder.notify("notifications/message", {"data": "early"})
    await wire.until(b"early")
    assert not wire.over
    await responder.finish(Answer(200, BODY))


async def test_a_client_that_takes_no_stream_gets_json_and_no_notification() -> None:
    wire = Wire()
    responder = made(wire, may_stream=False)
    responder.notify("notifications/progress", {"progress": 1})
    responder.dispatched()
    await responder.finish(Answer(429, BODY))
    assert (wire.status, wire.body) == (429, BODY)


async def test_a_client_that_does_not_read_loses_the_oldest_notifications_and_not_the_answer() -> None:
    wire = Wire()
    wire.gate = asyncio.Event()
    responder = made(wire)
    for number in range(MAX_WAITING + 10):
        responder.notify("notifications/progress", {"progress": number})
    wire.gate.set()
    await responder.finish(Answer(200, BODY))
    assert wire.messages[-1] == json.loads(BODY)
    assert wire.messages[-2]["params"]["progress"] == MAX_WAITING + 9
    assert len(wire.messages) <= MAX_WAITING


async def test_a_long_silence_after_dispatch_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.005)
    wire = Wire()
    responder = made(wire)
    responder.dispatched()
    await wire.until(b": keep-alive\n\n")
    await responder.finish(Answer(200, BODY))
    assert wire.messages == [json.loads(BODY)]
    assert wire.status == 200


async def test_silence_before_dispatch_fixes_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.0)
    wire = Wire()
    responder = made(wire)
    for _ in range(10):
        await asyncio.sleep(0)
    await responder.finish(Answer(503, BODY))
    assert wire.status == 503


async def test_nothing_is_sent_after_the_client_has_left() -> None:
    wire = Wire()
    responder = made(wire)
    responder.notify("notifications/message", {"data": "early"})
    await wire.until(b"early")
    responder.abandon()
    responder.notify("notifications/message", {"data": "late"})
    for _ in range(10):
        await asyncio.sleep(0)
    assert b"late" not in wire.body


async def test_leaving_before_anything_was_sent_sends_nothing() -> None:
    wire = Wire()
    responder = made(wire)
    responder.dispatched()
    responder.abandon()
    await asyncio.sleep(0)
    assert wire.sent == []


# Questions


def in_session(wire: Wire, *, may_stream: bool = True) -> tuple[Responder, Conversations]:
    conversations = Conversations("here")
    responder = made(wire, may_stream=may_stream, conversations=conversations)
    responder.begin(SESSION, 1, ANONYMOUS)
    return responder, conversations


async def test_a_question_goes_on_the_stream_and_its_answer_comes_back() -> None:
    wire = Wire()
    responder, conversations = in_session(wire)
    assert responder.can_ask
    asking = asyncio.ensure_future(responder.ask("roots/list", {"a": 1}, 5))
    await wire.until(b"roots/list")
    (question,) = wire.messages
    assert (question["jsonrpc"], question["method"], question["params"]) == ("2.0", "roots/list", {"a": 1})
    conversations.deliver(SESSION, {"id": question["id"], "result": {"roots": []}})
    assert await asking == {"roots": []}
    await responder.finish(Answer(200, BODY))
    assert wire.messages[-1] == json.loads(BODY)


async def test_two_questions_have_different_ids() -> None:
    wire = Wire()
    responder, _ = in_session(wire)
    asking = [asyncio.ensure_future(responder.ask("roots/list", {}, 5)) for _ in range(2)]
    await wire.until(b".2")
    one, two = wire.messages
    assert one["id"] != two["id"]
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    responder.abandon()


async def test_a_client_without_a_stream_or_a_session_cannot_be_asked() -> None:
    without_stream, _ = in_session(Wire(), may_stream=False)
    without_session = made(Wire(), conversations=Conversations("here"))
    for responder in (without_stream, without_session, made(Wire())):
        assert not responder.can_ask
        with pytest.raises(ClientSilent):
            await responder.ask("roots/list", {}, 5)
    without_stream.abandon()


async def test_a_request_may_be_cancelled_until_its_answer() -> None:
    wire = Wire()
    conversations = Conversations("here")
    stopped = asyncio.Event()

    async def serve(answered: bool) -> str:
        responder = made(wire, conversations=conversations)
        responder.begin(SESSION, 1, ANONYMOUS)
        if answered:
            await responder.finish(Answer(200, BODY))
        stopped.set()
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "cancelled"
        finally:
            responder.abandon()
        return "ended"

    for answered, expected in ((False, "cancelled"), (True, "ended")):
        stopped.clear()
        task = asyncio.ensure_future(serve(answered))
        async with asyncio.timeout(5):
            await stopped.wait()
        conversations.cancel(SESSION, 1)
        assert await task == expected


async def begun(responder: Responder, cancelled: Conversations | None = None) -> str:
    """A message of a batch, that its client may cancel while it runs."""
    responder.begin(SESSION, 1, ANONYMOUS)
    if cancelled is not None:
        cancelled.cancel(SESSION, 1)
    await asyncio.sleep(0)
    return "answer"


async def test_a_part_that_its_client_cancels_ends_alone() -> None:
    conversations = Conversations("here")
    responder = made(Wire(), conversations=conversations)
    assert await responder.part(begun(responder, conversations)) is None
    assert await responder.part(begun(responder)) == "answer"
    conversations.cancel(SESSION, 1)
    assert await responder.part(begun(responder)) == "answer"


@pytest.mark.parametrize(
    ("cancels", "leaves", "unwanted"), [(True, False, True), (False, True, False), (True, True, False)]
)
async def test_an_answer_is_unwanted_where_its_client_said_so_and_has_not_left(
    cancels: bool, leaves: bool, unwanted: bool
) -> None:
    conversations = Conversations("here")
    responder = made(Wire(), conversations=conversations)
    begun = asyncio.Event()

    async def serve() -> bool:
        responder.begin(SESSION, 1, ANONYMOUS)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return responder.unwanted()
        return False

    task = asyncio.ensure_future(serve())
    await begun.wait()
    if cancels:
        conversations.cancel(SESSION, 1)
    if leaves:
        task.cancel()
    assert await task is unwanted


async def test_a_client_that_leaves_in_a_batch_of_which_it_cancelled_a_part_has_left() -> None:
    conversations = Conversations("here")
    responder = made(Wire(), conversations=conversations)
    assert await responder.part(begun(responder, conversations)) is None
    assert not responder.unwanted()


async def test_a_client_that_leaves_ends_the_part_that_runs_and_the_rest() -> None:
    responder = made(Wire(), conversations=Conversations("here"))
    ended: list[str] = []

    async def hanging() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("part")

    task = asyncio.ensure_future(responder.part(hanging()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["part"]


async def test_a_stream_of_which_no_answer_is_left_ends_without_one() -> None:
    wire = Wire()
    responder = made(wire)
    responder.notify("notifications/message", {"level": "info"})
    await wire.until(b"notifications/message")
    await responder.finish(Answer(202))
    assert wire.over
    assert [message["method"] for message in wire.messages] == ["notifications/message"]


# Events


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_every_message_is_one_event_of_one_line_whatever_line_breaks_it_had(value: Any) -> None:
    for text in (json.dumps(value, indent=1), json.dumps(value).replace(" ", "\r\n")):
        written = event(text.encode())
        assert written.startswith(b"event: message\ndata: ")
        assert written.endswith(b"\n\n")
        line = written.removeprefix(b"event: message\ndata: ").removesuffix(b"\n\n")
        assert b"\n" not in line
        assert b"\r" not in line
        if "\r" not in text:
            assert json.loads(line) == value
