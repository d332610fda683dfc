"""Who may cancel what, and who answers what: within one session, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import ClientSilent
from gateway.http.conversations import Conversations

HERE = "a1b2"


async def running(conversations: Conversations, session: str, number: Any) -> tuple[asyncio.Task[None], Any]:
    """A request that runs until it is cancelled."""
    keys: list[Any] = []
    begun = asyncio.Event()

    async def serve() -> None:
        keys.append(conversations.begin(session, number))
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(serve())
    async with asyncio.timeout(5):
        await begun.wait()
    return task, keys[0]


async def settled(task: asyncio.Task[None]) -> bool:
    """Whether the task was cancelled; it is, afterwards."""
    await asyncio.sleep(0)
    cancelled = task.cancelled() or task.cancelling() > 0
    task.cancel()
    await asyncio.wait([task])
    return cancelled


async def test_a_client_cancels_its_own_request() -> None:
    conversations = Conversations(HERE)
    task, _ = await running(conversations, "s", 1)
    conversations.cancel("s", 1)
    assert await settled(task)


@pytest.mark.parametrize(
    ("session", "number"),
    [("other", 1), ("s", 2), ("s", "1"), ("s", None), ("s", [1]), ("s", {}), ("s", 1.5), ("s", True)],
)
async def test_nothing_else_cancels_it(session: str, number: Any) -> None:
    conversations = Conversations(HERE)
    task, _ = await running(conversations, "s", 1)
    conversations.cancel(session, number)
    assert not await settled(task)


async def test_a_request_that_has_ended_is_not_cancelled() -> None:
    conversations = Conversations(HERE)
    task, key = await running(conversations, "s", 1)
    conversations.end(key)
    conversations.end(key)
    conversations.cancel("s", 1)
    assert not await settled(task)


async def test_what_has_the_same_id_is_cancelled_together_and_ends_alone() -> None:
    conversations = Conversations(HERE)
    (first, key), (second, _), (third, _) = [await running(conversations, "s", 1) for _ in range(3)]
    conversations.end(key)
    conversations.end(key)
    conversations.cancel("s", 1)
    assert [await settled(task) for task in (first, second, third)] == [False, True, True]


async def test_a_client_may_cancel_twice() -> None:
    conversations = Conversations(HERE)
    task, _ = await running(conversations, "s", 1)
    conversations.cancel("s", 1)
    conversations.cancel("s", 1)
    assert await settled(task)


async def test_an_answer_reaches_who_asked() -> None:
    conversations = Conversations(HERE)
    number, waiting = conversations.question("s")
    conversations.deliver("s", {"jsonrpc": "2.0", "id": number, "result": {"a": 1}})
    assert await conversations.answer("s", number, waiting, 5) == {"a": 1}


async def test_the_id_of_a_question_names_this_process_and_is_never_repeated() -> None:
    conversations = Conversations(HERE)
    numbers = [conversations.question("s")[0] for _ in range(100)]
    assert len(set(numbers)) == 100
    assert all(number.startswith(f"{HERE}.") for number in numbers)


@pytest.mark.parametrize(("session", "suffix"), [("other", ""), ("s", "0"), ("s", "x")])
async def test_an_answer_of_another_session_or_to_another_question_is_dropped(session: str, suffix: str) -> None:
    conversations = Conversations(HERE)
    number, waiting = conversations.question("s")
    conversations.deliver(session, {"id": number + suffix, "result": {"forged": True}})
    assert not waiting.done()
    conversations.deliver("s", {"id": number, "result": {}})
    assert await conversations.answer("s", number, waiting, 5) == {}


@pytest.mark.parametrize("number", [1, "", "unknown", 0])
async def test_an_answer_that_nobody_waits_for_is_dropped(number: Any) -> None:
    Conversations(HERE).deliver("s", {"id": number, "result": {}})


async def test_a_second_answer_changes_nothing() -> None:
    conversations = Conversations(HERE)
    number, waiting = conversations.question("s")
    conversations.deliver("s", {"id": number, "result": {"n": 1}})
    conversations.deliver("s", {"id": number, "result": {"n": 2}})
    assert await conversations.answer("s", number, waiting, 5) == {"n": 1}


@pytest.mark.parametrize(
    "response",
    [{"error": {"code": -1, "message": "no"}}, {"result": None}, {"result": [1]}, {"result": "x"}, {}],
)
async def test_a_client_that_answers_with_no_result_has_refused(response: dict[str, Any]) -> None:
    conversations = Conversations(HERE)
    number, waiting = conversations.question("s")
    conversations.deliver("s", {"id": number, **response})
    with pytest.raises(ClientSilent, match="refused"):
        await conversations.answer("s", number, waiting, 5)


async def test_a_client_that_does_not_answer_in_time_is_silent_and_its_late_answer_dropped() -> None:
    conversations = Conversations(HERE)
    number, waiting = conversations.question("s")
    with pytest.raises(ClientSilent, match="in time"):
        await conversations.answer("s", number, waiting, 0)
    conversations.deliver("s", {"id": number, "result": {}})


async def test_who_waits_can_be_cancelled_and_nothing_is_kept() -> None:
    conversations = Conversations(HERE)
    number, waiting = conversations.question("s")
    task = asyncio.ensure_future(conversations.answer("s", number, waiting, 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    conversations.deliver("s", {"id": number, "result": {}})
