"""What clients cancel by id: each request that is not cancelled while it runs has its one answer."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.conversations import Conversations
from gateway.http.responder import Responder
from gateway.models import BackendReply, BackendRequest
from gateway.ports import Notify
from gateway.protocol.answers import Answer
from gateway.replicas import Replicas
from gateway.seen import SeenUris
from gateway.stores.relay import MemoryRelay

from .fakes import Core, FakeBackend, FakeHub, inbound

BATCHES = "2025-03-26"
IDS = (1, 2, "1")

Message = dict[str, Any]


class Process(Core):
    """A gateway of one process, from its pipeline to the relay. ``session`` is one of a client that sends batches."""

    def __init__(self) -> None:
        relay = MemoryRelay()
        here = Conversations(relay.here)
        replicas = Replicas(relay, here, FakeHub(), present=lambda: self.present, seen=SeenUris(), now=lambda: 0.0)
        super().__init__(conversations=replicas)
        self.here = here
        self.of_batches = self.session(revision=BATCHES)

    async def post(self, body: Message | list[Message]) -> Answer | None:
        """The answer to one POST; None where its client cancelled it."""

        async def discard(_message: Any) -> None: ...

        async def serve() -> Answer:
            responder = Responder(discard, [(b"x-request-id", b"r")], may_stream=True, conversations=self.here)
            try:
                answer = await self.pipeline.post(inbound(body, headers={"mcp-session-id": self.of_batches}), responder)
                await responder.finish(answer)
                return answer
            finally:
                responder.abandon()

        task = asyncio.ensure_future(serve())
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()


class Interrupted(FakeBackend):
    """Lets the client cancel these ids, in turn one group for each call that arrives, while that call runs."""

    def __init__(self, process: Process, plan: Sequence[Sequence[Any]]) -> None:
        super().__init__()
        self.process = process
        self.plan = list(plan)
        self.reached_by: list[Any] = []

    async def request(self, request: BackendRequest, notify: Notify) -> BackendReply:
        for number in self.plan.pop(0) if self.plan else ():
            await self.process.post(cancelled(number))
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().request(request, notify)


def called(number: Any) -> Message:
    params = {"name": "logs__search", "arguments": {}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def pinged(number: Any) -> Message:
    return {"jsonrpc": "2.0", "id": number, "method": "ping"}


def cancelled(number: Any) -> Message:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}


def answered(answer: Answer | None) -> Counter[Any]:
    assert answer is not None, "the whole POST was cancelled"
    assert answer.status in (200, 202)
    messages = json.loads(answer.body) if answer.body else []
    return Counter(message["id"] for message in messages)


numbers = st.sampled_from(IDS)
batches = st.lists(st.builds(called, numbers) | st.builds(pinged, numbers) | st.builds(cancelled, numbers), min_size=1)
plans = st.lists(st.lists(numbers, max_size=2), max_size=5)


@settings(deadline=None)
@given(batches.filter(lambda batch: len(batch) <= 6), plans)
async def test_every_request_of_a_batch_that_is_not_cancelled_while_it_runs_has_one_answer(
    batch: list[Message], plan: list[list[Any]]
) -> None:
    process = Process()
    process.backends["logs"] = Interrupted(process, plan)
    process.reload()
    expected: Counter[Any] = Counter()
    interruptions = iter(plan)
    for message in batch:
        stopped = next(interruptions, ()) if message["method"] == "tools/call" else ()
        if "id" in message and not any(_same(number, message["id"]) for number in stopped):
            expected[message["id"]] += 1
    assert answered(await process.post(batch)) == expected
    mine = [event for event in process.audit.ends if "." in event.request_id]
    requests = [event for event in mine if event.method != "notifications/cancelled"]
    assert Counter(event.outcome == "aborted" for event in requests)[False] == expected.total()
    assert len(requests) == sum("id" in message for message in batch)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(("first", "expected"), [(cancelled(1), {1: 1, 2: 1}), (pinged(1), {1: 2, 2: 1})])
async def test_a_cancellation_before_or_after_a_request_of_its_batch_leaves_it_alone(
    first: Message, expected: dict[int, int]
) -> None:
    process = Process()
    process.backends["logs"] = Interrupted(process, [])
    process.reload()
    assert answered(await process.post([first, cancelled(1), called(1), cancelled(1), pinged(2)])) == expected


async def test_the_cancellation_of_one_call_of_a_batch_ends_no_other() -> None:
    process = Process()
    process.backends["logs"] = Interrupted(process, [[], [2]])
    process.reload()
    assert answered(await process.post([called(1), called(2), pinged(3)])) == {1: 1, 3: 1}
    assert [event.outcome for event in process.audit.ends if event.method == "tools/call"] == ["ok", "aborted"]


async def test_a_batch_of_which_nothing_is_left_is_accepted_without_a_body() -> None:
    process = Process()
    process.backends["logs"] = Interrupted(process, [[1]])
    process.reload()
    answer = await process.post([called(1)])
    assert answer is not None
    assert (answer.status, answer.body) == (202, b"")


async def test_two_requests_with_one_id_are_both_cancelled_by_it_and_neither_when_the_other_ends() -> None:
    process = Process()
    backend = process.backends["logs"]
    backend.hold = asyncio.Event()
    calls = [asyncio.ensure_future(process.post(called(1))) for _ in range(2)]
    await backend.until_reached()
    await process.post(pinged(1))
    await process.post(cancelled(1))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*calls) == [None, None]
    assert len(backend.requests) == 2
